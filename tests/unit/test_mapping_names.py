"""edgeproxy.mapping.names: the e-commerce preset in every spelling, exact names, patterns."""

import json

import pytest

from edgeproxy.events import Event
from edgeproxy.mapping import compile_mapping
from edgeproxy.mapping.names import matcher, squeeze

STANDARD = (
    "Cart Viewed", "Checkout Started", "Coupon Entered", "Order Canceled", "Order Completed",
    "Order Refunded", "Order Updated", "Payment Info Entered", "Product Added",
    "Product Added To Wishlist", "Product Clicked", "Product List Viewed", "Product Removed",
    "Product Viewed", "Products Searched", "Promotion Clicked", "Promotion Viewed",
)  # fmt: skip


def spellings(name: str) -> list[str]:
    words = name.split(" ")
    lower = [word.lower() for word in words]
    return [
        name,
        name.lower(),
        name.upper(),
        name.capitalize(),
        "_".join(lower),
        "_".join(words),
        "-".join(lower),
        "-".join(words).upper(),
        "_".join(words).upper(),
        ".".join(lower),
        "".join(lower),
        "".join(words),
        lower[0] + "".join(words[1:]),
        f" {name} ",
        "  ".join(words),
    ]


def sent(mapping: dict, name: object, kind: str = "track") -> object:
    event = Event(json.dumps({"type": kind, "userId": "u", "event": name}).encode())
    assert compile_mapping(mapping).apply(event, "default") is None
    return json.loads(event.body()).get("event")


@pytest.mark.parametrize(
    ("spelled", "name"),
    [(spelled, name) for name in STANDARD for spelled in spellings(name)],
)
def test_a_standard_event_in_any_spelling_is_sent_under_its_standard_name(spelled, name):
    assert sent({"preset": "ecommerce"}, spelled) == name


def test_the_preset_has_exactly_the_seventeen_names():
    rules = compile_mapping({"preset": "ecommerce"})._mapping.events
    assert sorted(rule.title for rule in rules) == sorted(STANDARD)
    assert len(STANDARD) == 17


def test_the_british_spelling_is_known():
    assert sent({"preset": "ecommerce"}, "order_cancelled") == "Order Canceled"


@pytest.mark.parametrize(
    "name", ["Order", "Order Completed Twice", "xOrder Completed", "custom_event", "", "Größe"]
)
def test_other_events_keep_their_names(name):
    assert sent({"preset": "ecommerce"}, name) == name


@pytest.mark.parametrize("kind", ["page", "screen", "identify", "group", "alias"])
def test_only_track_events_are_named(kind):
    assert sent({"preset": "ecommerce"}, "order_completed", kind) == "order_completed"


def test_a_standard_name_leaves_the_event_as_it_came():
    raw = b'{ "type":"track", "userId":"u", "event":"Order Completed" }'
    event = Event(raw)
    compile_mapping({"preset": "ecommerce"}).apply(event, "default")
    assert event.body() is raw


def test_without_a_preset_no_event_is_renamed():
    assert sent({}, "order_completed") == "order_completed"


def test_a_rule_matches_exact_names_and_patterns_and_sends_a_constant():
    mapping = {"event": {"Purchase": {"match": ["buy", "purchase_*", "b?y"], "event": "Order"}}}
    for name in ("buy", "purchase_", "purchase_now", "boy"):
        assert sent(mapping, name) == "Order"
    for name in ("Buy", "xbuy", "purchase", "booy", "Purchase"):
        assert sent(mapping, name) == name


def test_a_rule_without_match_names_its_own_event():
    mapping = {"event": {"Sign Up": {"event": "Signed Up"}}}
    assert sent(mapping, "Sign Up") == "Signed Up"
    assert sent(mapping, "sign up") == "sign up"


def test_a_rule_without_event_sends_its_own_name():
    assert sent({"event": {"Signed Up": {"match": ["~sign up"]}}}, "SIGN_UP") == "Signed Up"


def test_brackets_in_a_pattern_are_brackets():
    mapping = {"event": {"Step": {"match": ["step[1]*"]}}}
    assert sent(mapping, "step[1] done") == "Step"
    assert sent(mapping, "step1 done") == "step1 done"


def test_exact_names_win_over_spellings_and_these_over_patterns():
    mapping = {
        "event": {
            "Pattern": {"match": ["*"]},
            "Spelled": {"match": ["~sign up"]},
            "Exact": {"match": ["sign_up"]},
        }
    }
    assert sent(mapping, "sign_up") == "Exact"
    assert sent(mapping, "Sign Up") == "Spelled"
    assert sent(mapping, "other") == "Pattern"


def test_a_sites_rule_for_a_preset_event_keeps_the_presets_spellings():
    mapping = {
        "preset": "ecommerce",
        "event": {"Order Completed": {"match": ["bezahlt"], "properties.shop": {"value": "de"}}},
    }
    event = Event(b'{"type":"track","userId":"u","event":"order_completed"}')
    compile_mapping(mapping).apply(event, "default")
    assert json.loads(event.body())["properties"] == {"shop": "de"}
    assert sent(mapping, "bezahlt") == "Order Completed"


def test_a_sites_rule_may_send_a_preset_event_under_another_name():
    mapping = {"preset": "ecommerce", "event": {"Order Completed": {"event": "Purchase"}}}
    assert sent(mapping, "order_completed") == "Purchase"


def test_a_name_that_is_no_text_has_no_rule():
    for name in (5, None, ["Order Completed"], {"a": 1}):
        assert sent({"preset": "ecommerce", "event": {"X": {"match": ["*"]}}}, name) in (name, "5")


def test_so_many_names_that_memory_could_fill_are_still_mapped():
    mapper = compile_mapping({"preset": "ecommerce"})
    for number in range(10_000):
        mapper.apply(Event(b'{"type":"track","userId":"u","event":"e%d"}' % number), "default")
    assert len(mapper._found) <= 4096
    long = Event(b'{"type":"track","userId":"u","event":"%b"}' % (b"x" * 5000))
    mapper.apply(long, "default")
    assert "x" * 5000 not in mapper._found


def test_squeezing_a_name_leaves_its_letters_and_digits():
    assert squeeze("Order-Completed_2 (new)") == "ordercompleted2new"


def test_a_matcher_takes_names_as_settings_have_them():
    matches = matcher(["exact", "~any case", "pre*"])
    assert [name for name in ("exact", "Exact", "ANY_CASE", "prefix", "xpre") if matches(name)] == [
        "exact", "ANY_CASE", "prefix",
    ]  # fmt: skip
