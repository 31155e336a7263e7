"""Requests opened: the common way, and the way for bodies in which something is broken."""

import resource
import time
import tracemalloc

import pytest

from edgeproxy.events.envelope import (
    MAX_DEPTH,
    MAX_EVENTS,
    InvalidEnvelopeError,
    InvalidJSONError,
    open_batch,
    open_single,
)


def events(body):
    return [bytes(event) for event in open_batch(body).events]


def nested(depth, inner=b""):
    return b"[" * depth + inner + b"]" * depth


def test_events_are_the_bytes_that_were_sent():
    body = b'{"batch" : [ {"a": 1.10 ,"b":"\\u00e9"}  ,\t5,null , "x"]\n, "other": 1}'
    assert events(body) == [b'{"a": 1.10 ,"b":"\\u00e9"}', b"5", b"null", b'"x"']


def test_a_broken_event_leaves_the_others_as_they_were_sent():
    body = b'{"writeKey":"k","batch":[{"a": NaN},{"b":"\xff"},{"c":"\\ud800"}, {"d": 1.10}],"sentAt":"s"}'
    envelope = open_batch(body)
    assert envelope.events == [b'{"a": NaN}', b'{"b":"\xff"}', b'{"c":"\\ud800"}', b'{"d": 1.10}']
    assert (envelope.write_key, envelope.sent_at, envelope.is_utf8) == ("k", "s", False)


@pytest.mark.parametrize("batch", [b'{"a":1}', b'{"a":NaN}'])
def test_both_ways_open_an_envelope_alike(batch):
    body = b' {"context":{"a":1,"a":2},"sentAt":5,"batch":[%b],"writeKey":"k","x":[1]} ' % batch
    envelope = open_batch(body)
    assert [bytes(event) for event in envelope.events] == [batch]
    assert (envelope.context, envelope.sent_at, envelope.write_key) == (b'{"a":1,"a":2}', 5, "k")


@pytest.mark.parametrize("context", [b"null", b"[]", b'"x"', b"5"])
def test_a_context_that_is_no_object_counts_as_none(context):
    assert open_batch(b'{"batch":[],"context":%b}' % context).context is None


def test_escaped_keys_are_the_same_keys():
    for event in (b"1", b"NaN"):
        envelope = open_batch(b'{"ba\\u0074ch":[%b],"write\\u004bey":"k"}' % event)
        assert ([bytes(e) for e in envelope.events], envelope.write_key) == ([event], "k")


def test_of_duplicate_keys_the_last_counts():
    envelope = open_batch(b'{"batch":[1],"writeKey":"a","batch":[2,3],"writeKey":"b"}')
    assert [bytes(event) for event in envelope.events] == [b"2", b"3"]
    assert envelope.write_key == "b"


def test_long_numbers_in_a_broken_body_are_no_mistake():
    number = b"9" * 5000
    assert events(b'{"batch":[%b,NaN]}' % number) == [number, b"NaN"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"batch":[NaN],"context":{"a":NaN}}', InvalidJSONError),
        (b'{"batch":[1],"x":"\xff"}', InvalidJSONError),
        (b'{"batch":[NaN]} x', InvalidJSONError),
        (b'{"batch":[NaN],}', InvalidJSONError),
        (b'{"batch":[NaN,]}', InvalidJSONError),
        (b'{"batch":[NaN', InvalidJSONError),
        (b'{"batch":[{"a":01}]}', InvalidJSONError),
        (b"\xef\xbb\xbf{}", InvalidJSONError),
        (b'["\xff"]', InvalidJSONError),
        (b'{"batch":{"a":NaN}}', InvalidEnvelopeError),
        (b'{"a":NaN}', InvalidEnvelopeError),
    ],
)
def test_what_is_broken_around_the_events_breaks_the_request(body, error):
    with pytest.raises(error):
        open_batch(body)


@pytest.mark.parametrize("opener", [open_batch, open_single])
@pytest.mark.parametrize(
    "body", [b'{"batch":[NaN],"secret":tru}', b'{"secret', b'{"secret":"\xff"', b'"secret" x']
)
def test_messages_hold_nothing_of_the_body(opener, body):
    with pytest.raises((InvalidJSONError, InvalidEnvelopeError)) as caught:
        opener(body)
    assert "secret" not in str(caught.value)


def test_too_many_events_are_refused():
    assert len(open_batch(b'{"batch":[%b]}' % b",".join([b"1"] * MAX_EVENTS)).events) == MAX_EVENTS
    with pytest.raises(InvalidEnvelopeError):
        open_batch(b'{"batch":[%b]}' % b",".join([b"1"] * (MAX_EVENTS + 1)))


