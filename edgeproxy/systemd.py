"""What systemd wants to hear (sd_notify), and the sockets it hands over (sd_listen_fds).

The protocol is a datagram of `KEY=value` lines and two environment variables, stable since 2010
(sd_notify(3), sd_listen_fds(3)). The libraries for it either need libsystemd and a compiler
(systemd-python) or know neither RELOADING with its time stamp nor abstract sockets (sdnotify).
"""

import os
import socket
import time
from collections.abc import Callable, Mapping

import msgspec

__all__ = ["ListenSocket", "Notifier", "listen_sockets", "watchdog_interval"]

_FIRST_FD = 3  # SD_LISTEN_FDS_START


class Notifier:
    """Tells systemd what the process is doing; says nothing where systemd does not listen.

    Every method sends one datagram without waiting. A message that systemd does not take is
    dropped: `send` returns False, and nothing else depends on it (a missed watchdog message is
    followed by the next).
    """

    def __init__(self, address: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        # A leading @ stands for the null byte of Linux's abstract name space.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._clock = clock
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_UNIX, kind)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Notifier":
        """The notifier for this process's NOTIFY_SOCKET."""
        return cls(environ.get("NOTIFY_SOCKET", ""))

    @property
    def is_heard(self) -> bool:
        """Whether systemd listens."""
        return self._socket is not None

    def send(self, *lines: str) -> bool:
        """Send `KEY=value` lines as one message; whether systemd took it."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True

    def ready(self, status: str = "") -> bool:
        """Started, or done with reloading."""
        return self.send("READY=1", *_status(status))

    def reloading(self) -> bool:
        """Begin to apply a changed configuration; `ready` ends it."""
        return self.send("RELOADING=1", f"MONOTONIC_USEC={self._clock() // 1000}")

    def stopping(self, status: str = "") -> bool:
        """Begin to shut down."""
        return self.send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self.send(*_status(text))

    def watchdog(self) -> bool:
        """Still alive; due at least every `watchdog_interval`."""
        return self.send("WATCHDOG=1")

    def close(self) -> None:
        """Let go of the socket; later messages go nowhere."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()


def watchdog_interval(environ: Mapping[str, str], pid: int | None = None) -> float | None:
    """Seconds between two `watchdog` messages: half of what systemd allows. None: not watched."""
    allowed = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or int(allowed) == 0:
        return None
    if meant_for and meant_for != str(os.getpid() if pid is None else pid):
        return None
    return int(allowed) / 2_000_000


class ListenSocket(msgspec.Struct, frozen=True):
    """A listening socket that systemd handed over."""

    name: str
    """FileDescriptorName= of the socket unit; the unit's name by default."""
    socket: socket.socket


def listen_sockets(
    environ: Mapping[str, str], pid: int | None = None, first: int = _FIRST_FD
) -> tuple[ListenSocket, ...]:
    """The sockets of socket activation, or none. Call it once: the caller owns them then.

    They are not inherited by child processes and do not block.
    Raises OSError when systemd handed over something that is not a socket.
    """
    number = environ.get("LISTEN_FDS", "")
    own = str(os.getpid() if pid is None else pid)
    if environ.get("LISTEN_PID") != own or not number.isdecimal():
        return ()
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for offset in range(int(number)):
        os.set_inheritable(first + offset, False)
        opened = socket.socket(fileno=first + offset)
        opened.setblocking(False)
        name = names[offset] if offset < len(names) else ""
        found.append(ListenSocket(name or "unknown", opened))
    return tuple(found)
