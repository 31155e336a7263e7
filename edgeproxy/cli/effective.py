"""What is in effect, and where each value came from, with secrets masked."""

from collections.abc import Iterator
from typing import Any

import msgspec

from edgeproxy.config import Loaded, Source
from edgeproxy.config.kind import Kind
from edgeproxy.config.kinds import keys, secret
from edgeproxy.config.settings import TABLES, SourceTable, kinds_of

__all__ = ["Line", "effective", "mask"]


class Line(msgspec.Struct, frozen=True):
    """One value in effect."""

    table: str
    """`[flush]`, `[[sources]] web`."""
    key: str
    value: str
    """As it would be written in the file; of a secret at most four characters."""
    origin: str
    """"default", "[hightouch]", a file or an environment variable."""


def mask(value: str) -> str:
    """Enough of a secret to recognise it: four characters, and never more than a third of it."""
    return f"{value[:4]}…" if len(value) >= 12 else "…" if value else ""


def effective(loaded: Loaded) -> tuple[Line, ...]:
    """Every setting in the order of the documentation, then what was resolved for the sources."""
    return (*_tables(loaded), *_sources(loaded), *_mapping(loaded))


def _tables(loaded: Loaded) -> Iterator[Line]:
    for name, struct in TABLES:
        table = getattr(loaded.settings, name)
        for key, kind in kinds_of(struct).items():
            origin = loaded.origins[f"{name}.{key}"]
            yield Line(f"[{name}]", key, _written(kind, getattr(table, key)), origin)


def _sources(loaded: Loaded) -> Iterator[Line]:
    kinds = kinds_of(SourceTable) | {"write_key": keys(), "hightouch_write_key": secret()}
    inherited = {"hightouch_write_key", "region", "endpoint"}
    if "sources.1.name" not in loaded.origins:  # the one source that needs no table
        inherited.add("write_key")
    for number, source in enumerate(loaded.settings.sources, 1):
        for key, kind in kinds.items():
            origin = loaded.origins.get(f"sources.{number}.{key}", "default")
            if origin == "default" and key in inherited:
                origin = "[hightouch]"
            value = _written(kind, _value_of(source, key))
            yield Line(f"[[sources]] {source.name}", key, value, origin)


def _value_of(source: Source, key: str) -> object:
    return source.write_keys if key == "write_key" else getattr(source, key)


def _mapping(loaded: Loaded) -> Iterator[Line]:
    """Counts only: rules may hold what is secret."""
    settings = loaded.settings
    origin = str(settings.path or "default")
    yield Line("[mapping]", "keys", str(len(settings.mapping)), origin)
    yield Line("[[filters]]", "number", str(len(settings.filters)), origin)
    yield Line("[[tests]]", "number", str(len(settings.tests)), origin)


def _written(kind: Kind, value: Any) -> str:
    if not kind.secret:
        return kind.write(value)
    return kind.write(tuple(map(mask, value)) if isinstance(value, tuple) else mask(value))
