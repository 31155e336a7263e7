"""The demo's visitors: every type, every standard name, and nothing that Hightouch would block."""

from itertools import islice
from random import Random

from edgeproxy.demo.traffic import journeys

STANDARD_NAMES = {
    "Cart Viewed",
    "Checkout Started",
    "Coupon Entered",
    "Order Canceled",
    "Order Completed",
    "Order Refunded",
    "Order Updated",
    "Payment Info Entered",
    "Product Added",
    "Product Added To Wishlist",
    "Product Clicked",
    "Product List Viewed",
    "Product Removed",
    "Product Viewed",
    "Products Searched",
    "Promotion Clicked",
    "Promotion Viewed",
}


def test_visitors_use_every_event_type_and_every_standard_name_soon():
    events = [fields for _, fields in islice(journeys(Random(7)), 200)]
    assert {event["type"] for event in events} == {
        "identify",
        "track",
        "page",
        "screen",
        "group",
        "alias",
    }
    assert {event["event"] for event in events if event["type"] == "track"} == STANDARD_NAMES


def test_each_visitor_has_an_identity_of_their_own():
    visitors = {visitor.anonymous_id for visitor, _ in islice(journeys(Random(7)), 200)}
    assert len(visitors) > 10


def test_a_visitor_who_logged_in_is_known_by_both_ids():
    for visitor, fields in islice(journeys(Random(7)), 200):
        if fields["type"] == "identify":
            assert set(visitor.identity()) == {"anonymousId", "userId"}
            return
    raise AssertionError("nobody logged in")
