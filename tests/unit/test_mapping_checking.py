"""edgeproxy.mapping: every row of the field table, with every kind of value, under each policy."""

import json

import pytest

from edgeproxy.events import Event, Refusal
from edgeproxy.mapping import Mapper, compile_mapping
from edgeproxy.mapping.coercion import coerce_time, is_time
from edgeproxy.mapping.table import Field, field_table

ABSENT = object()
ROWS = field_table()

# What each type takes as it is, what converts to what, and what does not.
RIGHT = {
    "String": ['"text"', '""'],
    "Boolean": ["true", "false"],
    "Number": ["1.10", "7", "-0.0", "1e400", "12345678901234567890.5"],
    "Integer": ["1920", "-3", "12345678901234567890"],
    "Object": ["{}", '{"a": 1}'],
    "Boolean/String": ["true", '"unknown"'],
}
CONVERTIBLE = {
    "String": [("7", '"7"'), ("1.10", '"1.10"'), ("true", '"true"'), ("1e400", '"1e400"')],
    "Boolean": [('"true"', "true"), ('"False"', "false"), ("1", "true"), ("0", "false")],
    "Number": [('"1.10"', "1.10"), ('"7"', "7"), ('"-1e3"', "-1e3")],
    "Integer": [('"1920"', "1920"), ("5.0", "5"), ('"5.0"', "5"), ("1e3", "1000")],
    "Object": [],
    "Boolean/String": [("1", '"1"'), ("1.50", '"1.50"')],
}
WRONG = {
    "String": ["{}", "[1]"],
    "Boolean": ['"yes, please"', "2", "{}", "[]", "1.5"],
    "Number": ['"wide"', "true", "{}", "[]", '"0x10"', '" 5"', '"NaN"'],
    "Integer": ["5.5", '"5.5"', "true", "[]", "1e400", '"1920px"'],
    "Object": ['"text"', "7", "[]", "true"],
    "Boolean/String": ["{}", "[]"],
}
TIMES = ("originalTimestamp", "sentAt")


def type_for(row: Field) -> str:
    return "identify" if row.applies_to == "global" else row.applies_to


def event_with(row: Field, value: object) -> bytes:
    """An event of the row's type with one JSON text at the row's key."""
    others = {
        "type": json.dumps(type_for(row)),
        "messageId": '"m"',
        "anonymousId": '"a"',
        "event": '"e"',
        "originalTimestamp": '"2026-11-23T10:00:00Z"',
        "sentAt": '"2026-11-23T10:00:00Z"',
    }
    head, *below = row.output.split(".")
    others.pop(head, None)
    if value is not ABSENT:
        text = str(value)
        for name in reversed(below):
            text = f'{{"{name}":{text}}}'
        others[head] = text
    return ("{" + ",".join(f'"{key}":{text}' for key, text in others.items()) + "}").encode()


def apply(types: str, raw: bytes) -> tuple[Refusal | None, bytes, Mapper]:
    mapper = compile_mapping({}, types=types)  # type: ignore[arg-type]
    event = Event(raw)
    refusal = mapper.apply(event, "default")
    assert refusal is None or isinstance(refusal, Refusal)
    return refusal, event.body(), mapper


def cases(values: dict[str, list], *, times: bool = False) -> list:
    return [
        pytest.param(row, value, id=f"{row.applies_to}-{row.output}-{value}")
        for row in ROWS
        if times == (row.output in TIMES) and row.output != "type"
        for value in values[row.type]
    ]


def test_the_table_is_the_whole_of_the_integrations():
    assert len(ROWS) == 47
    assert {row.type for row in ROWS} == set(RIGHT)
    originals = [row for row in ROWS if row.output != row.input]
    assert [(row.output, row.input) for row in originals] == [("originalTimestamp", "timestamp")]


