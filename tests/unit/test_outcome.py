"""What each answer means."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.delivery.outcome import RETRY_AFTER_CAP, Answer, judge, retry_after_seconds

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def verdict(status):
    return judge(Answer(status, f"http_{status}"), NOW).verdict


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_2xx_is_delivered(status):
    assert verdict(status) == "delivered"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 507, 520, 529, 599])
def test_what_may_pass_is_tried_again(status):
    assert verdict(status) == "retry"


@pytest.mark.parametrize("reason", ["timeout", "connect", "disconnected", "unreadable", "tls"])
def test_no_answer_is_tried_again(reason):
    assert judge(Answer(None, reason), NOW).verdict == "retry"


@pytest.mark.parametrize("status", [100, 101, 199, 600, 999])
def test_a_status_that_makes_no_sense_is_tried_again(status):
    assert verdict(status) == "retry"


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 300, 301, 302, 303, 304, 307, 308])
def test_what_only_the_operator_can_mend_parks(status):
    assert verdict(status) == "park"


@pytest.mark.parametrize(
    "status", [400, 402, 406, 407, 409, 411, 412, 413, 414, 415, 418, 422, 426, 431, 451, 499]
)
def test_every_other_4xx_is_a_refusal_of_the_events(status):
    assert verdict(status) == "refuse"


def test_every_status_has_an_outcome():
    assert {verdict(status) for status in range(1000)} == {"delivered", "retry", "park", "refuse"}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("3600", 3600.0),
        ("3601", RETRY_AFTER_CAP),
        ("9" * 400, RETRY_AFTER_CAP),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("NaN", None),
        ("inf", None),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 12:00:00 GMT", RETRY_AFTER_CAP),
        ("Mon, 23 Nov 2026 13:01:00 +0100", 60.0),
        ("Mon, 23 Nov 2026 12:01:00", 60.0),
        ("Monday, 23-Nov-26 12:00:30 GMT", 30.0),
        ("Mon Nov 23 12:00:30 2026", 30.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_CAP),
        ("Mon, 99 Foo 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    assert retry_after_seconds(value, NOW) == seconds


def test_retry_after_goes_with_what_is_tried_again_only():
    assert judge(Answer(503, "http_503", retry_after="7"), NOW).retry_after == 7.0
    assert judge(Answer(401, "http_401", retry_after="7"), NOW).retry_after is None


@given(st.text())
def test_no_retry_after_raises_or_leaves_its_bounds(value):
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_CAP


@given(st.timedeltas(min_value=timedelta(days=-999), max_value=timedelta(days=999)))
def test_a_date_is_as_far_as_it_is_capped(ahead):
    value = format_datetime(NOW + ahead, usegmt=True)
    seconds = retry_after_seconds(value, NOW)
    assert seconds == min(max(ahead // timedelta(seconds=1), 0), RETRY_AFTER_CAP)
