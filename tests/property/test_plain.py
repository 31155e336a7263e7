"""The short way comes to the same end as the long one, and is the way of what real SDKs send."""

import json
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.events import Refusal
from edgeproxy.events.envelope import open_batch, open_single
from edgeproxy.events.intake import CLIENT_LIBRARIES, Receipt, Sealed, normalise, seal
from edgeproxy.mapping import Mapper, compile_mapping
from edgeproxy.mapping.plain import seal_plain
from edgeproxy.mapping.ruled import Ruled

NOW = 1_795_448_194_379  # 2026-11-23T15:36:34.379Z
MAX_EVENT, MAX_AGE = 96_000, 7 * 86400.0
CAPTURES = sorted((Path(__file__).parents[1] / "captures").glob("*.jsonl"))

PLAIN = compile_mapping({})
RULES = {
    "preset": "ecommerce",
    "global": {
        "userId": ["userId", "traits.customer_id"],
        "properties.total": ["properties.value", "properties.a"],
        "properties.shop": {"value": "de"},
        "properties.hashed": {"from": "properties.email", "transform": ["trim", "sha256"]},
        "properties.who": {"from": "userId", "default": "nobody", "copy": True},
        "traits.email": {"transform": "lower"},
    },
    "type": {
        "identify": {"traits.plan": "traits.tier"},
        "page": {"properties.half": {"expr": "properties.total / 2.0"}},
    },
    "event": {"Sign Up": {"match": ["signup", "x"], "properties.plan": "properties.a"}},
    "source": {"app": {"properties.app": {"value": True}}},
}
RULED = compile_mapping(RULES)


def the_short_way(mapper: Mapper, raw: bytes, source: str, receipt: Receipt) -> Sealed | None:
    return mapper.short_way(raw, source, receipt, MAX_EVENT, MAX_AGE * 1000)


def the_long_way(mapper: Mapper, raw: bytes, source: str, receipt: Receipt) -> Sealed | Refusal:
    event = normalise(raw, receipt)
    if isinstance(event, Refusal):
        return event
    verdict = mapper.apply(event, source)
    assert verdict is None
    return seal(event, receipt, max_event=MAX_EVENT, max_age=MAX_AGE)


# --- events that are plain, or nearly -------------------------------------------------------------

NOTHING = st.sampled_from(["null", '""', "1", "{}", "[]", '"x"', "true", "1e400", '"\\u0061"'])
TIMES = st.sampled_from(
    [
        '"2026-11-23T15:36:34.379Z"', '"2026-11-23T15:30:00Z"', '"2026-11-20T15:36:34.123456Z"',
        '"2026-11-23T15:36:34.1239999Z"', '"2026-11-23T15:36:34+02:00"', '"2026-11-23T15:36:34+0200"',
        '"2026-11-23 15:36:34z"', '"2026-11-23T15:36:34"', '"2025-01-01T00:00:00Z"', '"2027-01-01T00:00:00Z"',
        '"2026-02-30T00:00:00Z"', '"2026-11-23T15:36:60Z"', "1795448194", '"soon"',
    ]
)  # fmt: skip
LIBRARIES = st.sampled_from([*sorted(CLIENT_LIBRARIES)[:3], "analytics-python"]).map(
    lambda name: f'{{"name":{json.dumps(name)},"version":"1.10"}}'
)
AGENT = st.sampled_from(['"Mozilla/5.0"', '""', "null"])
CONTEXTS = st.dictionaries(
    st.sampled_from(["library", "ip", "userAgent", "page", "locale", "screen", "sentAt", "note"]),
    st.one_of(LIBRARIES, AGENT, NOTHING, st.just('{"url":"https://a.example","ip":"x"}')),
    max_size=5,
).map(lambda d: "{" + ",".join(f'"{k}":{v}' for k, v in d.items()) + "}")
INSIDE = st.sampled_from(
    ["{}", "null", "7", '{"sentAt":"2026-11-23T15:36:34.379Z"}', '{"a":1.10,"context":{"b":"é"}}',
     '{"writeKey":"k","originalTimestamp":""}', '{"value":1.10,"email":" A@x.com"}', '{"tier":"pro"}',
     '{"total":3,"a":"b","value":null}', '{"email":"UP","customer_id":"c"}', '{"email":7,"total":"x"}',
     '{"a":"\\"sentAt\\":\\"k\\""}']
)  # fmt: skip
USUAL = {
    "type": st.sampled_from(['"track"', '"page"', '"identify"', '"group"', '"Track"']),
    "messageId": st.sampled_from(['"m-1"', '"é\\u00e9"', '"7"']),
    "anonymousId": st.sampled_from(['"a"', '"ü"', "null", '""']),
    "userId": st.sampled_from(['"u"', "null", "5"]),
    "event": st.sampled_from(['"Order Completed"', '"order_completed"', '"signup"', '"x"', "null"]),
    "timestamp": TIMES,
    "originalTimestamp": TIMES,
    "sentAt": TIMES,
    "writeKey": st.sampled_from(['"k"', "null", "1"]),
    "context": CONTEXTS | NOTHING,
    "properties": INSIDE,
    "traits": INSIDE,
    "integrations": INSIDE,
}


SOUND = {
    "type": '"track"',
    "messageId": '"m-1"',
    "anonymousId": '"a"',
    "event": '"x"',
    "timestamp": '"2026-11-23T15:30:00Z"',
    "sentAt": '"2026-11-23T15:36:34.379Z"',
    "writeKey": '"k"',
    "properties": '{"a":1.10,"context":{"b":"é"}}',
    "context": '{"page":{"url":"https://a.example"},"library":{"name":"events-sdk-js"}}',
}