@pytest.mark.parametrize("item", [b"1", b"[]", b"NaN", b'"ab"', b'{"a":1}'])
def test_far_too_many_events_are_refused_before_they_become_objects(item):
    body = b'{"batch":[%b]}' % b",".join([item] * (2_000_000 // (len(item) + 1)))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidEnvelopeError):
            open_batch(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(body)


def test_many_commas_within_events_are_no_events():
    event = b'{"a":[%b]}' % b",".join([b"1"] * MAX_EVENTS)
    assert events(b'{"batch":[%b,%b]}' % (event, event)) == [event, event]


# --- depth --------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [b"1", b"NaN"], ids=["sound", "broken"])
@pytest.mark.parametrize(
    "shape",
    [
        b'{"batch":[%b,OTHER]}',
        b'{"batch":[OTHER,{"a":"]]}}","b":%b}]}',
        b'{"batch":[OTHER,{"context":{"a":%b}}]}',
        b'{"batch":[OTHER],"context":{"a":%b}}',
        b'{"batch":[OTHER],"x":%b}',
        b'{"x":%b,"batch":[OTHER]}',
    ],
)
def test_the_bound_on_depth_holds_everywhere(shape, other):
    around = shape.partition(b"%b")[0]
    in_strings = 4 if b"]]}}" in around else 0
    opened = around.count(b"{") + around.count(b"[")
    closed = around.count(b"]") + around.count(b"}") - in_strings
    deepest = MAX_DEPTH - (opened - closed)
    shape = shape.replace(b"OTHER", other)
    open_batch(shape % nested(deepest))
    with pytest.raises(InvalidJSONError):
        open_batch(shape % nested(deepest + 1))


def test_the_bound_on_depth_holds_for_single_events():
    open_single(b'{"a":%b}' % nested(MAX_DEPTH - 1))
    open_single(b'{"a":NaN,"b":%b}' % nested(MAX_DEPTH - 1))
    for body in (b'{"a":%b}', b'{"a":NaN,"b":%b}'):
        with pytest.raises(InvalidJSONError):
            open_single(body % nested(MAX_DEPTH))


def test_brackets_within_strings_are_no_depth():
    text = b'"' + b'[{\\"[\\\\' * 500 + b'"'
    open_single(b'{"a":%b}' % text)
    open_batch(b'{"batch":[{"a":%b}],"x":%b}' % (text, text))


@pytest.mark.timeout(10)
def test_depth_beyond_all_bounds_is_refused_at_once():
    for text in (b"[" * 10**6, b'{"a":' * 10**6, nested(10**6)):
        for body in (text, b'{"batch":[%b]}' % text, b'{"batch":[NaN,%b]}' % text):
            for opener in (open_single, open_batch):
                with pytest.raises((InvalidJSONError, InvalidEnvelopeError)):
                    opener(body)


@pytest.mark.timeout(20)
def test_counting_depth_takes_little_time_and_memory():
    """A pattern that can go back would hold 100 bytes for every character of a string."""
    texts = [b"a" * 4_000_000, b"\\n" * 2_000_000, b'","' * 1_300_000]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for text in texts:
        started = time.perf_counter()
        open_single(b'["' + text + b'"' + b",[]" * 200 + b"]")
        assert time.perf_counter() - started < 5
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150 * 1024  # KiB


# --- single events --------------------------------------------------------------------------------


def test_blanks_around_a_single_event_are_not_part_of_it():
    assert open_single(b' \r\n\t{"a":1}\n ').events == [b'{"a":1}']


def test_a_single_event_with_something_broken_is_left_to_its_verdict():
    for body in (b'{"a":NaN,"writeKey":"k"}', b'{"a":"\xff","writeKey":"k"}'):
        envelope = open_single(body)
        assert (envelope.events, envelope.write_key, envelope.is_utf8) == ([body], "k", False)


@pytest.mark.parametrize(
    "body", [b"", b" ", b"[1,2", b"5 6", b'{"a"', b"nul", b'{"a":1}}', b"\xff"]
)
def test_a_single_event_that_is_no_json_is_refused(body):
    with pytest.raises(InvalidJSONError):
        open_single(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a":}', "expecting value at character 5"),
        (b'{"a":"', "unterminated string starting at character 5"),
    ],
)
def test_what_is_no_json_is_told_with_its_place_once(body, words):
    with pytest.raises(InvalidJSONError) as caught:
        open_single(body)
    assert str(caught.value) == words
