"""For any JSON event: the mapper does not raise, changes what rules name and nothing else, and gives
the same answer every time, whoever asks."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeproxy.events import Event, Refusal
from edgeproxy.events.intake import Receipt, dated, normalise, seal
from edgeproxy.events.verdicts import Filtered
from edgeproxy.mapping import compile_mapping, receipt_for
from edgeproxy.mapping.counters import Trace

# --- events: JSON text, with every spelling that JSON allows ---

KEYS = st.one_of(
    st.sampled_from(
        [
            "type", "event", "userId", "anonymousId", "messageId", "originalTimestamp", "timestamp",
            "sentAt", "context", "properties", "traits", "page", "url", "screen", "width", "ip",
            "products", "price", "total", "order_total", "email", "a", "b", "device", "campaign",
        ]
    ),
    st.text(max_size=4).filter(lambda text: text.isprintable()),
)  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from(["0", "-0", "1.10", "1e400", "12345678901234567890", "5.0", "-1E-7", "7"]),
    st.integers().map(str),
)
TEXTS = st.one_of(
    st.sampled_from(
        ['"1920"', '"true"', '"\\u00e9\\ud83d\\ude00"', '"Order Completed"', '"order_completed"',
         '"track"', '"page"', '"identify"', '"2026-11-23T10:00:00"', '"203.0.113.9"', '"Jo@X.com"']
    ),
    st.text(max_size=6).filter(str.isprintable).map(json.dumps),
)  # fmt: skip
SPACE = st.sampled_from(["", "", "", " ", "\n\t"])


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(KEYS.map(json.dumps), SPACE, SPACE, values)
    members = st.lists(member.map(lambda m: f"{m[1]}{m[0]}:{m[2]}{m[3]}"), max_size=6)
    return members.map(lambda found: "{" + ",".join(found) + "}")


VALUES = st.recursive(
    st.one_of(NUMBERS, TEXTS, st.sampled_from(["true", "false", "null"])),
    lambda inner: st.one_of(
        objects(inner), st.lists(inner, max_size=3).map(lambda found: "[" + ", ".join(found) + "]")
    ),
    max_leaves=12,
)
EVENTS = objects(VALUES).map(str.encode)

MAPPING = {
    "preset": "ecommerce",
    "default": {"properties.scope": {"value": "default"}},
    "global": {
        "properties.total": ["properties.order_total", "properties.b"],
        "properties.email": {"transform": "sha256"},
        "properties.cents": {"expr": "properties.total * 100"},
        "properties.products[].price": {"from": "properties.products[].a", "transform": "to_float"},
        "properties.ids": {"from": "properties.products[].b", "transform": {"join": ","}},
        "context.ip": {"transform": "truncate_ip"},
        "userId": ["userId", "traits.a"],
        "a.b": {"from": "b", "default": 5},
    },
    "type": {"page": {"context.page.url": {"transform": "lower", "when": "has(context.page.url)"}}},
    "source": {"app": {"anonymousId": {"value": "x"}}},
}
FILTERS = [
    {"name": "half", "action": "sample", "rate": 0.5, "types": ["screen"]},
    {"name": "when", "action": "drop", "when": "properties.total == 7"},
    {"name": "aside", "action": "dead_letters", "when": "context.ip == 'x'"},
]
MAPPERS = {
    (rules, types): compile_mapping(
        MAPPING if rules else {},
        FILTERS if rules else (),
        types=types,  # type: ignore[arg-type]
    )
    for rules in (False, True)
    for types in ("coerce", "forward", "quarantine")
}
BUSY = MAPPERS[True, "coerce"]
RELAXED = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def outcome(mapper, raw: bytes, source: str = "web", trace: Trace | None = None):
    event = Event(raw)
    verdict = mapper.apply(event, source, trace)
    return verdict, event.body() if verdict is None else None


def without(value: object, *names: str) -> object:
    return {k: v for k, v in value.items() if k not in names} if isinstance(value, dict) else value


@RELAXED
@given(raw=EVENTS, source=st.sampled_from(["web", "app"]))
@example(raw=b'{"properties":{"products":[{"a":"x"},5,{"a":1}]}}', source="web")
@example(raw=b'{"context":[],"properties":[{}],"traits":"x","a":[1]}', source="app")
def test_the_mapper_never_raises_and_its_output_is_json(raw: bytes, source: str):
    for mapper in MAPPERS.values():
        verdict, body = outcome(mapper, raw, source)
        if verdict is None:
            msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        else:
            assert isinstance(verdict, Refusal | Filtered)


@RELAXED
@given(raw=EVENTS)
def test_without_rules_and_types_the_very_bytes_come_out(raw: bytes):
    verdict, body = outcome(MAPPERS[False, "forward"], raw)
    assert verdict is None
    assert body is raw


@RELAXED
@given(raw=EVENTS)
def test_mapping_is_deterministic(raw: bytes):
    again = compile_mapping(MAPPING, FILTERS)
    assert outcome(BUSY, raw) == outcome(BUSY, raw) == outcome(again, raw)


@RELAXED
@given(raw=EVENTS)
def test_being_watched_changes_nothing(raw: bytes):
    assert outcome(BUSY, raw) == outcome(BUSY, raw, trace=Trace())


def texts(raw: bytes) -> dict[str, bytes]:
    return {k: bytes(v) for k, v in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).items()}


@RELAXED
@given(raw=EVENTS)
def test_what_no_rule_names_keeps_its_bytes(raw: bytes):
    verdict, body = outcome(MAPPERS[True, "forward"], raw)
    if verdict is not None:
        return
    # Fields that a rule reads or writes at some level; of these only what is inside is compared.
    named = {"properties", "context", "userId", "traits", "event", "a", "b"}
    before, after = texts(raw), texts(body)
    for key in {*before, *after} - named:
        assert after.get(key) == before.get(key)
    inside = {
        "properties": {"scope", "total", "order_total", "b", "email", "cents", "products", "ids"},
        "context": {"ip", "page"},
        "traits": {"a"},
    }
    for key, names in inside.items():
        if before.get(key, b"")[:1] == b"{":
            was, now = texts(before[key]), texts(after[key])
            for name in {*was, *now} - names:
                assert now.get(name) == was.get(name)


@RELAXED
@given(raw=EVENTS)
def test_types_that_convert_change_nothing_but_the_values_that_convert(raw: bytes):
    verdict, body = outcome(MAPPERS[False, "coerce"], raw)
    assert verdict is None
    for key in ("a", "b", "products", "page", "screen", "timestamp"):
        assert texts(body).get(key) == texts(raw).get(key)
    # Converted once, nothing is left to convert.
    assert outcome(MAPPERS[False, "coerce"], body) == (None, body)


@RELAXED
@given(raw=EVENTS)
def test_what_quarantine_lets_through_needs_no_converting(raw: bytes):
    verdict, body = outcome(MAPPERS[False, "quarantine"], raw)
    if verdict is None:
        assert body is raw
        assert outcome(MAPPERS[False, "coerce"], raw) == (None, raw)


# --- `map` and the server ---


def served(raw: bytes, receipt: Receipt) -> tuple[str, bytes | None]:
    """What the server does with one event, in the server's own order."""
    event = normalise(raw, receipt, is_utf8=False)
    if isinstance(event, Refusal):
        return event.code, None
    verdict = BUSY.apply(event, "web")
    if isinstance(verdict, Filtered):
        return "filtered", None
    sealed = verdict or seal(event, receipt, max_event=96_000, max_age=7 * 86_400.0)
    if isinstance(sealed, Refusal):
        return sealed.code, None
    return "accepted", dated(sealed.body, receipt.received + (sealed.skew or 0))


