"""Resolves `[[sources]]` against `[hightouch]`."""

from collections.abc import Iterator

import msgspec

from edgeproxy.config.reading import Reader
from edgeproxy.config.settings import Hightouch, Source, SourceTable

__all__ = ["resolve_sources"]


class _Row(msgspec.Struct, frozen=True):
    label: str
    name: str
    """What the reader calls it: `sources.2`."""
    table: SourceTable


def resolve_sources(reader: Reader, hightouch: Hightouch) -> tuple[Source, ...]:
    """The sources of `[[sources]]`, or else one called `default` with Hightouch's own key.

    Without Hightouch's key that one has none: whether that is a mistake depends on the command.
    """
    rows = list(_rows(reader))
    if not rows:
        keys = (hightouch.write_key,) if hightouch.write_key else ()
        return (_source(SourceTable(name="default", write_key=keys), hightouch),)
    _judge_names(reader, rows)
    _judge_keys(reader, rows)
    _judge_missing(reader, rows, hightouch)
    return tuple(_source(row.table, hightouch) for row in rows)


def _rows(reader: Reader) -> Iterator[_Row]:
    for number, given in enumerate(reader.rows("sources"), 1):
        called = given.get("name")
        title = f" ({called})" if isinstance(called, str) and called else ""
        label = f"[[sources]] {number}{title}"
        name = f"sources.{number}"
        yield _Row(label, name, reader.values(label, name, given, SourceTable))


def _judge_names(reader: Reader, rows: list[_Row]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        name = row.table.name
        if (row.name, "name") in reader.failed:
            continue
        if not name:
            reader.note(row.label, "name", "is missing", 'give the source a name: name = "web"')
        elif name in seen:
            reader.note(row.label, "name", f'"{name}" is {seen[name]} too', "names must differ")
        else:
            seen[name] = row.label


def _judge_keys(reader: Reader, rows: list[_Row]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        for key in row.table.write_key:
            if key in seen:
                reader.note(
                    row.label,
                    "write_key",
                    f"is a write key of {seen[key]} too",
                    "each source needs keys of its own, because the key decides the source",
                )
            seen.setdefault(key, row.label)


def _judge_missing(reader: Reader, rows: list[_Row], hightouch: Hightouch) -> None:
    for row in rows:
        if not row.table.write_key and (row.name, "write_key") not in reader.failed:
            remedy = "set it to the key that SDKs send to this source, or set write_key_file"
            reader.note(row.label, "write_key", "is missing", remedy)
        tried = {(row.name, "hightouch_write_key"), ("hightouch", "write_key")}
        if (
            not row.table.hightouch_write_key
            and not hightouch.write_key
            and tried.isdisjoint(reader.failed)
        ):
            reader.note(
                row.label,
                "hightouch_write_key",
                "is missing, and so is [hightouch] write_key",
                "set it (or hightouch_write_key_file) to the write key of the Hightouch event "
                "source, or set [hightouch] write_key for all",
            )


def _source(table: SourceTable, hightouch: Hightouch) -> Source:
    region = table.region or hightouch.region
    endpoint = table.endpoint or hightouch.endpoint or f"https://{region}.hightouch-events.com"
    return Source(
        name=table.name,
        write_keys=table.write_key,
        hightouch_write_key=table.hightouch_write_key or hightouch.write_key,
        region=region,
        endpoint=endpoint,
        allowed_origins=table.allowed_origins,
        max_size=table.max_size,
    )
