"""Laws that hold for every event, whatever is in it."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeproxy.events import Refusal, parse_time, rfc3339
from edgeproxy.events.envelope import (
    MAX_DEPTH,
    InvalidEnvelopeError,
    InvalidJSONError,
    open_batch,
    open_single,
)
from edgeproxy.events.intake import Receipt, dated, normalise, seal

NOW = 1_795_448_194_379
OURS = {"messageId", "originalTimestamp", "sentAt", "writeKey", "context", "type"}

# --- JSON as bytes, in more spellings than a serialiser knows ---------------------------------------

characters = st.characters(exclude_categories=["Cs"])
strings = st.one_of(
    st.text(characters, max_size=8).map(lambda s: json.dumps(s, ensure_ascii=False)),
    st.text(characters, max_size=8).map(json.dumps),
    st.sampled_from(['"\\/"', '"\\u0041"', '"\\ud83d\\ude00"', '"]}"', '"[{\\""', '"\\\\"', '""']),
)
numbers = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1.10", "1e400", "-0", "-0.0", "1E+2", "12345678901234567890123", "0.1e-999"]),
)
blanks = st.sampled_from(["", "", "", " ", "\n", "\t ", "\r\n"])


def an_array(values):
    return st.tuples(blanks, st.lists(values, max_size=4)).map(
        lambda t: "[" + t[0] + ("," + t[0]).join(t[1]) + t[0] + "]"
    )


def an_object(values):
    members = st.lists(st.tuples(strings, values), max_size=4)
    return st.tuples(blanks, members).map(
        lambda t: "{" + t[0] + ",".join(f"{t[0]}{k}{t[0]}:{v}" for k, v in t[1]) + t[0] + "}"
    )


values = st.recursive(
    st.one_of(strings, numbers, st.sampled_from(["true", "false", "null"])),
    lambda inner: an_array(inner) | an_object(inner),
    max_leaves=12,
)
other_keys = st.text(characters, max_size=8).filter(lambda key: key not in OURS)
spelled_keys = st.one_of(
    other_keys.map(lambda key: json.dumps(key, ensure_ascii=False)), other_keys.map(json.dumps)
)
times = st.one_of(
    st.sampled_from(["2026-11-23T15:36:34Z", "2026-11-23T15:36:34.123456+02:00"]).map(json.dumps),
    st.sampled_from(["1795448190", "1795448190.50", "null", '""', '"garbage"']),
)


@st.composite
def sound_events(draw):
    """An object with what Hightouch needs, and anything else."""
    fields = [(k, v) for k, v in draw(st.lists(st.tuples(spelled_keys, values), max_size=6))]
    needed = [('"type"', '"track"'), ('"event"', '"e"'), ('"userId"', '"u"')]
    taken = {"event", "userId", "anonymousId"}
    fields = [(k, v) for k, v in fields if json.loads(k) not in taken]
    whatever = st.one_of(strings, numbers, st.just("null"))
    needed += [(f'"{k}"', draw(whatever)) for k in ("messageId", "writeKey") if draw(st.booleans())]
    for key in ("timestamp", "originalTimestamp", "sentAt"):
        if draw(st.booleans()):
            needed.append((json.dumps(key), draw(times)))
            fields = [(k, v) for k, v in fields if json.loads(k) != key]
    if draw(st.booleans()):
        needed.append(('"context"', draw(st.one_of(an_object(values), st.just("null")))))
    members = draw(st.permutations(fields + needed))
    space = draw(blanks)
    return "{" + space + ("," + space).join(f"{k}:{space}{v}" for k, v in members) + space + "}"


receipts = st.builds(
    Receipt,
    received=st.just(NOW),
    type=st.sampled_from([None, "page"]),
    sent_at=st.just("2026-11-23T15:36:34Z"),
    sent_at_ms=st.just(NOW - 379),
    context=st.sampled_from([None, b"{}", b'{"library":{"name":"events-sdk-js"},"n":1.10}']),
    ip=st.sampled_from([None, "192.0.2.1"]),
    user_agent=st.sampled_from([None, 'Mozilla "5.0"']),
    has_origin=st.booleans(),
)


def members(text):
    """Top-level keys and the JSON text of their values, of duplicates the last."""
    import msgspec

    found = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return {key: bytes(value) for key, value in found.items()}


@settings(deadline=None, max_examples=300)
@given(sound_events(), receipts)
@example('{"type":"track","event":"e","userId":"u"}', Receipt(received=NOW))
def test_what_the_proxy_does_not_name_is_sent_byte_for_byte(text, receipt):
    raw = text.encode()
    event = normalise(raw, receipt)
    assert not isinstance(event, Refusal)
    sealed = seal(event, receipt, max_event=10**9, max_age=10**12)
    assert not isinstance(sealed, Refusal)
    sent = dated(NOW) + sealed.body[1:]
    before, after = members(raw), members(sent)
    for key in before.keys() | after.keys():
        if key not in OURS:
            assert after.get(key) == before.get(key)
    assert "writeKey" not in after
    assert {"messageId", "originalTimestamp", "sentAt", "type"} <= after.keys()
    keys = [key for key, _ in json.loads(sent, object_pairs_hook=list)]
    given = [key for key, _ in json.loads(raw, object_pairs_hook=list)]
    for key in set(keys):
        assert keys.count(key) <= max(1, given.count(key))


names = st.sampled_from(["sentAt", "writeKey", "messageId", "context", "originalTimestamp", "x"])
look_alikes = st.recursive(
    st.sampled_from(["", None, 1, "k", "sentAt", '"sentAt":"k"', 'x"']) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=500)
@given(
    st.permutations(["type", "userId", "sentAt", "writeKey", "messageId", "context", "x", "y"]),
    st.dictionaries(names | st.just("y"), look_alikes, max_size=6),
    receipts,
)
def test_names_that_stand_elsewhere_too_confuse_nobody(order, fields, receipt):
    fields = {"type": "page", "userId": "u", **fields}
    keys = [key for key in order if key in fields]
    raw = json.dumps({key: fields[key] for key in keys}, separators=(",", ":")).encode()
    event = normalise(raw, receipt)
    sealed = seal(event, receipt, max_event=10**9, max_age=10**12)
    assert not isinstance(sealed, Refusal)
    sent = json.loads(sealed.body)
    assert {"sentAt", "writeKey"}.isdisjoint(sent)
    for key in ("type", "userId", "x", "y"):
        assert sent.get(key, "absent") == fields.get(key, "absent")
    if fields.get("messageId"):
        assert sent["messageId"] == fields["messageId"]
    if isinstance(fields.get("context"), dict):
        for key, value in fields["context"].items():
            assert value is None or sent["context"][key] == value


@settings(deadline=None, max_examples=300)
@given(sound_events(), receipts)
def test_the_lens_sees_what_is_sent(text, receipt):
    event = normalise(text.encode(), receipt)
    assert not isinstance(event, Refusal)
    sent = json.loads(event.body(), parse_int=str, parse_float=str)
    for key in ("type", "event", "userId", "messageId", "originalTimestamp", "timestamp"):
        value = getattr(event.lens, key)
        if isinstance(value, str) and key in sent:
            assert sent[key] == value


@settings(deadline=None, max_examples=300)
@given(st.lists(values, max_size=5), blanks, an_object(values))
def test_both_ways_to_open_a_batch_agree(batch, space, context):
    sound = f'{{{space}"sentAt":5,"context":{context},"batch":[{("," + space).join(batch)}]}}'
    opened = open_batch(sound.encode())
    assert [bytes(event).decode() for event in opened.events] == batch
    broken = sound[:-2] + ("," if batch else "") + "NaN]}"
    again = open_batch(broken.encode())
    assert [bytes(event).decode() for event in again.events] == [*batch, "NaN"]
    assert (again.context, again.sent_at) == (opened.context, opened.sent_at)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | values.map(str.encode))
def test_no_bytes_do_harm(body):
    for opener in (open_single, open_batch):
        try:
            envelope = opener(body)
        except (InvalidJSONError, InvalidEnvelopeError):
            continue
        for raw in envelope.events:
            event = normalise(raw, Receipt(received=NOW), is_utf8=envelope.is_utf8)
            if not isinstance(event, Refusal):
                seal(event, Receipt(received=NOW), max_event=96_000, max_age=10**9)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=40), st.integers(0, 3))
def test_broken_bytes_in_one_event_leave_the_others(junk, place):
    sound = [b'{"a":%d}' % n for n in range(3)]
    text = junk.replace(b'"', b"").replace(b"\\", b"").translate(None, bytes(range(32)))
    batch = [*sound[:place], b'{"b":"%b\xff"}' % text, *sound[place:]]
    envelope = open_batch(b'{"batch":[%b]}' % b",".join(batch))
    assert envelope.events == batch
    verdicts = [normalise(raw, Receipt(received=NOW), is_utf8=False) for raw in envelope.events]
    codes = [verdict.code if isinstance(verdict, Refusal) else None for verdict in verdicts]
    assert codes == [None] * place + ["invalid_event"] + [None] * (3 - place)


def depth_of(value):
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@settings(deadline=None, max_examples=200)
@given(values, st.integers(MAX_DEPTH - 6, MAX_DEPTH + 2), strings)
def test_the_bound_on_depth_is_what_a_simple_count_says(inner, around, text):
    wrapped = f"{'[' * around}{text},{inner}{']' * around}"
    too_deep = around + depth_of(json.loads(inner)) > MAX_DEPTH
    try:
        open_single(wrapped.encode())
    except InvalidJSONError:
        assert too_deep
    else:
        assert not too_deep


# --- times ------------------------------------------------------------------------------------------


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_a_time_that_was_written_is_read_back(ms):
    assert parse_time(rfc3339(ms).decode()) == ms


@given(
    st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.none()))
)
def test_reading_a_time_never_raises(value):
    ms = parse_time(value)
    assert ms is None or abs(ms) < 2**53


@given(st.datetimes(timezones=st.timezones()))
def test_every_moment_is_read_in_any_zone(moment):
    ms = parse_time(moment.isoformat())
    if moment.utcoffset().total_seconds() % 60 == 0:
        assert ms == int(moment.timestamp() // 0.001) or abs(ms - moment.timestamp() * 1000) < 1
