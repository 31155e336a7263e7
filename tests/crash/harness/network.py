"""A network of three namespaces, so that packets can be lost between the proxy and its server.

The proxy stays where the tests run; behind a router that forwards, or drops without a word, lies
the server. Needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN (a container seldom has them).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.crash.harness.machine import NotPermittedError

__all__ = ["Network", "open_network"]

_CLONE_NEWNET = 0x40000000


class Network:
    """`proxy -- router -- server`, each with an address of RFC 2544's range for such tests."""

    def __init__(self) -> None:
        """Choose names and addresses that no other test has; `make` makes them."""
        number = secrets.randbelow(2**14)  # of a block of eight addresses in 198.18.0.0/15
        base = (198 << 24) + (18 << 16) + (number << 3)
        self._near, self._gate, self._far_gate, self.server = (
            socket.inet_ntoa((base + host).to_bytes(4, "big")) for host in (1, 2, 5, 6)
        )
        self._far_net = f"{socket.inet_ntoa((base + 4).to_bytes(4, 'big'))}/30"
        self._router, self._host = f"crash-r-{number}", f"crash-s-{number}"
        self._here, self._there = f"crh{number}", f"crs{number}"  # at most 15 characters

    def make(self) -> None:
        """Make it. Raises NotPermittedError where that is not permitted; call `remove` all the same."""
        router, host = ("-n", self._router), ("-n", self._host)
        _ip("netns", "add", self._router)
        _ip("netns", "add", self._host)
        _ip("link", "add", self._here, "type", "veth", "peer", "near", "netns", self._router)
        _ip(*host, "link", "add", self._there, "type", "veth", "peer", "far", "netns", self._router)
        _ip("addr", "add", f"{self._near}/30", "dev", self._here)
        _ip(*router, "addr", "add", f"{self._gate}/30", "dev", "near")
        _ip(*router, "addr", "add", f"{self._far_gate}/30", "dev", "far")
        _ip(*host, "addr", "add", f"{self.server}/30", "dev", self._there)
        for place, device in ((router, "near"), (router, "far"), (host, self._there)):
            _ip(*place, "link", "set", device, "up")
        _ip("link", "set", self._here, "up")
        _ip("route", "add", self._far_net, "via", self._gate)
        _ip(*host, "route", "add", "default", "via", self._far_gate)
        self._inside(self._router, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))

    def remove(self) -> None:
        """Remove what there is of it; the devices go with their namespaces."""
        for name in (self._router, self._host):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._here], check=False, capture_output=True)

    def cut(self) -> None:
        """Drop every packet from now on, both ways and silently."""
        for address in (self.server, self._near):
            _ip("-n", self._router, "route", "add", "blackhole", f"{address}/32")

    def mend(self) -> None:
        """Forward them again."""
        for address in (self.server, self._near):
            _ip("-n", self._router, "route", "del", "blackhole", f"{address}/32")

    def listener(self) -> socket.socket:
        """A listening socket at the server: it belongs to the namespace in which it was made."""
        made: list[socket.socket] = []
        self._inside(
            self._host,
            lambda: made.append(socket.create_server((self.server, 0), backlog=256)),
        )
        return made[0]

    @staticmethod
    def _inside(name: str, work: Callable[[], object]) -> None:
        """Do something in a namespace, in a thread that ends there."""
        failures: list[OSError] = []

        def enter() -> None:
            try:
                _set_namespace(name)
                work()
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=enter, name=f"in {name}")
        thread.start()
        thread.join()
        if failures:
            raise NotPermittedError(f"cannot work in a network namespace: {failures[0]}")


def _set_namespace(name: str) -> None:
    """Move the calling thread (os.setns comes with Python 3.12)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{name}").open() as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise NotPermittedError("needs iproute2") from None
    if done.returncode:
        raise NotPermittedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def open_network() -> Iterator[Network]:
    """Make a network; afterwards nothing of it is left."""
    if os.geteuid() != 0:
        raise NotPermittedError("network namespaces need root")
    network = Network()
    try:
        network.make()
        yield network
    finally:
        network.remove()