@pytest.mark.parametrize(("row", "value"), cases(RIGHT))
def test_a_value_of_the_right_type_leaves_the_event_as_it_came(row: Field, value: str):
    raw = event_with(row, value)
    for types in ("coerce", "forward", "quarantine"):
        refusal, body, mapper = apply(types, raw)
        assert refusal is None
        assert body is raw
        assert not mapper.counters.coerced
        assert not mapper.counters.uncoercible


@pytest.mark.parametrize(("row", "pair"), cases(CONVERTIBLE))
def test_a_value_that_converts_without_loss_is_converted(row: Field, pair: tuple[str, str]):
    given, wanted = pair
    raw = event_with(row, given)
    refusal, body, mapper = apply("coerce", raw)
    assert refusal is None
    # The value alone has changed, wherever that puts it.
    assert sorted(body) == sorted(event_with(row, wanted))
    assert json.loads(body) == json.loads(event_with(row, wanted))
    assert mapper.counters.coerced == {row.output: 1}


@pytest.mark.parametrize(("row", "pair"), cases(CONVERTIBLE))
def test_a_convertible_value_is_forwarded_or_refused_as_the_policy_says(row, pair):
    raw = event_with(row, pair[0])
    assert apply("forward", raw)[:2] == (None, raw)
    refusal, _, mapper = apply("quarantine", raw)
    assert refusal is not None
    assert refusal.code == "bad_type"
    assert row.output in refusal.message
    assert row.type in refusal.message
    assert mapper.counters.uncoercible == {row.output: 1}


@pytest.mark.parametrize(("row", "value"), cases(WRONG))
def test_a_value_of_the_wrong_type_is_left_counted_or_refused(row: Field, value: str):
    raw = event_with(row, value)
    refusal, body, mapper = apply("coerce", raw)
    assert (refusal, body) == (None, raw)
    assert mapper.counters.uncoercible == {row.output: 1}
    assert not mapper.counters.coerced
    assert apply("forward", raw)[:2] == (None, raw)
    refusal, _, _ = apply("quarantine", raw)
    assert refusal is not None
    assert refusal.code == "bad_type"
    assert f"`{row.output}` must be {row.type} and is " in refusal.message


@pytest.mark.parametrize("value", [ABSENT, "null"], ids=["absent", "null"])
@pytest.mark.parametrize("row", ROWS, ids=[f"{r.applies_to}-{r.output}" for r in ROWS])
def test_absent_and_null_are_nobodys_mistake(row: Field, value: object):
    raw = event_with(row, value)
    for types in ("coerce", "forward", "quarantine"):
        refusal, body, mapper = apply(types, raw)
        assert (refusal, body) == (None, raw)
        assert not mapper.counters.uncoercible


@pytest.mark.parametrize("key", TIMES)
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("1763891234", "2025-11-23T09:47:14.000Z"),
        ("1763891234567", "2025-11-23T09:47:14.567Z"),
        ('"1763891234567"', "2025-11-23T09:47:14.567Z"),
        ("1763891234.5", "2025-11-23T09:47:14.500Z"),
        ("1763891234567890", "2025-11-23T09:47:14.567890Z"),
        ("-1", "1969-12-31T23:59:59.000Z"),
        ('"2026-11-23T10:00:00"', "2026-11-23T10:00:00Z"),
        ('"2026-11-23 10:00:00.123456789"', "2026-11-23T10:00:00.123456789Z"),
        ('"2026-11-23"', "2026-11-23T00:00:00Z"),
        ('"2026-11-23T10:00:00+0200"', "2026-11-23T10:00:00+02:00"),
        ('" 2026-11-23T10:00:00Z "', "2026-11-23T10:00:00Z"),
    ],
)
def test_an_epoch_or_a_time_without_a_zone_becomes_rfc_3339(key: str, given: str, wanted: str):
    row = next(row for row in ROWS if row.output == key)
    raw = event_with(row, given)
    refusal, body, mapper = apply("coerce", raw)
    assert refusal is None
    assert json.loads(body)[key] == wanted
    assert mapper.counters.coerced == {key: 1}
    refusal, _, _ = apply("quarantine", raw)
    assert refusal is not None
    assert refusal.code == "bad_timestamp"
    assert key in refusal.message
    assert refusal.message.endswith((" a String", " a Number", " an Integer"))


