"""`[[tests]]`: a mapping's own tests, an event each with what is expected of it."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from edgeproxy.config import Mistake
from edgeproxy.events import read
from edgeproxy.events.verdicts import QUARANTINE_CODES
from edgeproxy.mapping.explaining import Explanation, preview, receipt_for
from edgeproxy.mapping.objects import Text, read_array, read_members
from edgeproxy.mapping.paths import EVERY, Path, parse_path, show_path
from edgeproxy.mapping.reading import Notes, plain

if TYPE_CHECKING:
    from edgeproxy.mapping.mapper import Mapper

__all__ = ["Failure", "MappingTest", "read_tests", "run"]

_KEYS = ("name", "source", "event", "json", "expect", "absent", "output", "verdict", "filter")
_VERDICTS = ("accepted", "filtered", *QUARANTINE_CODES)


class MappingTest(Struct, frozen=True):
    """One event and what is to become of it."""

    where: str
    table: str
    name: str
    source: str
    event: bytes
    expect: Mapping[Path, Any] = {}
    """What stands at some paths of the output."""
    absent: tuple[Path, ...] = ()
    """Where nothing may stand."""
    output: Any = None
    """The whole output but for `sentAt`, where that is given."""
    verdict: str = "accepted"
    filter: str = ""


class Failure(Struct, frozen=True):
    """One test that does not hold."""

    test: MappingTest
    problem: str

    def as_mistake(self) -> Mistake:
        """As `check` reports it."""
        test = self.test
        return Mistake(
            test.where,
            test.table,
            f"{test.name!r}",
            self.problem,
            "correct the mapping or the test",
        )


def read_tests(notes: Notes, rows: Iterable[Mapping[str, Any]]) -> tuple[MappingTest, ...]:
    """All tests; those with mistakes are left out."""
    found = (_read(notes, f"[[tests]] {number}", row, number) for number, row in enumerate(rows, 1))
    return tuple(test for test in found if test is not None)


def _read(notes: Notes, table: str, row: Mapping[str, Any], number: int) -> MappingTest | None:
    before = len(notes.mistakes)
    notes.unknown(table, row, _KEYS)
    verdict = notes.typed(table, row, "verdict", str, "accepted")
    if verdict not in _VERDICTS:
        notes.add(table, "verdict", f"{verdict!r} is none", f"write one of {', '.join(_VERDICTS)}")
    if "filter" in row and verdict != "filtered":
        notes.add(table, "filter", "goes with a filtered event", 'add verdict = "filtered"')
    if verdict != "accepted" and {"expect", "absent", "output"} & set(row):
        notes.add(
            table, "verdict", f"{verdict} leaves no output", "take expect, absent and output out"
        )
    expect = notes.typed(table, row, "expect", dict, {})
    test = MappingTest(
        notes.where,
        table,
        notes.typed(table, row, "name", str, f"test {number}"),
        notes.typed(table, row, "source", str, "default"),
        _event(notes, table, row),
        {
            path: plain(expect[key])
            for key in expect
            for path in _paths(notes, table, "expect", key)
        },
        tuple(
            path
            for key in notes.texts(table, row, "absent")
            for path in _paths(notes, table, "absent", key)
        ),
        plain(row.get("output")),
        verdict,
        notes.typed(table, row, "filter", str, ""),
    )
    return test if len(notes.mistakes) == before else None


def _paths(notes: Notes, table: str, key: str, text: str) -> list[Path]:
    try:
        path = parse_path(text)
    except ValueError as error:
        notes.add(table, key, str(error), "write paths as properties.total")
        return []
    if EVERY in path:
        notes.add(table, key, f"{text} speaks of many elements", "name one, as products[0].price")
        return []
    return [path]


def _event(notes: Notes, table: str, row: Mapping[str, Any]) -> bytes:
    event, text = row.get("event"), row.get("json")
    if (event is None) == (text is None):
        notes.add(table, "event", "is not given once", "write event = {…} or json = '…'")
    elif isinstance(text, str):
        return text.encode()
    elif isinstance(event, dict):
        return msgspec.json.encode(plain(event))
    else:
        notes.add(table, "event", "is not a table", 'write event = { type = "track", … }')
    return b""


def run(mapper: "Mapper", tests: Iterable[MappingTest]) -> tuple[Failure, ...]:
    """Run tests through the very functions that the server calls; give those that fail."""
    failures = []
    for test in tests:
        found = preview(mapper, test.event, test.source, receipt_for(test.event))
        problem = _judge(test, found)
        if problem is not None:
            failures.append(Failure(test, problem))
    return tuple(failures)


def _judge(test: MappingTest, found: Explanation) -> str | None:
    if found.verdict != test.verdict:
        why = found.message or found.filter
        return f"was {found.verdict}{f' ({why})' if why else ''}, expected {test.verdict}"
    if test.filter and found.filter != test.filter:
        return f"was filtered by {found.filter!r}, expected {test.filter!r}"
    if found.output is None:
        return None
    for path, wanted in test.expect.items():
        text = _at(found.output, path)
        if text is None:
            return f"{show_path(path)} is absent, expected {_shown(wanted)}"
        if not _same(read(text), wanted):
            return f"{show_path(path)} is {bytes(text).decode()}, expected {_shown(wanted)}"
    for path in test.absent:
        if _at(found.output, path) is not None:
            return f"{show_path(path)} is there, expected it absent"
    return _judge_whole(test.output, found.output)


def _judge_whole(wanted: Any, output: bytes) -> str | None:
    if wanted is None:
        return None
    given = read(output)
    if not isinstance(given, dict):
        return "output holds a number that cannot be compared: name keys in expect"
    if "sentAt" not in wanted:
        del given["sentAt"]
    for key in sorted({*given, *wanted}):
        if key not in given or key not in wanted or not _same(given[key], wanted[key]):
            has = _shown(given[key]) if key in given else "absent"
            wants = _shown(wanted[key]) if key in wanted else "it absent"
            return f"{key} is {has}, expected {wants}"
    return None


def _at(text: Text, path: Path) -> Text | None:
    found: Text | None = text
    for segment in path:
        if found is None:
            return None
        if isinstance(segment, int):
            elements = read_array(found) or []
            found = elements[segment] if segment < len(elements) else None
        else:
            found = (read_members(found) or {}).get(str(segment))
    return found


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are one number, true is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
