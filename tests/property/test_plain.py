"""The short way comes to the same end as the long one, and is the way of what real SDKs send."""

import json
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeproxy.events import Refusal
from edgeproxy.events.envelope import open_batch, open_single
from edgeproxy.events.intake import CLIENT_LIBRARIES, Receipt, Sealed, normalise, seal
from edgeproxy.mapping import compile_mapping
from edgeproxy.mapping.plain import seal_plain

NOW = 1_795_448_194_379  # 2026-11-23T15:36:34.379Z
MAX_EVENT, MAX_AGE = 96_000, 7 * 86400.0
CAPTURES = sorted((Path(__file__).parents[1] / "captures").glob("*.jsonl"))

MAPPER = compile_mapping({})


def the_short_way(raw: bytes, receipt: Receipt) -> Sealed | None:
    return seal_plain(raw, receipt, MAX_EVENT, MAX_AGE * 1000)


def the_long_way(raw: bytes, receipt: Receipt) -> Sealed | Refusal:
    event = normalise(raw, receipt)
    if isinstance(event, Refusal):
        return event
    verdict = MAPPER.apply(event, "web")
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
     '{"writeKey":"k","originalTimestamp":""}', '{"a":"\\"sentAt\\":\\"k\\""}']
)  # fmt: skip
USUAL = {
    "type": st.sampled_from(['"track"', '"page"', '"identify"', '"group"', '"Track"']),
    "messageId": st.sampled_from(['"m-1"', '"é\\u00e9"', '"7"']),
    "anonymousId": st.sampled_from(['"a"', '"ü"', "null", '""']),
    "userId": st.sampled_from(['"u"', "null", "5"]),
    "event": st.sampled_from(['"Order Completed"', "null"]),
    "timestamp": TIMES,
    "originalTimestamp": TIMES,
    "sentAt": TIMES,
    "writeKey": st.sampled_from(['"k"', "null", "1"]),
    "context": CONTEXTS | NOTHING,
    "properties": INSIDE,
    "traits": INSIDE,
    "integrations": INSIDE,
}


@st.composite
def events(draw):
    fields = {key: value for key, value in USUAL.items() if draw(st.integers(0, 9)) < 7}
    members = [(key, draw(NOTHING if draw(st.integers(0, 19)) == 0 else value))
               for key, value in fields.items()]  # fmt: skip
    members = draw(st.permutations(members))
    if members and draw(st.integers(0, 9)) == 0:
        members.append(draw(st.sampled_from(members)))  # of duplicates the last wins
    colon = draw(st.sampled_from([":", ":", ":", " : "]))
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
BROWSER = Receipt(received=NOW, ip="192.0.2.1", user_agent="Mozilla", has_origin=True)


@settings(deadline=None, max_examples=1500)
@given(events(), RECEIPTS)
@example(
    '{"type":"page","messageId":"m","userId":"u","timestamp":"2026-11-23T15:36:34.379Z",'
    '"sentAt" : "2026-11-23T15:36:34.379Z","properties":{"sentAt":"2026-11-23T15:36:34.379Z"}}',
    BROWSER,
)
@example(
    '{"type":"page","messageId":"m","userId":"u","timestamp":"2026-11-23T15:36:34.379Z",'
    '"context" : {"a":1},"properties":{"context":{"b":2}}}',
    BROWSER,
)
@example(
    '{"type":"page","messageId":"m","userId":"u","timestamp":"2026-11-23T15:36:34.379Z",'
    '"context":{"a":1,"ip":null}}',
    BROWSER,
)
def test_both_ways_come_to_the_same_end(text, receipt):
    raw = text.encode()
    sealed = the_short_way(raw, receipt)
    if sealed is not None:
        assert sealed == the_long_way(raw, receipt)


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
                taken = the_short_way(event, receipt) is not None
                ways.setdefault(path.stem, []).append(taken)
    shares = {name: sum(taken) / len(taken) for name, taken in ways.items()}
    usual = {"hightouch_browser", "hightouch_browser_batching", "hightouch_node", "segment_node"}
    assert {name: shares[name] for name in usual} == dict.fromkeys(usual, 1)


def test_rules_and_filters_see_every_event():
    assert MAPPER.short_way is seal_plain
    assert compile_mapping({"global": {"properties.a": {"value": 1}}}).short_way is None
    assert (
        compile_mapping({}, [{"name": "n", "action": "drop", "types": ["page"]}]).short_way is None
    )
