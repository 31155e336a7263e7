"""The whole program: opens everything, owns every lifetime, ends when told to or when a part dies."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiohttp import web
from prometheus_client.core import Metric

from edgeproxy import __version__, assets, logs, systemd
from edgeproxy.admin.app import AdminApp
from edgeproxy.admin.deadletters import Desk
from edgeproxy.admin.live import LiveFeed
from edgeproxy.admin.page import Page
from edgeproxy.buffer.neighbours import stranded
from edgeproxy.buffer.sqlite import SqliteBuffer
from edgeproxy.config import ConfigError, Settings, Validation
from edgeproxy.delivery.flusher import Flusher
from edgeproxy.delivery.upstream import Upstream
from edgeproxy.listening import Listener, Sockets, renew_certificate, tls_context
from edgeproxy.mapping import Mapper, compile_settings
from edgeproxy.metrics import Metrics, gauge, lane_states, mapping_families
from edgeproxy.operating import operators_page
from edgeproxy.reloading import needs_restart
from edgeproxy.server.app import ClientApp
from edgeproxy.server.intake import Intake
from edgeproxy.server.protocol import ProxyServer
from edgeproxy.server.script import ScriptService
from edgeproxy.telling import state_line, tell_systemd

__all__ = ["Service", "run"]

_log = structlog.get_logger("edgeproxy")

#: Seconds that requests under way have to finish when the process stops.
_REQUEST_SECONDS = 5.0
#: Seconds for handlers to end after that; aiohttp may take it twice, the second time to cancel them.
_CLOSE_SECONDS = 0.5
#: The same, and for batches under way, where another process takes over the socket: its clients
#: wait for all of this.
_HANDOVER_SECONDS = 0.5


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
        tls: ssl.SSLContext | None,
    ) -> None:
        """Put the parts together; nothing listens yet."""
        self.settings = settings
        self._tls = tls
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
            ready=self.not_ready,
            script=_script(),
            now=now_ms,
        )
        self.flusher = Flusher(
            buffer, upstream, metrics, now=now_ms, revision=lambda: self.mapper.revision
        )
        self.flusher.configure(settings)
        self.notifier = systemd.Notifier("")
        self.is_stopping = False
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

    def not_ready(self) -> str | None:
        """Why events cannot be accepted now; None while they can."""
        return "stopping" if self.is_stopping else self.buffer.full_reason()

    def state_line(self) -> str:
        """The proxy in one line."""
        return state_line(self.not_ready(), self.buffer.stats().events, self.flusher.status())

    def rules(self) -> tuple[Mapper, Validation]:
        """What dead letters are judged by when they are submitted again."""
        return self.mapper, self.settings.validation

    def _at_scrape(self) -> Iterator[Metric]:
        stats = self.buffer.stats()
        age = _age(stats.oldest) or 0.0
        yield gauge("buffer_events", "Events not yet delivered.", stats.events)
        yield gauge("buffer_bytes", "What the buffer's files hold.", stats.bytes)
        yield gauge("buffer_oldest_age_seconds", "Age of the oldest event in the buffer.", age)
        yield gauge("dead_letters", "Events kept for a person.", stats.dead_letters)
        limit = self._started_with.buffer.max_size
        yield gauge("buffer_max_bytes", "What they may hold: buffer.max_size.", limit)
        yield gauge("ready", "1 while events are accepted.", int(self.not_ready() is None))
        yield lane_states({lane.name: lane.state for lane in self.flusher.status()})
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
            renew_certificate(self._tls, settings)
        except ConfigError as error:
            return _refused([str(mistake) for mistake in error.mistakes])
        except OSError as error:
            return _refused([str(error)])
        restart = needs_restart(self._started_with, settings)
        before, self.settings, self.mapper = self.settings, settings, mapper
        self.intake.configure(
            mapper, settings.validation, keep_received=settings.dead_letters.keep == "received"
        )
        self.clients.configure(settings)
        self.flusher.configure(settings)
        self.buffer.limit_dead(settings.dead_letters.max_age, settings.dead_letters.max_size)
        if settings.log != before.log:
            logs.setup(settings.log)
        _log.info("reloaded", mapping_revision=mapper.revision, needs_restart=restart)
        return {
            "applied": True,
            "path": None if settings.path is None else str(settings.path),
            "mapping_revision": mapper.revision,
            "needs_restart": restart,
        }


def _refused(mistakes: list[str]) -> dict[str, object]:
    _log.error("reload_refused", mistakes=mistakes)
    return {"applied": False, "mistakes": mistakes}


@asynccontextmanager
async def start(
    settings: Settings, read_settings: Callable[[], Settings]
) -> AsyncIterator[tuple[Service, Callable[[], Awaitable[None]]]]:
    """Open everything and serve while the block runs; then stop, flush and close.

    Gives the service, and a function that stops accepting. Raises BufferFaultError or OSError when
    the buffer or an address cannot be had. The admin listener answers until everything is flushed.
    """
    metrics = Metrics()
    async with AsyncExitStack() as opened:
        tls = tls_context(settings)
        sockets = Sockets.bind(settings, os.environ)
        opened.callback(sockets.close)
        buffer = await SqliteBuffer.open(
            settings.buffer.path,
            max_size=settings.buffer.max_size,
            durable=settings.buffer.durability == "fsync",
            on_commit=metrics.commit_seconds.observe,
            on_expired=metrics.expired,
        )
        opened.push_async_callback(buffer.close)
        buffer.limit_dead(settings.dead_letters.max_age, settings.dead_letters.max_size)
        upstream = Upstream(
            timeout=settings.flush.timeout,
            compression=settings.flush.compression,
            user_agent=f"edgeproxy/{__version__}",
        )
        opened.push_async_callback(upstream.close)
        service = Service(settings, read_settings, metrics, buffer, upstream, tls)
        server = ProxyServer(service.clients.handle, begin=service.clients.begin)
        patience = _HANDOVER_SECONDS if sockets.are_handed_over else _REQUEST_SECONDS
        clients = Listener(
            web.ServerRunner(server, shutdown_timeout=_CLOSE_SECONDS), sockets.clients, tls
        )
        page = operators_page(service, now_ms)
        admin = Listener(_admin_runner(service, page), sockets.admin)

        async def stop_accepting() -> None:
            service.is_stopping = True
            await clients.stop_accepting()

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(buffer.watch(), name="buffer"),
                group.create_task(service.flusher.run(), name="flusher"),
                group.create_task(server.sweep(), name="sweep"),
                group.create_task(page.history.run(), name="history"),
            ]
            try:
                await admin.open()
                await clients.open()
                service.client_addresses, service.admin_addresses = (
                    clients.addresses,
                    admin.addresses,
                )
                yield service, stop_accepting
            finally:
                await stop_accepting()
                await server.let_finish(patience)
                await clients.close()
                await _flush(service, hands_over=sockets.are_handed_over)
                await admin.close()
                for task in tasks:
                    task.cancel()


async def run(settings: Settings, read_settings: Callable[[], Settings]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads. An error in any task ends the process."""
    notifier = systemd.Notifier.from_environ(os.environ)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    hangup = asyncio.Event()  # heard before systemd is told that it may send one
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    async with asyncio.TaskGroup() as group:
        watchdog = group.create_task(_feed_watchdog(notifier), name="watchdog")
        async with start(settings, read_settings) as (service, stop_accepting):
            service.notifier = notifier
            reloads = group.create_task(_reload_on_hangup(hangup, service), name="reloads")
            told = service.state_line()
            notifier.ready(told)
            _log.info(
                "serving",
                clients=service.client_addresses,
                admin=service.admin_addresses,
                buffer=str(settings.buffer.path.absolute()),
                version=__version__,
                sources=[source.name for source in settings.sources],
            )
            group.create_task(_look_for_stranded(settings), name="stranded")
            telling = group.create_task(
                tell_systemd(notifier, service.state_line, told=told), name="telling"
            )
            await stop.wait()
            telling.cancel()
            notifier.stopping("sending what is left")
            _log.info("stopping")
            await stop_accepting()
            reloads.cancel()
        watchdog.cancel()
    _log.info("stopped")
    notifier.close()


