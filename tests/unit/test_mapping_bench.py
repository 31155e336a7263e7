"""The mappings that the benchmark measures compile, and do in each event what it says they do."""

import tomllib

from bench import mappings
from edgeproxy.events import Event
from edgeproxy.mapping import compile_mapping

EVENT = (
    b'{"type":"track","event":"Cart Viewed","anonymousId":"a","userId":null,"properties":'
    b'{"cart_id":"c-1","currency":"EUR","value":19.5}}'
)


def sent(text: str) -> bytes:
    event = Event(EVENT)
    tables = tomllib.loads(text)
    types = tables.get("validation", {}).get("types", "coerce")
    assert compile_mapping(tables.get("mapping", {}), types=types).apply(event, "web") is None
    return event.body()


def test_no_mapping_changes_nothing():
    assert sent(mappings.NONE) is EVENT


def test_a_shop_has_twenty_overrides_of_which_some_find_something():
    assert len(tomllib.loads(mappings.ECOMMERCE)["mapping"]["global"]) == 20
    assert sent(mappings.ECOMMERCE).endswith(
        b'"properties":{"currency":"EUR","total":19.5,"checkout_id":"c-1","shop":"de"}}'
    )


def test_one_field_is_computed_in_every_event():
    assert sent(mappings.EXPRESSION).endswith(b'"value":19.5,"cents":1950}}')
