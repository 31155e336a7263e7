"""The whole program: opens everything, owns every lifetime, ends when told to or when a part dies."""

import asyncio
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from prometheus_client.core import Metric

from edgeproxy import __version__, assets, logs, systemd
from edgeproxy.admin.app import AdminApp
from edgeproxy.admin.live import LiveFeed
from edgeproxy.buffer.sqlite import SqliteBuffer
from edgeproxy.config import ConfigError, Settings
from edgeproxy.delivery.flusher import Flusher
from edgeproxy.delivery.upstream import Upstream
from edgeproxy.mapping import compile_settings
from edgeproxy.metrics import Metrics, gauge, mapping_families
from edgeproxy.reloading import needs_restart
from edgeproxy.server.app import ClientApp
from edgeproxy.server.intake import Intake
from edgeproxy.server.protocol import ProxyServer
from edgeproxy.server.script import ScriptService

__all__ = ["Service", "run"]

_log = structlog.get_logger("edgeproxy")

#: Connections that the kernel keeps for us while we are busy or being replaced.
_BACKLOG = 4096


def now_ms() -> int:
    """The time of day in ms since 1970."""
    return time.time_ns() // 1_000_000


class Service:
    """A running proxy. Made by `start`, which owns its parts."""

    def __init__(
        self,
        settings: Settings,
        read_settings: Callable[[], Settings],
        metrics: Metrics,
        buffer: SqliteBuffer,
        upstream: Upstream,
    ) -> None:
        """Put the parts together; nothing listens yet."""
        self.settings = settings
        self._read_settings = read_settings
        self.metrics = metrics
        self.buffer = buffer
        self.mapper = compile_settings(settings)
        self.intake = Intake(
            buffer,
            self.mapper,
            settings.validation,
            metrics,
            keep_received=settings.dead_letters.keep == "received",
        )
        self.clients = ClientApp(
            settings,
            self.intake,
            metrics,
            ready=buffer.full_reason,
            script=_script(),
            now=now_ms,
        )
        self.flusher = Flusher(
            buffer, upstream, metrics, now=now_ms, revision=lambda: self.mapper.revision
        )
        self.flusher.configure(settings)
        self.notifier = systemd.Notifier("")
        self._reloading = asyncio.Lock()
        self._started_with = settings
        self.client_addresses: list[tuple[str, int]] = []
        self.admin_addresses: list[tuple[str, int]] = []
        metrics.at_scrape(self._at_scrape)

    # --- what operators see -----------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """The document of `/status`."""
        stats = self.buffer.stats()
        return {
            "version": __version__,
            "mapping_revision": self.mapper.revision,
            "buffer": {
                "events": stats.events,
                "bytes": stats.bytes,
                "oldest_age_seconds": _age(stats.oldest),
                "max_bytes": self._started_with.buffer.max_size,
            },
            "lanes": self.flusher.status(),
            "dead_letters": {"count": stats.dead_letters, "bytes": stats.dead_letter_bytes},
            "totals": self.metrics.totals(),
        }

    def _at_scrape(self) -> Iterator[Metric]:
        stats = self.buffer.stats()
        age = _age(stats.oldest) or 0.0
        yield gauge("buffer_events", "Events not yet delivered.", stats.events)
        yield gauge("buffer_bytes", "What the buffer's files hold.", stats.bytes)
        yield gauge("buffer_oldest_age_seconds", "Age of the oldest event in the buffer.", age)
        yield gauge("dead_letters", "Events kept for a person.", stats.dead_letters)
        counters = self.mapper.counters
        counts = {what: getattr(counters, what) for what in counters.__struct_fields__}
        yield from mapping_families(self.mapper.revision, counts)

    # --- changing settings ------------------------------------------------------------------------

    async def reload(self) -> dict[str, object]:
        """Apply the configuration as it is now, or refuse it whole and go on with the old one.

        One at a time; systemd hears when it begins and when it is done.
        """
        async with self._reloading:
            self.notifier.reloading()
            try:
                return await self._reload()
            finally:
                self.notifier.ready()

    async def _reload(self) -> dict[str, object]:
        try:
            settings = await asyncio.to_thread(self._read_settings)
            mapper = await asyncio.to_thread(compile_settings, settings)
        except ConfigError as error:
            mistakes = [str(mistake) for mistake in error.mistakes]
            _log.error("reload_refused", mistakes=mistakes)
            return {"applied": False, "mistakes": mistakes}
        restart = needs_restart(self._started_with, settings)
        before, self.settings, self.mapper = self.settings, settings, mapper
        self.intake.configure(
            mapper, settings.validation, keep_received=settings.dead_letters.keep == "received"
        )
        self.clients.configure(settings)
        self.flusher.configure(settings)
        if settings.log != before.log:
            logs.setup(settings.log)
        _log.info("reloaded", mapping_revision=mapper.revision, needs_restart=restart)
        return {
            "applied": True,
            "path": None if settings.path is None else str(settings.path),
            "mapping_revision": mapper.revision,
            "needs_restart": restart,
        }