async def _flush(service: Service, *, hands_over: bool) -> None:
    """Send what can be sent in `flush.drain_timeout`; the end of it is for what is under way.

    Where the next process waits for the buffer there is no drain.
    """
    seconds = service.settings.flush.drain_timeout
    if hands_over:
        draining, finishing = 0.0, min(seconds, _HANDOVER_SECONDS)
    else:
        draining, finishing = seconds * 0.8, seconds * 0.2
    try:
        if draining:
            async with asyncio.timeout(draining):
                await service.flusher.drain()
    except TimeoutError:
        _log.info("drain_timeout", seconds=seconds)
    try:
        async with asyncio.timeout(finishing):
            await service.flusher.finish()
    except TimeoutError:
        _log.info("batches_cut_off", lanes=[lane.name for lane in service.flusher.busy()])
    left = service.buffer.stats().events
    if left:
        _log.info("left_on_disk", events=left)


async def _look_for_stranded(settings: Settings) -> None:
    for found in await asyncio.to_thread(stranded, settings.buffer.path):
        _log.warning(
            "events_stranded",
            folder=str(found.folder),
            events=found.events,
            remedy="no process delivers them: run edgeproxy on that folder (without --instance, or "
            "with its number) until they are sent",
        )


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


def _admin_runner(service: Service, page: Page) -> web.AppRunner:
    admin_app = AdminApp(
        service.settings.admin,
        service.metrics,
        status=service.status,
        not_ready=service.not_ready,
        reload=service.reload,
        live=LiveFeed(
            service.intake.watch,
            now=now_ms,
            watch_attempts=service.flusher.watch,
            journeys=page.journeys,
        ),
        desk=Desk(service.buffer, service.rules, service.metrics, now=now_ms),
        page=page,
    )
    return web.AppRunner(admin_app.application(), access_log=None, shutdown_timeout=_CLOSE_SECONDS)


def _script() -> ScriptService | None:
    try:
        return ScriptService(assets.browser_sdk())
    except assets.AssetsMissingError as error:
        _log.warning("browser_sdk_missing", reason=str(error))
        return None


def _age(oldest: int | None) -> float | None:
    return None if oldest is None else max(now_ms() - oldest, 0) / 1000
