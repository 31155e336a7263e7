"""Logging: structlog for the project's own lines, the standard library's for everybody else's.

Both end in one handler on standard error, with the same fields and form. No line carries a write
key, a token or an event's body; the fields that could are masked here as a second line of defence,
and tracebacks are written without the values of variables.
"""

import logging
import sys
from collections.abc import Iterable
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from edgeproxy.config import Log

__all__ = ["setup"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MASKED = frozenset(
    {"authorization", "body", "hightouch_write_key", "token", "write_key", "write_keys", "writeKey"}
)


def setup(settings: Log, stream: TextIO | None = None) -> None:
    """Write log lines to `stream` (standard error by default) as the settings say.

    May be called again, after a reload: loggers that exist already follow.
    """
    stream = stream or sys.stderr
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(as_json=as_json, colours=stream.isatty()),
            ],
            foreign_pre_chain=_common(),
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    level = _LEVELS[settings.level]
    root.setLevel(level)
    # One line for each connection that a client breaks off is no news for an operator.
    logging.getLogger("asyncio").setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _common() -> tuple[Processor, ...]:
    return (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _mask,
    )


def _rendering(*, as_json: bool, colours: bool) -> Iterable[Processor]:
    if as_json:
        yield structlog.processors.format_exc_info
        yield structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    else:
        yield structlog.dev.ConsoleRenderer(
            colors=colours, exception_formatter=structlog.dev.plain_traceback
        )


def _mask(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    for key in _MASKED.intersection(fields):
        fields[key] = "…"
    return fields
