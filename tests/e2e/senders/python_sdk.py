"""Sends every event type of one Python SDK, then ends: python python_sdk.py SDK HOST KEY [gzip].

The SDKs are used as their documentation shows; each reports what it could not send.
"""

import sys
from datetime import UTC, datetime

PROPERTIES = {
    "total": 12.5,
    "tax": 1e-7,
    "quantity": 12345678901234567890,
    "name": "Zoë's “Café” ☕ 東京",
    "products": [{"sku": "A-1", "price": 9.9}, {"sku": "B-2", "price": 2.60}],
    "coupon": None,
    "gift": False,
}
TRAITS = {"email": "zoe@example.com", "plan": "free", "logins": 7}


def client(sdk: str, host: str, key: str, *, gzip: bool):
    failures: list[object] = []
    options = {"gzip": gzip, "on_error": lambda error, _items: failures.append(error)}
    if sdk == "hightouch":
        from hightouch.htevents import Client
    elif sdk == "segment":
        from segment.analytics import Client
    else:
        from rudderstack.analytics import Client
    return Client(key, host=host, **options), failures


def send(sdk: str, host: str, key: str, *, gzip: bool) -> int:
    analytics, failures = client(sdk, host, key, gzip=gzip)
    moment = datetime.now(UTC)
    analytics.identify("user-1", TRAITS, anonymous_id="anon-1")
    analytics.track("user-1", "Order Completed", PROPERTIES)
    analytics.track("user-1", "Nothing in it")
    analytics.page("user-1", "Docs", "Start", {"url": "https://example.com/docs"})
    analytics.screen("user-1", "Settings", "Main", {"x": 1})
    analytics.group("user-1", "group-1", {"employees": 42})
    analytics.alias("anon-1", "user-1")
    analytics.track(
        "user-1", "With a context", {"n": 1}, context={"ip": "203.0.113.9"}, timestamp=moment
    )
    analytics.flush()
    analytics.shutdown()
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    name, where, write_key, *rest = sys.argv[1:]
    sys.exit(send(name, where, write_key, gzip="gzip" in rest))
