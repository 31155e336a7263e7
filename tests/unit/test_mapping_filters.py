"""edgeproxy.mapping.filters: drop, keep, sample, dead letters, consent."""

import json

import pytest

from edgeproxy.events import Event, Refusal
from edgeproxy.events.verdicts import Filtered
from edgeproxy.mapping import compile_mapping
from edgeproxy.mapping.filters import share_of


def verdict(row: dict, source: str = "web", **fields: object) -> object:
    event = {"type": "track", "event": "Noise", "anonymousId": "a"} | fields
    return compile_mapping({}, [row]).apply(Event(json.dumps(event).encode()), source)


DROPPED = Filtered("filter 1")


def test_drop_ends_the_events_that_it_speaks_of():
    row = {"action": "drop", "match": ["Noise", "debug_*"]}
    assert verdict(row) == DROPPED
    assert verdict(row, event="debug_x") == DROPPED
    assert verdict(row, event="noise") is None
    assert verdict(row, type="page", event=None) is None


def test_everything_that_a_filter_asks_has_to_be_so():
    row = {
        "action": "drop",
        "match": "Noise",
        "sources": "web",
        "types": "track",
        "when": "userId == null",
    }
    assert verdict(row) == DROPPED
    assert verdict(row, source="app") is None
    assert verdict(row, userId="u") is None
    assert verdict(row, type="screen") is None


def test_keep_ends_all_others():
    row = {"action": "keep", "types": ["track", "identify"]}
    assert verdict(row) is None
    assert verdict(row, type="page") == DROPPED


def test_dead_letters_refuses_with_the_filters_name():
    row = {"name": "odd totals", "action": "dead_letters", "when": "properties.total < 0"}
    assert verdict(row, properties={"total": 1}) is None
    refusal = verdict(row, properties={"total": -1})
    assert refusal == Refusal("set_aside", "the filter 'odd totals' sets it aside")


def test_the_first_filter_that_ends_an_events_way_has_decided():
    mapper = compile_mapping(
        {},
        [
            {"name": "one", "action": "drop", "match": ["Other"]},
            {"name": "two", "action": "drop", "match": ["Noise"]},
            {"name": "three", "action": "drop", "match": ["Noise"]},
        ],
    )
    event = Event(b'{"type":"track","event":"Noise","userId":"u"}')
    assert mapper.apply(event, "web") == Filtered("two")


@pytest.mark.parametrize("action", ["drop", "keep", "dead_letters"])
def test_a_condition_that_fails_lets_the_event_pass_and_counts(action):
    mapper = compile_mapping(
        {}, [{"name": "broken", "action": action, "when": "properties.total > 1"}]
    )
    assert mapper.apply(Event(b'{"type":"page","userId":"u"}'), "web") is None
    assert mapper.counters.expression_failed == {"broken": 1}


def test_filters_see_the_event_as_it_came():
    mapper = compile_mapping(
        {"global": {"properties.total": {"value": 0}}, "preset": "ecommerce"},
        [
            {
                "name": "f",
                "action": "drop",
                "match": ["order_completed"],
                "when": "properties.total > 1",
            }
        ],
    )
    raw = b'{"type":"track","event":"order_completed","userId":"u","properties":{"total":5}}'
    assert mapper.apply(Event(raw), "web") == Filtered("f")


# --- sampling ---


def test_sampling_keeps_the_share_that_was_asked_for():
    mapper = compile_mapping({}, [{"action": "sample", "rate": 0.25}])
    kept = sum(
        mapper.apply(Event(b'{"type":"page","anonymousId":"user-%d"}' % n), "web") is None
        for n in range(4000)
    )
    assert 0.22 < kept / 4000 < 0.28


def test_a_user_is_in_or_out_as_a_whole():
    mapper = compile_mapping({}, [{"action": "sample", "rate": 0.5}])
    for n in range(50):
        verdicts = {
            str(
                mapper.apply(
                    Event(b'{"type":"%b","anonymousId":"u%d","x":%d}' % (kind, n, x)), source
                )
            )
            for kind in (b"page", b"track", b"identify")
            for x in range(3)
            for source in ("web", "app")
        }
        assert len(verdicts) == 1


def test_a_users_place_is_the_same_everywhere_and_for_ever():
    # Written down, so that no version of anything can change who is in.
    assert share_of(Event(b'{"anonymousId":"a"}')) == pytest.approx(PLACES["a"])
    assert share_of(Event(b'{"anonymousId":null,"userId":"a"}')) == pytest.approx(PLACES["a"])
    assert share_of(Event(b'{"anonymousId":"b","userId":"a"}')) == pytest.approx(PLACES["b"])
    assert share_of(Event(b'{"anonymousId":7}')) == share_of(Event(b'{"anonymousId":"7"}'))


PLACES = {"a": 0.2537936105758485, "b": 0.5173761181772721}


def test_all_or_none_can_be_kept():
    event = b'{"type":"page","anonymousId":"%d"}'
    everyone = compile_mapping({}, [{"action": "sample", "rate": 1}])
    nobody = compile_mapping({}, [{"action": "sample", "rate": 0}])
    for n in range(100):
        assert everyone.apply(Event(event % n), "web") is None
        assert nobody.apply(Event(event % n), "web") == DROPPED


def test_only_the_events_that_a_sample_speaks_of_are_sampled():
    row = {"action": "sample", "rate": 0, "match": ["Scrolled"]}
    assert verdict(row, event="Scrolled") == DROPPED
    assert verdict(row, event="Clicked") is None


def test_an_event_of_nobody_is_not_sampled_away():
    assert verdict({"action": "sample", "rate": 0.0001}, anonymousId=None) is None


# --- consent ---

CONSENT = {"name": "consent", "require": ["analytics", "ads"]}


@pytest.mark.parametrize(
    "preferences",
    [
        None, {}, [], "yes", {"analytics": True}, {"analytics": True, "ads": False},
        {"analytics": True, "ads": "true"}, {"analytics": True, "ads": 1}, {"analytics": True, "ads": None},
    ],
)  # fmt: skip
def test_without_consent_to_every_category_the_event_is_dropped(preferences):
    context = {"consent": {"categoryPreferences": preferences}}
    assert verdict(CONSENT, context=context) == Filtered("consent")


def test_with_consent_the_event_goes_on():
    preferences = {"analytics": True, "ads": True, "other": False}
    assert verdict(CONSENT, context={"consent": {"categoryPreferences": preferences}}) is None


def test_no_consent_at_all_is_no_consent():
    assert verdict(CONSENT) == Filtered("consent")
    assert verdict(CONSENT, context=None) == Filtered("consent")
    assert verdict(CONSENT, context="text") == Filtered("consent")


def test_consent_may_be_asked_of_some_events_only():
    row = {"require": ["ads"], "match": ["Promotion *"]}
    assert verdict(row, event="Promotion Clicked") == DROPPED
    assert verdict(row, event="Order Completed") is None


def test_missing_consent_may_send_events_to_the_dead_letters():
    found = verdict({"require": ["ads"], "action": "dead_letters"})
    assert isinstance(found, Refusal)