@asynccontextmanager
async def start(
    settings: Settings, read_settings: Callable[[], Settings]
) -> AsyncIterator[tuple[Service, Callable[[], None]]]:
    """Open everything and serve while the block runs; then stop, flush and close.

    Gives the service, and a function that stops accepting. Raises BufferFaultError or OSError when
    the buffer or an address cannot be had.
    """
    metrics = Metrics()
    buffer = await SqliteBuffer.open(
        settings.buffer.path,
        max_size=settings.buffer.max_size,
        durable=settings.buffer.durability == "fsync",
        on_commit=metrics.commit_seconds.observe,
    )
    upstream = Upstream(
        timeout=settings.flush.timeout,
        compression=settings.flush.compression,
        user_agent=f"edgeproxy/{__version__}",
    )
    try:
        service = Service(settings, read_settings, metrics, buffer, upstream)
        async with asyncio.TaskGroup() as group:
            flushing = group.create_task(service.flusher.run(), name="flusher")
            listeners = await _listen(service, group)
            try:
                yield service, listeners.stop_accepting
            finally:
                await listeners.close()
                await _flush(service)
                flushing.cancel()
    finally:
        await upstream.close()
        await buffer.close()


async def run(settings: Settings, read_settings: Callable[[], Settings]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads. An error in any task ends the process."""
    notifier = systemd.Notifier.from_environ(os.environ)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    hangup = asyncio.Event()  # heard before systemd is told that it may send one
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    async with start(settings, read_settings) as (service, stop_accepting):
        service.notifier = notifier
        async with asyncio.TaskGroup() as group:
            reloads = group.create_task(_reload_on_hangup(hangup, service), name="reloads")
            watchdog = group.create_task(_feed_watchdog(notifier), name="watchdog")
            notifier.ready()
            _log.info(
                "serving",
                clients=service.client_addresses,
                admin=service.admin_addresses,
                version=__version__,
                sources=[source.name for source in settings.sources],
            )
            await stop.wait()
            notifier.stopping()
            _log.info("stopping")
            stop_accepting()
            reloads.cancel()
            watchdog.cancel()
    _log.info("stopped")
    notifier.close()


async def _flush(service: Service) -> None:
    try:
        async with asyncio.timeout(service.settings.flush.drain_timeout):
            await service.flusher.drain()
    except TimeoutError:
        _log.info("drain_timeout", left=service.buffer.stats().events)


async def _reload_on_hangup(hangup: asyncio.Event, service: Service) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        await service.reload()


async def _feed_watchdog(notifier: systemd.Notifier) -> None:
    interval = systemd.watchdog_interval(os.environ)
    while interval is not None:
        notifier.watchdog()
        await asyncio.sleep(interval)


# --- listening --------------------------------------------------------------------------------------


class _Listeners:
    def __init__(self, runners: list[web.BaseRunner], sweeping: asyncio.Task[None]) -> None:
        self._runners = runners
        self._sweeping = sweeping

    def stop_accepting(self) -> None:
        for runner in self._runners:
            for site in runner.sites:
                server = getattr(site, "_server", None)
                if server is not None:
                    server.close()

    async def close(self) -> None:
        self._sweeping.cancel()
        for runner in self._runners:
            await runner.cleanup()


async def _listen(service: Service, group: asyncio.TaskGroup) -> _Listeners:
    settings = service.settings
    server = ProxyServer(service.clients.handle)
    clients = web.ServerRunner(server, shutdown_timeout=10.0)
    await clients.setup()
    tls = _tls(settings)
    listening = _client_sockets(settings)
    for sock in listening:
        await web.SockSite(clients, sock, ssl_context=tls, backlog=_BACKLOG).start()
    admin_app = AdminApp(
        settings.admin,
        service.metrics,
        status=service.status,
        not_ready=service.buffer.full_reason,
        reload=service.reload,
        live=LiveFeed(service.intake.watch, now=now_ms),
    )
    admin = web.AppRunner(admin_app.application(), access_log=None, shutdown_timeout=2.0)
    await admin.setup()
    await web.TCPSite(admin, settings.admin.host, settings.admin.port).start()
    service.client_addresses = [address[:2] for address in clients.addresses]
    service.admin_addresses = [address[:2] for address in admin.addresses]
    sweeping = group.create_task(server.sweep(), name="sweep")
    return _Listeners([clients, admin], sweeping)


def _client_sockets(settings: Settings) -> list[socket.socket]:
    """The sockets that systemd handed over, or one of our own."""
    given = [given.socket for given in systemd.listen_sockets(os.environ)]
    if given:
        return given
    server = settings.server
    family, kind, protocol, _, address = socket.getaddrinfo(
        server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if server.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise OSError(
            f"cannot listen on {server.host}:{server.port}: {error.strerror}; see [server] host, port"
        ) from None
    return [sock]


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.server.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.server.tls_cert, settings.server.tls_key)
    return context


def _script() -> ScriptService | None:
    try:
        return ScriptService(assets.browser_sdk())
    except assets.AssetsMissingError as error:
        _log.warning("browser_sdk_missing", reason=str(error))
        return None


def _age(oldest: int | None) -> float | None:
    return None if oldest is None else max(now_ms() - oldest, 0) / 1000
