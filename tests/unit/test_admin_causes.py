"""Each cause is told in words, with what to do, and the worst comes first."""

import pytest

from edgeproxy.admin.causes import cause, findings


def status(**changes: object) -> dict[str, object]:
    lane = {"name": "site", "state": "ok", "reason": None}
    return {
        "buffer": {"events": 0, "oldest_age_seconds": None},
        "lanes": [lane],
        "not_ready": None,
    } | changes


def test_a_healthy_proxy_has_nothing_to_say():
    assert findings(status(), {}, {}) == []


def test_lanes_that_fail_alike_are_told_together():
    lanes = [{"name": name, "state": "backing_off", "reason": "timeout"} for name in "abc"]
    (found,) = findings(status(lanes=lanes), {}, {})
    assert found.title.endswith("from a, b and c")


def test_the_worst_comes_first():
    found = findings(
        status(not_ready="buffer is full"),
        {("skewed", "site"): 2, ("quarantined", "site", "missing_event"): 3},
        {"clock:site": {"seconds": -86_400.0}},
    )
    assert [one.level for one in found] == ["outage", "trouble", "notice"]
    assert "1 day behind" in found[2].title


@pytest.mark.parametrize(("age", "level"), [(2.0, "trouble"), (60.0, "outage")])
def test_a_lane_that_tries_again_is_an_outage_once_events_wait(age, level):
    lane = {"name": "site", "state": "backing_off", "reason": "http_503"}
    waiting = {"events": 5, "oldest_age_seconds": age}
    (found,) = findings(status(lanes=[lane], buffer=waiting), {}, {})
    assert found.level == level
    assert "5 events wait on disk" in found.words


def test_a_parked_lane_is_an_outage_at_once():
    lane = {"name": "site", "state": "parked", "reason": "http_401"}
    (found,) = findings(status(lanes=[lane]), {}, {})
    assert found.level == "outage"
    assert "write_key" in found.remedy


def test_a_wrong_key_tells_who_sent_it():
    last = {"unknown_key": {"origin": "", "agent": "curl/8", "address": "192.0.2.7", "age": 1.0}}
    (found,) = findings(status(), {("refused", "unknown_key"): 1}, last)
    assert "from 192.0.2.7 by curl/8" in found.words
    assert found.view == "setup"


def test_scanners_are_not_worth_a_word():
    assert findings(status(), {("refused", "not_found"): 500}, {}) == []


@pytest.mark.parametrize(("age", "count"), [(5.0, 1), (300.0, 0)])
def test_a_request_that_found_no_room_counts_for_a_minute(age, count):
    last = {"buffer_full": {"age": age, "message": "source a has reached its share"}}
    assert len(findings(status(), {}, last)) == count


def test_a_code_that_a_filter_made_up_is_told_too():
    assert "my_code" in cause("my_code").words
