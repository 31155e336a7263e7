"""systemd/: systemd itself accepts the units and finds them hardened."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
UNITS = PROJECT / "systemd"
EXECUTABLE = "/opt/edgeproxy/bin/edgeproxy"
NAMES = ["edgeproxy.service", "edgeproxy@1.service"]


def analyze(*arguments: str | Path) -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing: apt-get install systemd"
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    done = subprocess.run(
        [found, *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as installed, with a program that exists here."""
    for source in UNITS.iterdir():
        text = source.read_text().replace(EXECUTABLE, sys.executable)
        # systemd looks for the documentation where a package would have put it.
        text = re.sub(r"^Documentation=.*$", "", text, flags=re.MULTILINE)
        (tmp_path / source.name.replace("@.", "@1.")).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", [*NAMES, "edgeproxy.socket"])
def test_systemd_accepts_the_unit(units: Path, name: str):
    assert analyze("verify", "--man=no", units / name) == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_exposure_is_at_most_two(units: Path, name: str):
    output = analyze("security", "--offline=true", units / name)
    (level,) = re.findall(r"exposure level for \S+: (\d+\.\d+)", output)
    assert float(level) <= 2.0


@pytest.mark.parametrize("name", ["edgeproxy.service", "edgeproxy@.service"])
def test_the_unit_keeps_what_the_documentation_promises(name: str):
    lines = (UNITS / name).read_text().splitlines()
    for line in (
        "Type=notify",
        "Restart=always",
        "RestartPreventExitStatus=2 78",
        "StateDirectory=edgeproxy",
        "LoadCredential=write_key:/etc/edgeproxy/write_key",
        "User=edgeproxy",
    ):
        assert line in lines


def test_the_two_services_differ_in_the_instance_alone():
    def essence(name: str) -> list[str]:
        text = (UNITS / name).read_text().replace(" --instance %i", "").replace(" %i,", ",")
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    assert essence("edgeproxy.service") == essence("edgeproxy@.service")


def shipped() -> dict[str, str]:
    """What the wheel puts under share/, by what it is here."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    found = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", [*NAMES, "edgeproxy.socket"])
def test_the_documentation_that_a_unit_names_is_shipped(name: str):
    text = (UNITS / name.replace("@1", "@")).read_text()
    (named,) = re.findall(r"^Documentation=file:/opt/edgeproxy/(\S+)$", text, re.MULTILINE)
    assert named in shipped().values()


def test_every_page_of_the_documentation_is_shipped_where_its_links_lead():
    pages = {f"docs/{page.name}" for page in (PROJECT / "docs").glob("*.md")}
    assert pages <= shipped().keys()
    for name, place in shipped().items():
        assert place == f"share/edgeproxy/{name}"  # laid out as here: the same links hold


@pytest.mark.parametrize("page", ["install.md", "configuration.md"])
def test_whoever_installs_finds_all_that_is_linked(page: str):
    for link in re.findall(r"\]\(([^)#]+)", (PROJECT / "docs" / page).read_text()):
        if "://" not in link:
            target = (PROJECT / "docs" / link).resolve().relative_to(PROJECT)
            assert str(target) in shipped(), link