@RELAXED
@given(raw=st.one_of(EVENTS, st.binary(max_size=20)))
def test_explaining_an_event_says_what_the_server_would_do(raw: bytes):
    receipt = receipt_for(raw)
    found = BUSY.explain(raw, "web", receipt)
    verdict, output = served(raw, receipt)
    assert found.verdict == verdict
    if found.output is None or output is None:
        assert found.output is output
        return
    told, sent = json.loads(found.output, parse_int=str), json.loads(output, parse_int=str)
    if "messageId" not in (msgspec.json.decode(raw) if b"1e400" not in raw else {}):
        told, sent = without(told, "messageId"), without(sent, "messageId")
    if "messageId" in told or found.output == output:
        assert told == sent


def test_the_command_prints_what_the_server_would_send(tmp_path: Path):
    config = tmp_path / "config.toml"
    config.write_text(
        '[hightouch]\nwrite_key = "abcdefghijkl"\n[mapping]\npreset = "ecommerce"\n'
        '[mapping.global]\n"properties.total" = "properties.order_total"\n'
    )
    mapper = compile_mapping(
        {"preset": "ecommerce", "global": {"properties.total": "properties.order_total"}}
    )
    lines = [
        b'{"type":"track","event":"order_completed","userId":%d,"messageId":"m%d","properties":'
        b'{"order_total":%d.10},"timestamp":"2026-11-23T10:00:00Z"}' % (n, n, n)
        for n in range(20)
    ]
    done = subprocess.run(
        [sys.executable, "-m", "edgeproxy", "map", "--config", str(config)],
        input=b"\n".join(lines), capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    wanted = [mapper.explain(line, "default").output for line in lines]
    assert done.stdout.splitlines() == wanted


@pytest.mark.parametrize("count", [1000])
def test_an_event_of_a_thousand_unknown_fields_is_not_rebuilt(count: int):
    members = ",".join(f'"f{n}" : [ {n}.10 ,{{"a":1,"a":2}}]' for n in range(count))
    raw = f'{{"type":"page","userId":"u",{members}}}'.encode()
    event = Event(raw)
    assert MAPPERS[False, "coerce"].apply(event, "web") is None
    assert event.body() is raw
