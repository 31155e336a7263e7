"""From a file and the environment to settings that can be trusted."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from edgeproxy.config.certificates import judge_certificates
from edgeproxy.config.judging import Judge, fit_to_serve, judge_together
from edgeproxy.config.mistakes import ConfigError
from edgeproxy.config.reading import Reader
from edgeproxy.config.settings import (
    Admin,
    Buffer,
    DeadLetters,
    Flush,
    Hightouch,
    Log,
    Retry,
    Server,
    Settings,
    Validation,
)
from edgeproxy.config.sources import resolve_sources

__all__ = [
    "Loaded",
    "admin_of_instance",
    "buffer_of_instance",
    "default_path",
    "for_instance",
    "load",
    "load_explained",
    "load_table",
]

T = TypeVar("T", bound=msgspec.Struct)

_SYSTEM_PATH = Path("/etc/edgeproxy/config.toml")


class Loaded(msgspec.Struct, frozen=True):
    """Settings and where each of them came from."""

    settings: Settings
    origins: dict[str, str]
    """`flush.interval`, `sources.2.write_key` → "default", a file, or an environment variable."""


def default_path() -> Path | None:
    """`./config.toml`, else `/etc/edgeproxy/config.toml`, else none.

    One that may not be looked for is taken to be there: reading it says what is wrong, while
    another one, or none, might do something else than the operator wants.
    """
    return next((path for path in (Path("config.toml"), _SYSTEM_PATH) if _may_be_file(path)), None)


def _may_be_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return True


def load(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    judges: Iterable[Judge] = (fit_to_serve,),
) -> Settings:
    """Read, resolve and judge the settings.

    `judges` are asked once everything is read; this is where the mapping package says what is
    wrong with its tables, and where commands that do not serve leave out `fit_to_serve`.
    Raises ConfigError with every mistake found.
    """
    return load_explained(path, environ, judges=judges).settings


def load_explained(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    judges: Iterable[Judge] = (fit_to_serve,),
) -> Loaded:
    """As `load`, and say where each value came from."""
    reader = Reader(path, environ)
    settings = _read(reader, path)
    judge_together(settings, reader)
    mistakes = reader.mistakes
    for judge in judges:
        mistakes.extend(judge(settings))
    if mistakes:
        raise ConfigError(mistakes)
    return Loaded(settings, reader.origins)


def load_table(path: Path | None, environ: Mapping[str, str], name: str, struct: type[T]) -> T:
    """One plain table, whatever is wrong in others: for commands that must work even then.

    Raises ConfigError with the mistakes of that table, or when the file cannot be read at all.
    """
    reader = Reader(path, environ)
    table = reader.table(name, struct)
    mistakes = [m for m in (*reader.mistakes, *reader.unreadable) if m.table == f"[{name}]"]
    if mistakes:
        raise ConfigError(mistakes)
    return table


def _read(reader: Reader, path: Path | None) -> Settings:
    hightouch = reader.table("hightouch", Hightouch)
    server = reader.table("server", Server)
    judge_certificates(reader, hightouch, server)
    return Settings(
        hightouch=hightouch,
        sources=resolve_sources(reader, hightouch),
        server=server,
        admin=reader.table("admin", Admin),
        validation=reader.table("validation", Validation),
        buffer=reader.table("buffer", Buffer),
        flush=reader.table("flush", Flush),
        retry=reader.table("retry", Retry),
        dead_letters=reader.table("dead_letters", DeadLetters),
        log=reader.table("log", Log),
        mapping=reader.mapping(),
        filters=reader.rows("filters"),
        tests=reader.rows("tests"),
        path=path,
        folder=reader.folder,
        unreadable=tuple(reader.unreadable),
        credentials=reader.credentials,
    )


def for_instance(settings: Settings, instance: int) -> Settings:
    """One of several on a host: a buffer folder of its own, a shared port, an admin port of its own.

    Instance 1 has the admin port of the settings, 2 the next one (8081, 8082, … by default).
    """
    replace = msgspec.structs.replace
    return replace(
        settings,
        buffer=buffer_of_instance(settings.buffer, instance),
        server=replace(settings.server, reuse_port=True),
        admin=admin_of_instance(settings.admin, instance),
    )


def admin_of_instance(admin: Admin, instance: int) -> Admin:
    """The admin listener of one of several on a host."""
    return msgspec.structs.replace(admin, port=admin.port + instance - 1)


def buffer_of_instance(buffer: Buffer, instance: int) -> Buffer:
    """The buffer of one of several on a host."""
    return msgspec.structs.replace(buffer, path=buffer.path / str(instance))
