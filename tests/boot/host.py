"""A Debian 12 of its own, made by debootstrap and booted in namespaces of this machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
_PACKAGES = "systemd,systemd-sysv,dbus,iproute2,ca-certificates,python3-venv"
#: What a machine may need to reach its package mirrors, at the same places inside.
_CONFIGURATION = ("/etc/resolv.conf", "/etc/pip.conf", "/root/.config/pip/pip.conf")
_AUTHORITIES = "usr/local/share/ca-certificates"


def why_not() -> str | None:
    """Why no host can be booted here; None where one can."""
    if os.geteuid() != 0:
        return "needs root"
    wanted = ("debootstrap", "unshare", "nsenter", "pivot_root")
    if lacking := [name for name in wanted if shutil.which(name) is None]:
        return f"needs {', '.join(lacking)} (apt-get install debootstrap util-linux)"
    return None if _cgroups() else "needs cgroup v2"


class Host:
    """The booted system; its init is a child of this process."""

    def __init__(self, root: Path, init: int) -> None:
        self.root = root
        self._init = init

    def sh(self, script: str, *, outside_network: bool = False, code: int = 0) -> str:
        """Run as root inside and return both outputs; fails unless it ends with `code`."""
        spaces = ["--mount", "--uts", "--ipc", "--pid", *(() if outside_network else ["--net"])]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", f"PATH={path}"]
        done = subprocess.run(
            ["nsenter", f"--target={self._init}", *spaces, *clean, "bash", "-c", f"cd\n{script}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == code, f"{script}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.sh(f"systemctl show --value -p {name} {unit}").strip()

    def wait(self, seen: Callable[[], bool], seconds: float = 20) -> None:
        """Until `seen` is true; fails after `seconds`."""
        until = time.monotonic() + seconds
        while not seen():
            assert time.monotonic() < until, f"not within {seconds} s"
            time.sleep(0.2)


@contextmanager
def booted(folder: Path) -> Iterator[Host]:
    """Make the system in `folder`, boot it, and leave nothing of it behind."""
    root, cgroup = folder / "root", _cgroups() / f"edgeproxy-boot-{os.getpid()}"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", root],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    for name in _CONFIGURATION:
        if Path(name).exists():
            (root / name[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, root / name[1:])
    if (Path("/") / _AUTHORITIES).is_dir():
        shutil.copytree(Path("/") / _AUTHORITIES, root / _AUTHORITIES, dirs_exist_ok=True)
    (root / "etc/machine-id").write_text("")
    shutil.copy(HERE / "inside.py", root / "root")
    cgroup.mkdir()
    unshare = subprocess.Popen(["sh", HERE / "boot.sh", root, cgroup], stdin=subprocess.DEVNULL)
    init = 0
    try:
        init = _child_of(unshare.pid)
        host = Host(root, init)
        up = "systemctl is-system-running --wait 2>&1 | grep -E 'running|degraded' || true"
        host.wait(lambda: host.sh(up) != "")
        host.sh("update-ca-certificates")
        yield host
    finally:
        if init:
            os.kill(init, signal.SIGKILL)  # PID 1 inside: all end with it
        unshare.kill()
        unshare.wait()
        time.sleep(0.5)
        for inner in sorted(cgroup.rglob("*/"), reverse=True):
            inner.rmdir()
        cgroup.rmdir()
        shutil.rmtree(root)


def _child_of(pid: int) -> int:
    for _ in range(100):
        time.sleep(0.1)
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            init = int(children[0])
            if Path(f"/proc/{init}/comm").read_text().strip() == "systemd":
                return init
    raise AssertionError("it did not boot")


def _cgroups() -> Path | None:
    found = re.search(r"^\S+ (\S+) cgroup2 ", Path("/proc/mounts").read_text(), re.MULTILINE)
    return None if found is None else Path(found[1])
