"""Addresses for the demo's parts: the usual port, or a free one when somebody has it."""

from __future__ import annotations

import socket

__all__ = ["HOST", "Ports"]

HOST = "127.0.0.1"


class Ports:
    """Hands out sockets that are bound already, so that nobody takes a port in between."""

    def __init__(self) -> None:
        self.moved: list[str] = []
        """A sentence for each port that was taken."""

    def bind(self, what: str, wanted: int) -> socket.socket:
        """A listening socket for `what` on the wanted port, else on any free one."""
        try:
            return _bound(wanted)
        except OSError:
            found = _bound(0)
            number = found.getsockname()[1]
            self.moved.append(f"Port {wanted} is taken: the {what} is on {number} instead.")
            return found

    def free(self, what: str, wanted: int) -> int:
        """A port number for what opens its listener itself."""
        with self.bind(what, wanted) as probe:
            number: int = probe.getsockname()[1]
            return number


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made
