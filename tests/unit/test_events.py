"""What an event gains on the way in, and why one is refused."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from edgeproxy.events import Event, Refusal
from edgeproxy.events.event import Lens, NotAnObjectError, UndecodableError
from edgeproxy.events.intake import Receipt, dated, normalise, seal, user_of
from edgeproxy.events.verdicts import Filtered
from tests.listening import NOW, track

DAY = 86_400_000
NOW_TEXT = "2026-11-23T15:36:34.379Z"


def at(ms):
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


async def refused(proxy, event, **around):
    """The code of one event of a batch, after looking at its dead letter."""
    raw = event if isinstance(event, bytes) else json.dumps(event).encode()
    fields = b"".join(b',"%b":%b' % (k.encode(), json.dumps(v).encode()) for k, v in around.items())
    good = json.dumps(track(messageId="good")).encode()
    answer = await proxy.post("/v1/batch", b'{"batch":[%b,%b]%b}' % (raw, good, fields))
    told = answer.json()
    assert (answer.status, told["accepted"]) == (200, 1)
    (rejected,) = told["rejected"]
    assert rejected["index"] == 0
    ((code, id_, body),) = proxy.letters()
    assert (code, id_ or None, body) == (rejected["code"], rejected["messageId"], raw)
    assert [e["messageId"] for e in proxy.events()] == ["good"]
    return rejected["code"]


BASE = b'{"type":"track","event":"e","anonymousId":"a",%b}'


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (BASE % b'"x":NaN', "invalid_event"),
        (BASE % b'"x":-Infinity', "invalid_event"),
        (BASE % b'"x":"\\ud800"', "invalid_event"),
        (BASE % b'"x":"\\udc00 later"', "invalid_event"),
        (BASE % b'"x":{"y":["\\ud83d\\u0041"]}', "invalid_event"),
        (BASE % b'"\\ud800":1', "invalid_event"),
        (BASE % b'"x":"\xff"', "invalid_event"),
        (BASE % b'"\xff":1', "invalid_event"),
        (BASE % b'"x":"\xed\xa0\x80"', "invalid_event"),
        (BASE % b'"x":"\xc0\xaf"', "invalid_event"),
        (BASE % b'"x":"a\x01b"', "invalid_event"),
        (b"null", "not_an_object"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"1e400", "not_an_object"),
        (b'{"anonymousId":"a"}', "missing_type"),
        (b'{"type":null,"anonymousId":"a"}', "missing_type"),
        (b'{"type":"","anonymousId":"a"}', "missing_type"),
        (b'{"type":{},"anonymousId":"a"}', "missing_type"),
        (b'{"type":"Track","anonymousId":"a"}', "unknown_type"),
        (b'{"type":5,"anonymousId":"a"}', "unknown_type"),
        (b'{"type":0,"anonymousId":"a"}', "unknown_type"),
        (b'{"type":1e400,"anonymousId":"a"}', "unknown_type"),
        (b'{"type":["track"],"anonymousId":"a"}', "unknown_type"),
        (b'{"type":"page"}', "missing_identity"),
        (b'{"type":"page","anonymousId":"","userId":null}', "missing_identity"),
        (b'{"type":"page","anonymousId":[],"userId":{}}', "missing_identity"),
        (b'{"type":"track","userId":"u"}', "missing_event"),
        (b'{"type":"track","userId":"u","event":""}', "missing_event"),
        (b'{"type":"track","userId":"u","event":null}', "missing_event"),
    ],
)
async def test_an_event_that_hightouch_would_block_is_quarantined_as_received(proxy, raw, code):
    letters = []
    answer = await proxy.post(
        "/v1/batch", b'{"batch":[%b,%b]}' % (raw, json.dumps(track()).encode())
    )
    (rejected,) = answer.json()["rejected"]
    letters = proxy.letters()
    assert (rejected["index"], rejected["code"]) == (0, code)
    assert [(c, body) for c, _, body in letters] == [(code, raw)]
    assert len(proxy.events()) == 1
    if code != "missing_type":
        single = await proxy.post("/v1/track", raw)
        assert (single.status, single.code) == (400, code)


@pytest.mark.parametrize("type_", ["identify", "page", "screen", "group", "alias"])
async def test_only_track_needs_a_name(proxy, type_):
    event = await proxy.event({"type": type_, "userId": 5})
    assert (event["type"], event["userId"]) == (type_, 5)


@pytest.mark.parametrize("user", [0, False, 1e400, 1.5, [1]])
async def test_what_is_not_empty_is_an_identity(proxy, user):
    raw = json.dumps(user).replace("Infinity", "1e400")
    answer = await proxy.post(
        "/v1/batch", b'{"batch":[{"type":"page","userId":%b}]}' % raw.encode()
    )
    assert answer.body == b'{"success":true}'
    assert b'"userId":%b' % raw.encode() in proxy.stored()[0]


async def test_metadata_only_letters_hold_no_body(proxy_factory):
    proxy = await proxy_factory(dead_letters={"keep": "metadata"})
    await proxy.post("/v1/batch", {"batch": [track(messageId="m", event=None)]})
    assert proxy.letters() == [("missing_event", "m", b"")]


# --- what it gains ----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["absent", None, ""])
async def test_an_event_without_an_id_gains_a_uuid(proxy, given):
    event = {k: v for k, v in track(messageId=given).items() if v != "absent"}
    stored = await proxy.event(event)
    assert UUID(stored["messageId"]).version == 4


async def test_an_id_stays_as_it_is(proxy):
    for id_ in ("ajs-1", 12, "0"):
        assert (await proxy.event(track(messageId=id_)))["messageId"] == id_


S, T, O, B = (at(NOW - n * 1000) for n in (1, 2, 3, 4))  # noqa: E741


@pytest.mark.parametrize(
    ("own", "batch", "original"),
    [
        ({"originalTimestamp": O, "timestamp": T, "sentAt": S}, B, O),
        ({"timestamp": T, "sentAt": S}, B, T),
        ({"originalTimestamp": None, "timestamp": T, "sentAt": S}, B, T),
        ({"originalTimestamp": "", "timestamp": "", "sentAt": S}, B, S),
        ({"timestamp": None, "sentAt": None}, B, B),
        ({}, B, B),
        ({}, None, NOW_TEXT),
        ({"timestamp": 1795448190, "sentAt": S}, B, 1795448190),
    ],
)
async def test_the_original_timestamp_is_the_first_that_is_known(proxy, own, batch, original):
    event = {k: v for k, v in track().items() if k != "timestamp"} | own
    around = {} if batch is None else {"sentAt": batch}
    stored = await proxy.event(event, **around)
    assert stored["originalTimestamp"] == original
    assert stored.get("timestamp", "absent") == own.get("timestamp", "absent")


async def test_a_number_keeps_its_spelling_when_it_dates_an_event(proxy):
    for key in ("timestamp", "sentAt"):
        raw = b'{"type":"page","userId":"u","%b":1795448190.10}' % key.encode()
        await proxy.post("/v1/batch", b'{"batch":[%b]}' % raw)
        assert b'"originalTimestamp":1795448190.10' in proxy.stored()[0]


@pytest.mark.parametrize(
    ("own", "batch", "sent"),
    [
        ({"sentAt": at(NOW - 5000)}, at(NOW - 9000), NOW - 5000),
        ({}, at(NOW - 9000), NOW - 9000),
        ({"sentAt": None}, at(NOW - 9000), NOW - 9000),
        ({"sentAt": "garbage"}, at(NOW - 9000), NOW - 9000),
        ({"sentAt": "garbage"}, "garbage", NOW),
        ({}, None, NOW),
        ({"sentAt": at(NOW + DAY)}, None, NOW + DAY),
    ],
)
async def test_sent_at_is_its_own_else_its_batchs_else_now(proxy, own, batch, sent):
    stored = await proxy.event(track(**own), **({} if batch is None else {"sentAt": batch}))
    assert datetime.fromisoformat(stored["sentAt"]).timestamp() * 1000 == pytest.approx(sent)


@pytest.mark.parametrize(
    ("own", "batch", "merged"),
    [
        ({}, {"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}),
        ({"b": {"d": 3}}, {"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"d": 3}}),
        ({"a": None, "b": 5}, {"a": 1}, {"a": 1, "b": 5}),
        ("absent", {"a": 1}, {"a": 1}),
        (None, {"a": 1}, {"a": 1}),
        ({"b": 1}, {}, {"b": 1}),
        ({"b": 1}, None, {"b": 1}),
        ({"b": 1}, [1], {"b": 1}),
        ([1], {"a": 1}, [1]),
        ("absent", None, "absent"),
        (None, None, None),
    ],
)
async def test_a_context_gains_what_its_batchs_has_more(proxy, own, batch, merged):
    event = track() if own == "absent" else track(context=own)
    stored = await proxy.event(event, context=batch)
    assert stored.get("context", "absent") == merged


async def test_a_batchs_null_context_does_not_hinder_stamping(proxy):
    stored = await proxy.event(track(), {"Origin": "https://x.example"}, context=None)
    assert stored["context"]["ip"] == "127.0.0.1"


async def test_merging_leaves_a_contexts_own_spelling_and_duplicates_alone(proxy):
    raw = b'{"n":1.10,"twice":1,"twice":{"x":[ 1e400 ]}}'
    event = b'{"type":"page","userId":"u","context":%b}' % raw
    await proxy.post("/v1/batch", b'{"batch":[%b],"context":{"n":2,"more":3.30}}' % event)
    (stored,) = proxy.stored()
    assert raw[1:] in stored
    assert b'"more":3.30' in stored
    assert stored.count(b'"n":') == 1


async def test_a_write_key_is_removed_however_it_is_spelled(proxy):
    for spelled in (b'"writeKey"', b'"write\\u004bey"', b'"writeKey":1,"writeKey"'):
        raw = b'{"type":"page","userId":"u",%b:"secret"}' % spelled
        await proxy.post("/v1/batch", b'{"batch":[%b]}' % raw)
        (stored,) = proxy.stored()
        assert b"secret" not in stored
        assert "writeKey" not in json.loads(stored)


# --- duplicate keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b'"messageId":"a","messageId":"b"', {"messageId": "b"}),
        (b'"messageId":"a","message\\u0049d":"b"', {"messageId": "b"}),
        (b'"userId":"a","userId":"b"', {"userId": "b"}),
        (b'"type":"track","type":"group"', {"type": "group"}),
        (b'"x":1,"x":2', {"x": 2}),
        (b'"x":1,"\\u0078":2', {"x": 2}),
        (b'"timestamp":"2026-11-22T00:00:00Z","timestamp":"2026-11-23T00:00:00Z"',
         {"originalTimestamp": "2026-11-23T00:00:00Z"}),
        (b'"messageId":"a","messageId":null', {}),
        (b'"originalTimestamp":"2026-11-22T00:00:00Z","originalTimestamp":null',
         {"originalTimestamp": NOW_TEXT}),
        (b'"sentAt":"2026-11-20T00:00:00Z","sentAt":"2026-11-22T00:00:00Z"',
         {"sentAt": "2026-11-22T00:00:00.000Z"}),
        (b'"context":{"a":1},"context":{"b":2}', {"context": {"b": 2}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "more", [b"", b',"writeKey":"k"', b',"sentAt":null', b',"originalTimestamp":""']
)
async def test_of_duplicate_keys_the_last_wins_and_the_proxy_makes_none(
    proxy, fields, more, expected
):
    if more[1:8] in fields:
        more = b""
    raw = b'{"type":"page","userId":"u",%b%b}' % (fields, more)
    answer = await proxy.post("/v1/batch", b'{"batch":[%b]}' % raw)
    assert answer.body == b'{"success":true}'
    (stored,) = proxy.stored()
    assert {key: json.loads(stored)[key] for key in expected} == expected
    before = [key for key, _ in json.loads(raw, object_pairs_hook=list)]
    after = [key for key, _ in json.loads(stored, object_pairs_hook=list)]
    for key in set(after):
        assert after.count(key) <= max(before.count(key), 1), key


# --- age and size -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("original", "sent", "too_old"),
    [
        (at(NOW - 6 * DAY), at(NOW), False),
        (at(NOW - 7 * DAY), at(NOW), False),
        (at(NOW - 7 * DAY - 1), at(NOW), True),
        (at(NOW - 30 * DAY), at(NOW - 25 * DAY), False),  # a wrong clock, but five days of age
        (at(NOW - 8 * DAY), None, True),
        (at(NOW - 8 * DAY), "garbage", True),
        ("1970-01-01T00:00:00Z", at(NOW), True),
        ("2100-01-01T00:00:00Z", at(NOW), False),
        ("garbage", at(NOW), False),
        (at(NOW - 8 * DAY)[:-6], None, True),
        (at(NOW - 6 * DAY)[:-6], None, False),
    ],
)
async def test_age_is_from_the_original_timestamp_to_sent_at(proxy, original, sent, too_old):
    event = track(messageId="m", originalTimestamp=original)
    if sent is not None:
        event["sentAt"] = sent
    if too_old:
        assert await refused(proxy, event) == "too_old"
    else:
        assert (await proxy.event(event))["originalTimestamp"] == original


async def test_an_age_without_its_own_sent_at_is_measured_by_the_batchs(proxy):
    event = track(messageId="m", originalTimestamp=at(NOW - 8 * DAY))
    assert await refused(proxy, event, sentAt=at(NOW)) == "too_old"
    assert await proxy.event(event, sentAt=at(NOW - 2 * DAY))


async def test_size_is_measured_on_what_would_be_sent(proxy_factory):
    proxy = await proxy_factory(validation={"max_event": 1000})
    event = track(messageId="m", originalTimestamp=NOW_TEXT, note="")
    stored = await proxy.event(event)
    room = 1000 - len(json.dumps(stored, separators=(", ", ": ")).encode())
    assert room > 0
    base = len(json.dumps(event).encode()) + len(b'"sentAt":"2026-11-23T15:36:34.379Z",')
    fits = {**event, "messageId": "n", "note": "x" * (1000 - base)}
    await proxy.event(fits)
    over = {**event, "messageId": "o", "note": "x" * (1001 - base)}
    assert await refused(proxy, over) == "event_too_large"


async def test_what_is_removed_does_not_count(proxy_factory):
    proxy = await proxy_factory(validation={"max_event": 1000})
    assert await proxy.event(track(writeKey="k" * 2000))


async def test_what_is_added_counts(proxy_factory):
    proxy = await proxy_factory(validation={"max_event": 1000})
    batch = {"batch": [track()], "context": {"a": "x" * 2000}}
    (rejected,) = (await proxy.post("/v1/batch", batch)).json()["rejected"]
    assert rejected["code"] == "event_too_large"


async def test_an_envelope_that_would_fill_the_memory_is_refused(proxy):
    events = [{"type": "page", "userId": "u"}] * 1000
    answer = await proxy.post("/v1/batch", {"batch": events, "context": {"a": "x" * 80_000}})
    assert (answer.status, answer.code) == (413, "request_too_large")
    answer = await proxy.post("/v1/batch", {"batch": [1] * 1000, "sentAt": "x" * 80_000})
    assert (answer.status, answer.code) == (413, "request_too_large")
    assert proxy.letters() == []


# --- bytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [b"", b',"writeKey":"k"'])
async def test_the_clients_data_arrives_as_it_was_sent(proxy, more):
    data = b'"n":1.10,"big":12345678901234567890,"e":1e400,"u":"\\u00e9\xc3\xa9","esc":"\\/","nest":{"a":1,"a":2}, "sp" : [ 1 , 2 ]'
    raw = b'{"type":"page","userId":"u",%b%b}' % (data, more)
    await proxy.post("/v1/batch", b'{"batch":[%b]}' % raw)
    (stored,) = proxy.stored()
    for field in (b'"n":1.10', b'"big":12345678901234567890', b'"e":1e400', b'[ 1 , 2 ]',
                  b'"u":"\\u00e9\xc3\xa9"', b'"esc":"\\/"', b'"nest":{"a":1,"a":2}'):  # fmt: skip
        assert field in stored


def test_an_event_that_needs_nothing_is_the_very_bytes():
    raw = b'{ "type":"page", "userId":"u","messageId":"m","originalTimestamp":"2026-11-23T15:36:34Z" }'
    event = normalise(raw, Receipt(received=NOW))
    sealed = seal(event, Receipt(received=NOW), max_event=96_000, max_age=DAY)
    assert sealed.body == raw
    assert json.loads(dated(NOW) + sealed.body[1:])["sentAt"] == NOW_TEXT


async def test_blanks_around_a_single_event_do_no_harm(proxy):
    event = track(originalTimestamp=NOW_TEXT)
    await proxy.post("/v1/track", b" \n" + json.dumps(event).encode() + b"\r\n")
    assert [e["messageId"] for e in proxy.events()] == [event["messageId"]]


# --- after mapping ------------------------------------------------------------------------------------


class Mapping:
    """A mapper that does what a test says."""

    revision = "test"
    short_way = None

    def __init__(self, act):
        self._act = act

    def apply(self, event, source):
        return self._act(event)


async def test_verdicts_judge_what_would_be_sent(proxy_factory):
    def act(event):
        event.replace({**event.fields(), "event": b'""'})

    proxy = await proxy_factory(mapper=Mapping(act))
    answer = await proxy.post("/v1/track", track(messageId="m"))
    assert answer.code == "missing_event"
    ((_, _, body),) = proxy.letters()
    assert json.loads(body)["event"] == "Order Completed"


async def test_what_mapping_empties_is_made_up_again(proxy_factory):
    def act(event):
        event.replace({**event.fields(), "messageId": b'""', "originalTimestamp": b"null"})

    proxy = await proxy_factory(mapper=Mapping(act))
    stored = await proxy.event(track())
    assert UUID(stored["messageId"])
    assert stored["originalTimestamp"] == stored["timestamp"]


async def test_a_filtered_event_is_answered_200_and_counted(proxy_factory):
    proxy = await proxy_factory(mapper=Mapping(lambda event: Filtered("bots")))
    for path, body in [("/v1/track", track()), ("/v1/batch", {"batch": [track(), track()]})]:
        assert (await proxy.post(path, body)).body == b'{"success":true}'
    assert proxy.events() == []
    assert proxy.metrics.totals()["filtered"] == 3


async def test_what_mapping_refuses_is_quarantined_as_received(proxy_factory):
    proxy = await proxy_factory(mapper=Mapping(lambda event: Refusal("bad_type", "no")))
    raw = json.dumps(track(messageId="m")).encode()
    answer = await proxy.post("/v1/track", raw)
    assert (answer.status, answer.code) == (400, "bad_type")
    assert proxy.letters() == [("bad_type", "m", raw)]


async def test_a_mistake_of_ours_is_answered_500_so_that_browsers_repeat(proxy_factory, caplog):
    def act(event):
        raise RuntimeError("a mistake")

    proxy = await proxy_factory(mapper=Mapping(act))
    answer = await proxy.post("/v1/track", track(), {"Origin": "https://x.example"})
    assert (answer.status, answer.code) == (500, "internal_error")
    assert "access-control-allow-origin" not in answer.headers
    assert "a mistake" in caplog.text
    assert "Order Completed" not in caplog.text


async def test_everything_is_counted(proxy):
    await proxy.post("/v1/batch", {"batch": [track(messageId="a"), track(messageId="a"), 5]})
    await proxy.post("/v1/page", {"userId": "u"})
    await proxy.post("/v1/track", {"type": "odd", "userId": "u"})
    counted = proxy.metrics.totals()
    assert {k: counted[k] for k in ("received", "accepted", "duplicates", "quarantined")} == {
        "received": 5,
        "accepted": 2,
        "duplicates": 1,
        "quarantined": 2,
    }
    samples = {
        (sample.labels["source"], sample.labels["type"]): sample.value
        for metric in proxy.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "edgeproxy_events_received_total"
    }
    assert samples == {("site", "track"): 2, ("site", "page"): 1, ("site", "other"): 2}


# --- the lens ---------------------------------------------------------------------------------------


def test_a_field_beyond_pythons_numbers_is_there_by_its_spelling():
    lens = Event(b'{"userId":1e400,"context":{"a":1e400},"properties":{},"traits":1e400}').lens
    assert lens.userId == "1e400"
    assert bytes(lens.context) == b'{"a":1e400}'
    assert bytes(lens.properties) == b"{}"
    assert bytes(lens.traits) == b"1e400"


def test_what_is_no_event_says_so():
    for raw in (b"5", b"null", b"[]", b"1e400"):
        with pytest.raises(NotAnObjectError):
            Event(raw)
    deep = b'{"type":1e400,"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    for raw in (b"", b"{", b'{"a":NaN}', b'{"type":1e400,"a":NaN}', deep):
        with pytest.raises(UndecodableError):
            Event(raw)


def test_a_refusal_says_nothing_of_the_event():
    raw = b'{"type":"page","secret":"\xff"}'
    refusal = normalise(raw, Receipt(received=NOW), is_utf8=False)
    assert isinstance(refusal, Refusal)
    assert "secret" not in refusal.message


def test_the_user_is_the_anonymous_id_else_the_user_id():
    both = user_of(Lens(anonymousId="a", userId="u"))
    assert both == user_of(Lens(anonymousId="a", userId="v")) == user_of(Lens(anonymousId="a"))
    assert user_of(Lens(anonymousId="", userId="u")) == user_of(Lens(userId="u")) != both


@pytest.mark.parametrize(
    ("event", "around", "ahead"),
    [
        ({"timestamp": "2026-11-24T15:36:34.379Z"}, {}, 86_400),
        ({"timestamp": "2026-11-23T15:39:34.379Z"}, {}, None),  # three minutes
        ({"timestamp": "2026-11-22T15:36:34.379Z"}, {}, None),  # old, which is no wrong clock
        ({"timestamp": "2026-11-24T15:36:34.379Z"}, {"sentAt": "2026-11-24T15:36:34.379Z"}, 86_400),
        ({"timestamp": "2026-11-24T15:36:34.379Z"}, {"sentAt": "2026-11-23T15:36:34.379Z"}, None),
    ],
)
async def test_a_clock_that_is_ahead_shows_without_a_sent_at_too(proxy, event, around, ahead):
    await proxy.event(track(**event), **around)
    skews = proxy.metrics.clock_skews()
    assert skews == ({} if ahead is None else {"site": pytest.approx(ahead)})