@pytest.mark.parametrize("key", TIMES)
@pytest.mark.parametrize(
    "value", ['"soon"', "{}", "[]", "true", "1e300", '"2026-02-30T10:00:00Z"', '"2026-13-01"', '""']
)
def test_what_is_no_time_is_left_counted_or_refused(key: str, value: str):
    row = next(row for row in ROWS if row.output == key)
    raw = event_with(row, value)
    refusal, body, mapper = apply("coerce", raw)
    assert (refusal, body) == (None, raw)
    assert mapper.counters.uncoercible == {key: 1}
    refusal, _, _ = apply("quarantine", raw)
    assert refusal is not None
    assert refusal.code == "bad_timestamp"


@pytest.mark.parametrize("key", TIMES)
@pytest.mark.parametrize(
    "value",
    [
        "2026-11-23T10:00:00Z",
        "2026-11-23T10:00:00.1Z",
        "2026-11-23T10:00:00.123456789+05:30",
        "2026-11-23t10:00:00z",
        "2024-02-29T23:59:60Z",
        "2026-12-31T10:00:00-00:00",
    ],
)
def test_a_time_in_rfc_3339_is_left_alone(key: str, value: str):
    assert is_time(value)
    row = next(row for row in ROWS if row.output == key)
    raw = event_with(row, json.dumps(value))
    for types in ("coerce", "quarantine"):
        refusal, body, _ = apply(types, raw)
        assert (refusal, body) == (None, raw)


def test_a_type_that_is_no_text_is_not_made_one_that_means_something():
    _, body, _ = apply("coerce", b'{"type":5,"userId":"u"}')
    assert json.loads(body)["type"] == "5"


def test_a_non_object_where_the_table_looks_inside_is_named():
    raw = b'{"type":"page","userId":"u","context":{"page":"/home"}}'
    refusal, body, mapper = apply("coerce", raw)
    assert (refusal, body) == (None, raw)
    assert mapper.counters.uncoercible == {"context.page": 1}
    refusal, _, _ = apply("quarantine", raw)
    assert refusal == Refusal("bad_type", "`context.page` must be Object and is String")


def test_quarantine_names_the_first_of_several_wrong_values():
    raw = b'{"type":"page","userId":7,"context":{"ip":5,"locale":6}}'
    refusal, _, _ = apply("quarantine", raw)
    assert refusal == Refusal("bad_type", "`userId` must be String and is Integer")


def test_properties_of_types_outside_the_table_are_nobodys_business():
    raw = b'{"type":"group","userId":"u","traits":[1],"properties":"x"}'
    assert apply("quarantine", raw)[:2] == (None, raw)


def test_a_context_seen_before_is_not_trusted_in_another_place():
    mapper = compile_mapping({}, types="quarantine")
    good = b'{"type":"page","userId":"u","context":{"ip":"1"}}'
    bad = b'{"type":"page","userId":"u","context":{"ip":1}}'
    assert mapper.apply(Event(good), "s") is None
    assert mapper.apply(Event(good), "s") is None
    assert mapper.apply(Event(bad), "s") is not None


def test_only_what_converts_is_rebuilt():
    raw = (
        b'{ "type" : "page", "userId":"u","context" : {"screen": {"width" : "1920", "u":1.10, '
        b'"u":1e400, "\\u00e9":[ 1 , 2 ]}, "x": 12345678901234567890, "x": {"y" :  1}}}'
    )
    _, body, _ = apply("coerce", raw)
    assert b'{"width" : 1920,"u":1.10,"u":1e400,"\\u00e9":[ 1 , 2 ]}' in body
    assert b'"x": 12345678901234567890,"x": {"y" :  1}' in body


def test_an_epoch_too_far_to_be_written_is_no_time():
    assert coerce_time(b"999999999999999999999") is None
    assert coerce_time(b"1e30") is None
    assert coerce_time(b"1" * 50) is None
