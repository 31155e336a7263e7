"""Listeners: their sockets are bound before anything else is opened, and closed in two steps."""

import errno
import socket
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from aiohttp import web
from msgspec import Struct

from edgeproxy import systemd
from edgeproxy.config import Settings

__all__ = ["Listener", "Sockets", "renew_certificate", "tls_context"]

#: Connections that the kernel keeps for us while we are busy or being replaced.
_BACKLOG = 4096


class Sockets(Struct):
    """Bound sockets, or those that systemd handed over."""

    clients: list[socket.socket]
    admin: list[socket.socket]
    are_handed_over: bool
    """Somebody else holds the clients' sockets too: connections wait there while we are replaced."""

    @classmethod
    def bind(cls, settings: Settings, environ: Mapping[str, str]) -> "Sockets":
        """Bind what the settings say.

        Nobody can connect before a `Listener` opens: what is refused is tried elsewhere at once.
        Raises OSError when an address cannot be had; then nothing is bound.
        """
        given = [handed.socket for handed in systemd.listen_sockets(environ)]
        server, admin = settings.server, settings.admin
        with ExitStack() as bound:
            for sock in given:
                bound.enter_context(sock)
            clients = given or _bind(bound, "server", server.host, server.port, server.reuse_port)
            sockets = cls(clients, _bind(bound, "admin", admin.host, admin.port), bool(given))
            bound.pop_all()
            return sockets

    def close(self) -> None:
        """Close them; once more is no harm."""
        for sock in self.clients + self.admin:
            sock.close()


def _bind(
    bound: ExitStack, table: str, host: str, port: int, reuse_port: bool = False
) -> list[socket.socket]:
    """Bind every address of a host that this machine has."""
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        addresses = _addresses(host, port)
        for address in addresses:
            try:
                sockets.append(_bind_one(bound, address, reuse_port, alone=len(addresses) == 1))
            except OSError as error:
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    raise
                absent = error  # "localhost" where IPv6 is switched off, for example
        if absent is not None and not sockets:
            raise absent
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror}; see [{table}] host, port"
        ) from None
    return sockets


_Address = tuple[int, int, int, tuple[Any, ...]]


def _addresses(host: str, port: int) -> list[_Address]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def _bind_one(
    bound: ExitStack, address: _Address, reuse_port: bool, *, alone: bool
) -> socket.socket:
    family, kind, protocol, name = address
    sock = bound.enter_context(socket.socket(family, kind, protocol))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6 and not alone:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
    sock.setblocking(False)
    sock.bind(name)
    return sock


class Listener:
    """One server on its sockets."""

    def __init__(
        self,
        runner: web.BaseRunner,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take over a runner; `open` sets it up."""
        self._runner = runner
        self._sockets = sockets
        self._tls = tls

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each socket."""
        return [address[:2] for address in self._runner.addresses]

    async def open(self) -> None:
        """Accept connections. Raises OSError when another socket listens there already."""
        await self._runner.setup()
        for sock in self._sockets:
            await web.SockSite(self._runner, sock, ssl_context=self._tls, backlog=_BACKLOG).start()

    async def stop_accepting(self) -> None:
        """Accept no more connections; those that are open go on."""
        for site in list(self._runner.sites):
            await site.stop()

    async def close(self) -> None:
        """Close idle connections, wait for requests (for the runner's time-out), then close all."""
        await self._runner.cleanup()


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The certificate of `[server] tls_cert`. Raises OSError when it cannot be used."""
    if settings.server.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password an encrypted key would be asked for at the terminal.
        context.load_cert_chain(settings.server.tls_cert, settings.server.tls_key, password="")
    except OSError as error:
        raise OSError(f"[server] tls_cert, tls_key: cannot be used: {error}") from None
    return context


def renew_certificate(context: ssl.SSLContext | None, settings: Settings) -> None:
    """Have connections that come from now on shown the certificate as it is in the files now.

    Raises OSError when it cannot be used; then the old one stays.
    """
    if context is None or tls_context(settings) is None:
        return  # TLS begins and ends with the process
    context.load_cert_chain(str(settings.server.tls_cert), settings.server.tls_key)
