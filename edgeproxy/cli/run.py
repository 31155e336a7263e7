"""`edgeproxy run`: serve until told to stop."""

import asyncio
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from edgeproxy import logs
from edgeproxy.cli.options import config_option, instance_option, refuse, settings_loader
from edgeproxy.config import ConfigError

__all__ = ["run"]


@click.command()
@config_option
@instance_option
def run(config_path: Path | None, instance: int | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Then stop accepting, finish what is in flight, flush for at most flush.drain_timeout and
    exit 0. What is not sent by then is on disk and is sent after the next start.
    """
    read = settings_loader(config_path, instance)
    try:
        settings = read()
    except ConfigError as error:
        refuse(error)
    # Not needed to refuse a configuration, nor for the help.
    from edgeproxy import service  # noqa: PLC0415
    from edgeproxy.buffer.base import BufferFaultError  # noqa: PLC0415

    logs.setup(settings.log)
    _collect_garbage_rarely()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(service.run(settings, read))
    except Exception as error:
        log = structlog.get_logger("edgeproxy")
        cause = _only(error)
        if isinstance(cause, OSError | BufferFaultError):
            # An address or a buffer in use, a disk that is full: the words say enough.
            log.critical("failed", reason=str(cause))
        else:
            log.critical("failed", exc_info=error)
        sys.exit(1)


def _only(error: Exception) -> Exception:
    """What a task group wrapped, if that is one error."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _collect_garbage_rarely() -> None:
    """Look for reference cycles less often: a request makes hardly any, and looking is a tenth of
    the time that one takes. What is there at the start lives as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop, and asyncio's own where uvloop is not installed (PyPy)."""
    try:
        import uvloop  # noqa: PLC0415 (optional)
    except ImportError:
        return None
    return uvloop.new_event_loop
