"""The booted host, installed as docs/install.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.boot.host import Host, booted, why_not

PROJECT = Path(__file__).parents[2]
INSTALL = (PROJECT / "docs/install.md").read_text()


def documented(first_line: str, language: str = "sh") -> str:
    """The block of docs/install.md that begins so, word for word."""
    blocks = re.findall(rf"```{language}\n(.*?)```", INSTALL, re.DOTALL)
    (block,) = [block for block in blocks if block.startswith(first_line)]
    return block


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if reason := why_not():
        pytest.skip(reason)
    wheels = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels]
    subprocess.run([*pip, PROJECT], check=True)
    with booted(tmp_path_factory.mktemp("boot")) as host:
        for wheel in wheels.iterdir():
            shutil.copy(wheel, host.root / "root")
        _hightouch(host)
        host.sh(documented("apt-get update"), outside_network=True)
        host.sh(documented("install -D -m 644"))
        directory, key = documented("install -d -m 755 /etc/edgeproxy").splitlines()
        host.sh(f"{directory}\nprintf 'boot-key\\n' > key\n{key} < key")
        host.sh(documented("cat > /etc/edgeproxy/config.toml"))
        host.sh("systemd-run --quiet --unit=sandbox edgeproxy sandbox --write-key boot-key")
        yield host


def _hightouch(host: Host) -> None:
    """A name server, an authority that the host trusts, and TLS: `inside.py upstream`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(
        str(host.root / "usr/local/share/ca-certificates/hightouch.crt")
    )
    identity = authority.issue_cert("hightouch.test")
    identity.private_key_and_cert_chain_pem.write_to_path(str(host.root / "root/hightouch.pem"))
    host.sh("update-ca-certificates")