@st.composite
def events(draw):
    """A sound event of which some fields are others, missing, or in another order."""
    fields = dict(SOUND)
    for key in draw(st.lists(st.sampled_from([*USUAL]), max_size=5)):
        fields.pop(key, None)
        if draw(st.integers(0, 9)):
            fields[key] = draw(USUAL[key] if draw(st.integers(0, 9)) else NOTHING)
    members = draw(st.permutations([*fields.items()]) | st.just([*fields.items()]))
    if draw(st.integers(0, 9)) == 0:
        members = [*members, draw(st.sampled_from(members))]  # of duplicates the last wins
    colon = draw(st.sampled_from([":"] * 9 + [" : "]))
    return "{" + ",".join(f'"{key}"{colon}{value}' for key, value in members) + "}"


RECEIPTS = st.builds(
    Receipt,
    received=st.just(NOW),
    type=st.sampled_from([None, "page"]),
    sent_at=st.just("2026-11-23T15:36:34Z"),
    sent_at_ms=st.sampled_from([None, NOW - 379]),
    context=st.sampled_from([None, None, b'{"library":{"name":"events-sdk-js"}}']),
    ip=st.sampled_from([None, "192.0.2.1"]),
    user_agent=st.sampled_from([None, 'Mozilla "5.0"']),
    has_origin=st.booleans(),
)


TWISTED = [
    '{"type":"page","messageId":"m","userId":"u","timestamp":"2026-11-23T15:36:34.379Z",'
    '"sentAt" : "2026-11-23T15:36:34.379Z","properties":{"sentAt":"2026-11-23T15:36:34.379Z"}}',
    '{"type":"page","messageId":"m","userId":"u","timestamp":"2026-11-23T15:36:34.379Z",'
    '"context" : {"a":1},"properties":{"context":{"b":2}}}',
    '{"type":"page","messageId":"m","userId":"u","timestamp":"2026-11-23T15:36:34.379Z",'
    '"context":{"a":1,"ip":null}}',
]


def test_both_ways_come_to_the_same_end():
    taken = 0

    @settings(deadline=None, max_examples=1500)
    @given(events() | st.sampled_from(TWISTED), RECEIPTS)
    def compare(text, receipt):
        nonlocal taken
        raw = text.encode()
        sealed = the_short_way(PLAIN, raw, "web", receipt)
        if sealed is not None:
            taken += 1
            assert sealed == the_long_way(PLAIN, raw, "web", receipt)

    compare()
    assert taken > 100, "too few to compare"


def members(body: bytes) -> list[tuple[str, str]]:
    """Top-level members, in any order: a field that is new stands wherever it is written."""
    found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return sorted((key, bytes(value).decode()) for key, value in found.items())


def repeated(body: bytes) -> int:
    """How many members stand there more than once."""
    keys = [key for key, _ in json.loads(body, object_pairs_hook=list)]
    return len(keys) - len(set(keys))


def test_both_ways_do_what_rules_say():
    taken = 0

    @settings(deadline=None, max_examples=1500)
    @given(events(), RECEIPTS, st.sampled_from(["web", "app"]))
    def compare(text, receipt, source):
        nonlocal taken
        raw = text.encode()
        before = msgspec.structs.asdict(RULED.counters)
        sealed = the_short_way(RULED, raw, source, receipt)
        assert msgspec.structs.asdict(RULED.counters) == before
        if sealed is not None:
            taken += 1
            other = the_long_way(RULED, raw, source, receipt)
            assert members(sealed.body) == members(other.body)
            assert repeated(sealed.body) <= repeated(raw)
            assert msgspec.structs.replace(sealed, body=b"") == msgspec.structs.replace(
                other, body=b""
            )

    compare()
    assert taken > 100, "too few to compare"


def test_what_browsers_and_servers_send_takes_the_short_way():
    ways: dict[str, list[bool]] = {}
    for path in CAPTURES:
        for line in path.read_text().splitlines():
            request = json.loads(line)
            if request["method"] != "POST" or "/v1/" not in request["path"]:
                continue
            body = request["body"].encode()
            is_batch = b'"batch"' in body
            envelope = open_batch(body) if is_batch else open_single(body)
            receipt = Receipt(
                NOW, sent_at_ms=NOW, ip="192.0.2.1", has_origin="browser" in path.stem
            )
            for event in envelope.events:
                taken = the_short_way(PLAIN, event, "web", receipt) is not None
                ways.setdefault(path.stem, []).append(taken)
    shares = {name: sum(taken) / len(taken) for name, taken in ways.items()}
    usual = {"hightouch_browser", "hightouch_browser_batching", "hightouch_node", "segment_node"}
    assert {name: shares[name] for name in usual} == dict.fromkeys(usual, 1)


def test_filters_see_every_event():
    assert PLAIN.short_way is seal_plain
    assert isinstance(RULED.short_way, Ruled)
    everywhere = {"context.ip": {"transform": "truncate_ip"}}
    assert compile_mapping({"global": everywhere}).short_way is None, "it would take no event"
    assert compile_mapping({"unmapped": "drop"}).short_way is None
    assert (
        compile_mapping({}, [{"name": "n", "action": "drop", "types": ["page"]}]).short_way is None
    )
