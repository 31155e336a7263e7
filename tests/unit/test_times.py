"""Times as SDKs write them."""

import pytest

from edgeproxy.events.times import parse_time, rfc3339

NOON = 1_795_435_200_000  # 2026-11-23T12:00:00Z


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-23T12:00:00Z", NOON),
        ("2026-11-23T12:00:00.5Z", NOON + 500),
        ("2026-11-23T12:00:00.123Z", NOON + 123),
        ("2026-11-23T12:00:00.123456Z", NOON + 123),
        ("2026-11-23T12:00:00.123999999Z", NOON + 123),
        ("2026-11-23T12:00:00", NOON),
        ("2026-11-23T12:00:00.123456", NOON + 123),
        ("2026-11-23 12:00:00", NOON),
        ("2026-11-23T14:00:00+02:00", NOON),
        ("2026-11-23T14:00:00+0200", NOON),
        ("2026-11-23T06:30:00-05:30", NOON),
        ("2026-11-23t12:00:00z", NOON),
        (" 2026-11-23T12:00:00Z ", NOON),
        ("2026-11-23", NOON - 12 * 3_600_000),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2100-01-01T00:00:00Z", 4_102_444_800_000),
        (str(NOON), NOON),
        (str(NOON // 1000), NOON),
        (NOON, NOON),
        (NOON // 1000, NOON),
        (NOON / 1000 + 0.25, NOON + 250),
        (0, 0),
    ],
)
def test_every_way_to_write_a_time_is_read(text, ms):
    assert parse_time(text) == ms


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, "", " ", "yesterday", "2026-W48-1", "20261123T120000Z", "2026-13-01",
        "2026-02-30T00:00:00Z", "2026-11-23T25:00:00Z", "12:00:00", "Mon, 23 Nov 2026", [], {},
        float("inf"), float("nan"), 10**30, -(10**30), "9" * 400, "١٢٣", "2026-11-23T12:00:00Zx",
    ],
)  # fmt: skip
def test_what_is_no_time_is_none(value):
    assert parse_time(value) is None


def test_times_are_written_with_milliseconds():
    assert rfc3339(NOON + 7) == b"2026-11-23T12:00:00.007Z"
    assert rfc3339(-1) == b"1969-12-31T23:59:59.999Z"


def test_times_that_no_calendar_has_are_clamped():
    assert rfc3339(10**18) == b"9999-12-31T23:59:59.999Z"
    assert rfc3339(-(10**18)) == b"0001-01-01T00:00:00.000Z"
