"""The oracle notices what it is there to notice."""

import json

import pytest

from tests.e2e.oracle import Request, Sent, check, sent_events, write_key

TIME = "2026-11-23T15:00:00.000Z"
LATER = "2026-11-23T15:00:01.500Z"
EVENT = (
    b'{"type":"track","messageId":"m1","event":"Order Completed","userId":"u1",'
    b'"timestamp":"2026-11-23T15:00:00.000Z","properties":{"total":1.10,"name":"Zo\\u00eb"},'
    b'"context":{"library":{"name":"events-sdk-python"}},"writeKey":"k"}'
)
ARRIVED = EVENT.replace(b',"writeKey":"k"', b"").replace(
    b"}}}", f'}}}},"originalTimestamp":"{TIME}","sentAt":"{LATER}"}}'.encode()
)


def request(*events: bytes, **headers: str) -> Request:
    body = b'{"sentAt":"%b","batch":[%b]}' % (TIME.encode(), b",".join(events))
    return Request("POST", "/v1/batch", "", list(headers.items()), body)


def sent(event: bytes = EVENT, **headers: str) -> Sent:
    return sent_events([request(event, **headers)])[0]


def test_an_event_that_arrives_as_the_contract_says_passes():
    check(sent(), ARRIVED)


@pytest.mark.parametrize(
    ("was", "became"),
    [
        (b'"total":1.10', b'"total":1.1'),
        (b"Zo\\u00eb", "Zoë".encode()),
        (b'"userId":"u1",', b""),
        (b'"userId":"u1",', b'"userId":"u1","added":1,'),
        (b'"messageId":"m1"', b'"messageId":"m2"'),
        (b'"originalTimestamp":"2026-11-23T15:00:00', b'"originalTimestamp":"2026-11-23T15:00:01'),
        (b'"sentAt":"2026-11-23T15:00:01', b'"sentAt":"2026-11-23T14:59:59'),
        (b'"sentAt":"2026-11-23T15:00:01', b'"sentAt":"2026-11-23T15:10:00'),
        (b'"context":{', b'"context":{"ip":"127.0.0.1",'),
        (b'"context":{"library":{"name":"events-sdk-python"}}', b'"context":{}'),
    ],
)
def test_an_event_that_was_changed_does_not(was, became):
    assert was in ARRIVED
    with pytest.raises(AssertionError):
        check(sent(), ARRIVED.replace(was, became, 1))


def test_what_a_browser_sends_must_gain_its_address_and_agent():
    with pytest.raises(AssertionError):
        check(sent(Origin="https://shop.example", **{"User-Agent": "Browser"}), ARRIVED)


def test_a_repeat_counts_once():
    assert len(sent_events([request(EVENT, EVENT), request(EVENT)])) == 1


def test_the_write_key_is_found_where_sdks_put_it():
    assert write_key(request(EVENT)) == "k"
    assert write_key(request(EVENT, Authorization="Basic YmFzaWM6")) == "basic"
    body = json.dumps({"batch": [{"type": "page"}]}).encode()
    assert write_key(Request("POST", "/beacon/v1/batch", "writeKey=q", [], body)) == "q"
