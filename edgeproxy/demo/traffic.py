"""A plausible shop's visitors: all event types, and the 17 standard e-commerce names.

Journeys are made of fields only; identity, ids and times are added when an event is sent. What is
sent is what a server SDK would send, over real HTTP.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import cycle
from random import Random
from typing import Any

import aiohttp

__all__ = ["Visitor", "journeys", "send"]

Fields = dict[str, Any]

_PRODUCTS = (
    ("SKERRY-250", "Skerry", 9.9),
    ("LIGHT-250", "Lighthouse", 11.5),
    ("TIDE-250", "Slack Tide", 10.2),
    ("NORTH-250", "Northerly", 13.4),
)
_CITIES = ("Hamburg", "Oslo", "Porto", "Cork", "Genova")
_CAMPAIGNS = ("spring", "newsletter", "harbour-day")


class Visitor:
    """One person in the shop, and how they are described."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.anonymous_id = str(uuid.UUID(int=random.getrandbits(128), version=4))
        self.user_id = f"u-{random.randrange(1000, 9999)}"
        self.known = False

    def identity(self) -> Fields:
        """Who an event is of: anonymous until they log in."""
        known = {"userId": self.user_id} if self.known else {}
        return {"anonymousId": self.anonymous_id, **known}

    def product(self) -> Fields:
        """Something from the shelf."""
        sku, name, price = self._random.choice(_PRODUCTS)
        fixed = {"category": "Coffee", "currency": "EUR", "quantity": 1}
        return {"product_id": f"c-{sku.lower()}", "sku": sku, "name": name, "price": price, **fixed}

    def order(self) -> Fields:
        """A cart that became an order."""
        products = [self.product() for _ in range(self._random.randint(1, 3))]
        total = round(sum(item["price"] for item in products), 2)
        number = f"o-{self._random.randrange(10_000, 99_999)}"
        return {"order_id": number, "total": total, "currency": "EUR", "products": products}


def track(event: str, properties: Fields | None = None) -> Fields:
    """A track event's own fields."""
    return {"type": "track", "event": event, "properties": properties or {}}


def _arrive(visitor: Visitor, random: Random) -> Iterator[Fields]:
    yield {"type": "page", "name": "Home", "category": "Shop", "properties": {"path": "/"}}
    promotion = {"promotion_id": "p-1", "name": random.choice(_CAMPAIGNS), "position": "hero"}
    yield track("Promotion Viewed", promotion)
    if random.random() < 0.5:
        yield track("Promotion Clicked", promotion)


def _browse(visitor: Visitor, random: Random) -> Iterator[Fields]:
    yield from _arrive(visitor, random)
    yield track("Product List Viewed", {"list_id": "coffee", "category": "Coffee"})
    yield track("Products Searched", {"query": random.choice(("decaf", "filter", "espresso"))})
    product = visitor.product()
    yield track("Product Clicked", product)
    yield track("Product Viewed", product)
    yield track("Product Added To Wishlist", {"wishlist_id": "w-1", **product})


def _buy(visitor: Visitor, random: Random) -> Iterator[Fields]:
    yield from _arrive(visitor, random)
    order = visitor.order()
    for product in order["products"]:
        yield track("Product Viewed", product)
        yield track("Product Added", product)
    yield track("Cart Viewed", {"products": order["products"]})
    visitor.known = True
    traits = {"email": f"{visitor.user_id}@example.com", "city": random.choice(_CITIES)}
    yield {"type": "identify", "traits": traits}
    yield {"type": "alias", "previousId": visitor.anonymous_id}
    yield track("Checkout Started", order)
    yield track("Coupon Entered", {"coupon_id": "HELLO10", "order_id": order["order_id"]})
    yield track("Payment Info Entered", {"payment_method": "card", "order_id": order["order_id"]})
    yield track("Order Completed", {**order, "coupon": "HELLO10", "shipping": 3.9, "tax": 1.87})


def _change_of_mind(visitor: Visitor, random: Random) -> Iterator[Fields]:
    visitor.known = True
    yield {"type": "screen", "name": "Orders", "properties": {"app": "Harbour"}}
    yield {"type": "group", "groupId": "harbour-club", "traits": {"plan": "gold", "members": 214}}
    product = visitor.product()
    yield track("Product Added", product)
    yield track("Product Removed", product)
    order = visitor.order()
    yield track("Order Updated", order)
    if random.random() < 0.5:
        yield track("Order Refunded", order)
        yield track("Order Canceled", order)
    else:
        yield track("Order Canceled", order)
        yield track("Order Refunded", order)


def journeys(random: Random) -> Iterator[tuple[Visitor, Fields]]:
    """Visitors one after the other, without end; three of them use every type and name."""
    for journey in cycle((_buy, _browse, _change_of_mind)):
        visitor = Visitor(random)
        for fields in journey(visitor, random):
            yield visitor, fields


async def send(
    url: str,
    write_key: str,
    *,
    rate: float,
    random: Random,
    pause: Callable[[float], Any] = asyncio.sleep,
) -> None:
    """Send about `rate` events a second to the proxy at `url` until cancelled.

    An event that was not answered 200 is sent again after a second, as an SDK would.
    """
    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth(write_key)) as session:
        for visitor, fields in journeys(random):
            await _deliver(session, f"{url}/v1/{fields['type']}", _complete(visitor, fields), pause)
            await pause(random.expovariate(rate))


async def _deliver(
    session: aiohttp.ClientSession, url: str, event: Fields, pause: Callable[[float], Any]
) -> None:
    while True:
        event["sentAt"] = _now()
        try:
            async with session.post(url, json=event) as answer:
                if answer.status < 500:
                    return
        except aiohttp.ClientConnectionError:
            pass  # sent again below: the demo's proxy may be stopping
        await pause(1.0)


def _complete(visitor: Visitor, fields: Fields) -> Fields:
    context = {
        "library": {"name": "edgeproxy-demo", "version": "1"},
        "locale": "en-GB",
        "timezone": "Europe/Berlin",
        "page": {"path": "/", "title": "Harbour Coffee", "url": "https://shop.example/"},
    }
    ids = {"messageId": str(uuid.uuid4()), "timestamp": _now()}
    return {**ids, **visitor.identity(), **fields, "context": context}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
