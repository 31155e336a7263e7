"""edgeproxy.mapping: rules, scopes, conditions, arrays, and what stays as it came."""

import itertools
import json

import pytest

from edgeproxy.events import Event
from edgeproxy.mapping import Mapper, compile_mapping
from edgeproxy.mapping.counters import Trace

HEAD = b'"type":"track","event":"Order Completed","anonymousId":"a"'


def mapped(
    mapping: dict, fields: bytes = b"", source: str = "web", types: str = "forward"
) -> bytes:
    """The event's JSON text after mapping, without its head, and the same when it is traced."""
    mapper = compile_mapping(mapping, types=types)  # type: ignore[arg-type]
    raw = b"{" + HEAD + (b"," + fields if fields else b"") + b"}"
    event, traced = Event(raw), Event(raw)
    assert mapper.apply(event, source) is None
    assert mapper.apply(traced, source, Trace()) is None
    assert traced.body() == event.body()
    body = event.body()
    return body.removeprefix(b"{" + HEAD).removeprefix(b",").removesuffix(b"}")


def everywhere(rules: dict, fields: bytes, **more: object) -> bytes:
    return mapped({"global": rules, **more}, fields)


# --- inputs ---


def test_a_path_renames_a_field():
    given = b'"properties":{"order_total":1.10,"x":1e400}'
    assert everywhere({"properties.total": "properties.order_total"}, given) == (
        b'"properties":{"x":1e400,"total":1.10}'
    )


def test_a_copy_leaves_the_input_where_it_was():
    rule = {"properties.total": {"from": "properties.sum", "copy": True}}
    assert everywhere(rule, b'"properties":{"sum":1}') == b'"properties":{"sum":1,"total":1}'


def test_the_first_input_that_is_present_wins_and_null_is_not_present():
    rule = {"userId": ["userId", "traits.customer_id", "traits.id"]}
    assert everywhere(rule, b'"userId":null,"traits":{"customer_id":"c","id":"i"}') == (
        b'"userId":"c","traits":{}'
    )
    assert everywhere(rule, b'"traits":{"id":"i","n":1}') == b'"traits":{"n":1},"userId":"i"'
    assert everywhere(rule, b'"userId":"u","traits":{"n":1}') == b'"userId":"u","traits":{"n":1}'


def test_an_input_that_the_field_table_maps_to_itself_is_not_moved_away():
    rule = {"properties.where": "context.page.url", "properties.who": "userId"}
    given = b'"userId":"u","context":{"page":{"url":"/"}}'
    assert everywhere(rule, given) == given + b',"properties":{"where":"/","who":"u"}'


def test_without_any_input_the_field_stays_as_it_came():
    given = b'"properties":{ "total" : 5 }'
    assert everywhere({"properties.total": "properties.sum"}, given) == given


def test_a_default_fills_in_where_no_input_is_present():
    rule = {"properties.currency": {"from": ["properties.cur"], "default": "EUR"}}
    assert everywhere(rule, b'"properties":{"x":1}') == b'"properties":{"x":1,"currency":"EUR"}'
    assert everywhere(rule, b'"properties":{"cur":"USD"}') == b'"properties":{"currency":"USD"}'
    assert everywhere(rule, b"") == b'"properties":{"currency":"EUR"}'


def test_a_default_without_inputs_is_for_the_key_itself():
    rule = {"properties.currency": {"default": "EUR"}}
    for absent in (b'"properties":{"currency":null}', b'"properties":null'):
        assert everywhere(rule, absent) == b'"properties":{"currency":"EUR"}'
    given = b'"properties":{"currency":"USD"}'
    assert everywhere(rule, given) == given


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", b'"x"'),
        (5, b"5"),
        (1.5, b"1.5"),
        (True, b"true"),
        ([1, "a"], b'[1,"a"]'),
        ({"a": 1}, b'{"a":1}'),
    ],
)
def test_a_constant_is_set_whatever_was_there(value, text):
    rule = {"properties.shop": {"value": value}}
    assert (
        everywhere(rule, b'"properties":{"shop":"old"}') == b'"properties":{"shop":' + text + b"}"
    )
    assert everywhere(rule, b"") == b'"properties":{"shop":' + text + b"}"


def test_two_fields_can_change_places():
    rules = {"properties.a": "properties.b", "properties.b": "properties.a"}
    assert everywhere(rules, b'"properties":{"a":1,"b":2}') == b'"properties":{"a":2,"b":1}'


def test_a_field_can_supply_several_keys():
    rules = {"properties.a": "properties.x", "properties.b": "properties.x"}
    assert everywhere(rules, b'"properties":{"x":1}') == b'"properties":{"a":1,"b":1}'


def test_an_outer_key_is_supplied_before_the_keys_inside_it():
    rules = {"properties.total": {"value": 5}, "properties": "data"}
    assert everywhere(rules, b'"data":{"x":1},"properties":{"old":1}') == (
        b'"properties":{"x":1,"total":5}'
    )


def test_rules_reach_any_top_level_field_and_any_depth():
    rules = {
        'custom."odd.key".x': "a.b.c",
        "context.app.name": {"value": "Shop"},
    }
    assert everywhere(rules, b'"a":{"b":{"c":[1, 2],"d":1}},"context":{"ip":"1"}') == (
        b'"a":{"b":{"d":1}},"context":{"ip":"1","app":{"name":"Shop"}},"custom":{"odd.key":{"x":[1, 2]}}'
    )


def test_what_cannot_hold_a_field_is_left_alone_and_counted():
    mapper = compile_mapping({"global": {"properties.total": {"value": 5}}}, types="forward")
    raw = b'{"type":"page","userId":"u","properties":"text"}'
    event = Event(raw)
    mapper.apply(event, "web")
    assert event.body() == raw
    assert sum(mapper.counters.left_out.values()) == 1


def test_dropping_a_field_takes_every_one_of_its_duplicates():
    rule = {"properties.ssn": {"transform": "drop"}}
    assert (
        everywhere(rule, b'"properties":{"ssn":1,"a":1,"ssn":2,"a":2}')
        == b'"properties":{"a":1,"a":2}'
    )


def test_a_hashed_field_leaves_none_of_its_duplicates_behind():
    out = everywhere(
        {"properties.e": {"transform": "sha256"}}, b'"properties":{"e":"secret","e":"b"}'
    )
    assert b"secret" not in out
    assert out.count(b'"e"') == 1


def test_a_failed_transform_leaves_neither_input_nor_output():
    rule = {"properties.phone_hash": {"from": "properties.phone", "transform": ["e164", "sha256"]}}
    assert everywhere(rule, b'"properties":{"phone":"030 1","phone_hash":"old","a":1}') == (
        b'"properties":{"a":1}'
    )


# --- scopes ---

SCOPES = {
    "default": {"default": {"properties.x": {"value": "default"}}},
    "global": {"global": {"properties.x": {"value": "global"}}},
    "type": {"type": {"track": {"properties.x": {"value": "type"}}}},
    "event": {"event": {"Order Completed": {"properties.x": {"value": "event"}}}},
    "source": {"source": {"web": {"properties.x": {"value": "source"}}}},
}
ORDER = list(SCOPES)


@pytest.mark.parametrize(
    "scopes",
    [s for n in range(1, 6) for chosen in itertools.combinations(ORDER, n) for s in itertools.permutations(chosen)],
)  # fmt: skip
def test_the_later_scope_wins_in_whatever_order_they_are_written(scopes):
    mapping = {key: value for scope in scopes for key, value in SCOPES[scope].items()}
    # An event rule that names the event keeps the default scope out.
    winner = max((s for s in scopes if s != "default" or "event" not in scopes), key=ORDER.index)
    assert mapped(mapping) == b'"properties":{"x":"%b"}' % winner.encode()


def test_scopes_for_others_do_not_speak():
    mapping = {
        "type": {"page": {"properties.x": {"value": 1}}},
        "event": {"Cart Viewed": {"properties.x": {"value": 2}}},
        "source": {"app": {"properties.x": {"value": 3}}},
    }
    assert mapped(mapping, b'"properties":{}') == b'"properties":{}'


def test_the_default_scope_is_for_events_that_no_event_rule_names():
    mapping = {"default": {"properties.x": {"value": 1}}, "event": {"Order Completed": {}}}
    assert mapped(mapping) == b""
    mapping["event"] = {"Cart Viewed": {}}
    assert mapped(mapping) == b'"properties":{"x":1}'


def test_scopes_add_up_where_they_name_different_keys():
    mapping = {
        "default": {"properties.a": {"value": 1}},
        "global": {"properties.b": {"value": 2}},
        "type": {"track": {"properties.c": {"value": 3}}},
        "source": {"web": {"properties.d": {"value": 4}}},
    }
    assert json.loads(b"{" + mapped(mapping) + b"}") == {
        "properties": {"a": 1, "b": 2, "c": 3, "d": 4}
    }


def test_each_source_and_type_gets_its_own_rules_from_one_mapper():
    mapper = compile_mapping(
        {
            "source": {"a": {"properties.s": {"value": "a"}}},
            "type": {"page": {"properties.t": {"value": 1}}},
        }
    )
    for source, kind, wanted in (
        ("a", "track", {"s": "a"}), ("b", "track", None), ("a", "page", {"s": "a", "t": 1}),
        ("b", "page", {"t": 1}), ("b", "nonsense", None), ("a", "nonsense", {"s": "a"}),
    ):  # fmt: skip
        event = Event(b'{"type":"%b","userId":"u"}' % kind.encode())
        mapper.apply(event, source)
        assert json.loads(event.body()).get("properties") == wanted


# --- conditions ---


def test_where_a_condition_is_not_met_the_scope_before_has_its_say():
    mapping = {
        "global": {"properties.tier": {"value": "small"}},
        "source": {
            "web": {"properties.tier": {"value": "large", "when": "properties.total > 100"}}
        },
    }
    assert b'"tier":"large"' in mapped(mapping, b'"properties":{"total":101}')
    assert b'"tier":"small"' in mapped(mapping, b'"properties":{"total":100}')
    assert b'"tier":"small"' in mapped(mapping, b'"properties":{"total":"many"}')


def test_a_condition_that_fails_counts_and_its_rule_does_not_apply():
    mapper = compile_mapping({"global": {"properties.x": {"value": 1, "when": "properties.y > 1"}}})
    raw = b'{"type":"page","userId":"u","properties":{"y":"text"}}'
    event = Event(raw)
    mapper.apply(event, "web")
    assert event.body() is raw
    assert mapper.counters.expression_failed == {"properties.x": 1}


def test_an_expression_supplies_a_field_and_one_that_fails_leaves_it_out():
    mapper = compile_mapping({"global": {"properties.cents": {"expr": "properties.total * 100"}}})
    good = Event(b'{"type":"page","userId":"u","properties":{"total":12.5}}')
    mapper.apply(good, "web")
    assert good.body() == b'{"type":"page","userId":"u","properties":{"total":12.5,"cents":1250}}'
    bad = Event(b'{"type":"page","userId":"u","properties":{"total":"x","cents":5}}')
    mapper.apply(bad, "web")
    assert bad.body() == b'{"type":"page","userId":"u","properties":{"total":"x"}}'
    assert mapper.counters.expression_failed == {"properties.cents": 1}


def test_an_expression_may_be_transformed_and_null_leaves_the_field_out():
    rule = {
        "properties.x": {
            "expr": "[event, string(properties.n)]",
            "transform": [{"join": "-"}, "lower"],
        }
    }
    assert (
        everywhere(rule, b'"properties":{"n":1}') == b'"properties":{"n":1,"x":"order completed-1"}'
    )
    assert (
        everywhere({"properties.x": {"expr": "null"}}, b'"properties":{"x":1}')
        == b'"properties":{}'
    )


# --- arrays ---

PRODUCTS = b'"properties":{"products":[{"sku":"a","cost":1.10},{"sku":"b"},{"cost":3,"sku":"c"}]}'


def products(rules: dict, fields: bytes = PRODUCTS) -> object:
    return json.loads(b"{" + everywhere(rules, fields) + b"}")["properties"]


def test_a_field_of_every_element_is_renamed():
    out = everywhere({"properties.products[].price": "properties.products[].cost"}, PRODUCTS)
    assert out == (
        b'"properties":{"products":[{"sku":"a","price":1.10},{"sku":"b"},{"sku":"c","price":3}]}'
    )


def test_a_field_of_every_element_is_set_defaulted_transformed_or_computed():
    found = products(
        {
            "properties.products[].brand": {"value": "own"},
            "properties.products[].cost": {"default": 0},
            "properties.products[].sku": {"transform": "upper"},
            "properties.products[].cents": {"expr": "item.cost * 100", "when": "has(item.cost)"},
        }
    )
    assert found == {
        "products": [
            {"sku": "A", "cost": 1.10, "brand": "own", "cents": 110.00000000000001},
            {"sku": "B", "brand": "own", "cost": 0},
            {"cost": 3, "sku": "C", "brand": "own", "cents": 300},
        ]
    }


def test_one_element_is_read_and_written_by_its_index():
    found = products(
        {
            "properties.first": "properties.products[0].sku",
            "properties.products[1].cost": {"value": 2},
        }
    )
    assert found == {
        "products": [{"sku": "a", "cost": 1.1}, {"sku": "b", "cost": 2}, {"cost": 3, "sku": "c"}],
        "first": "a",
    }
    assert (
        products({"properties.tenth": "properties.products[9].sku"})
        == json.loads(b"{" + PRODUCTS + b"}")["properties"]
    )


def test_every_element_is_gathered_into_a_list():
    found = products(
        {"properties.skus": {"from": "properties.products[].sku", "transform": {"join": ","}}}
    )
    assert found["skus"] == "a,b,c"  # type: ignore[index]
    assert found["products"][0]["sku"] == "a"  # type: ignore[index]
    assert products({"properties.costs": "properties.products[].cost"})["costs"] == [1.1, 3]  # type: ignore[index]


def test_a_field_of_the_event_is_given_to_every_element():
    rule = {"properties.products[].currency": "properties.currency"}
    found = everywhere(rule, b'"properties":{"currency":"EUR","products":[{},{"a":1}]}')
    assert json.loads(b"{" + found + b"}")["properties"] == {
        "currency": "EUR",
        "products": [{"currency": "EUR"}, {"a": 1, "currency": "EUR"}],
    }


def test_an_array_can_be_moved_field_by_field():
    rules = {
        "properties.products[].sku": "properties.items[].id",
        "properties.products[].price": ["properties.items[].price", "properties.items[].cost"],
    }
    given = b'"properties":{"items":[{"id":1,"cost":2,"n":0},{"id":3,"price":4}]}'
    assert products(rules, given) == {
        "items": [{"n": 0}, {}],
        "products": [{"sku": 1, "price": 2}, {"sku": 3, "price": 4}],
    }


def test_arrays_inside_arrays_are_reached():
    rule = {"properties.o[].l[].name": {"from": "properties.o[].l[].n", "transform": "upper"}}
    given = b'"properties":{"o":[{"l":[{"n":"a"},{"n":"b"}]},{"l":[]},{},{"l":[{"n":"c"}]}]}'
    assert products(rule, given) == {
        "o": [{"l": [{"name": "A"}, {"name": "B"}]}, {"l": []}, {}, {"l": [{"name": "C"}]}]
    }


def test_elements_of_plain_values_are_transformed_in_place():
    rule = {"properties.tags[]": {"transform": "lower"}}
    assert products(rule, b'"properties":{"tags":["A","B",{"x":1}]}') == {"tags": ["a", "b", None]}


def test_a_whole_element_may_be_supplied():
    assert products({"properties.products[]": {"expr": "item.sku"}}) == {
        "products": ["a", "b", "c"]
    }


def test_what_is_no_array_has_no_elements():
    rule = {"properties.products[].price": {"value": 1}}
    for given in (
        b'"properties":{"products":{"a":1}}',
        b'"properties":{"products":5}',
        b'"properties":{}',
    ):
        assert everywhere(rule, given) == given


def test_an_array_too_long_to_go_through_is_not_sent_unhashed():
    given = b'"properties":{"n":1,"l":[%b]}' % b",".join([b'{"e":"x"}'] * 2001)
    assert (
        everywhere({"properties.l[].e": {"transform": "sha256"}}, given) == b'"properties":{"n":1}'
    )
    assert (
        everywhere({"properties.s": {"from": "properties.l[].e"}}, given) == b'"properties":{"n":1}'
    )


# --- what is forwarded ---


def test_unmapped_fields_are_left_out_when_that_is_asked():
    given = (
        b'"messageId":"m","custom":1,"integrations":{},"properties":{"any":{"thing":1}},"traits":{"a":1},'
        b'"context":{"ip":"1","odd":1,"page":{"url":"/","odd":1},"traits":{"x":1}}'
    )
    assert mapped({"unmapped": "drop"}, given) == (
        b'"messageId":"m","properties":{"any":{"thing":1}},'
        b'"context":{"ip":"1","page":{"url":"/"},"traits":{"x":1}}'
    )


def test_keep_and_rules_are_exceptions_from_leaving_out():
    given = b'"custom":1,"other":2,"list":[{"a":1}],"context":{"odd":{"a":1},"even":1}'
    mapping = {
        "unmapped": "drop",
        "keep": ["custom", "context.odd", "list[].a"],
        "global": {"mine": {"value": 1}},
    }
    assert (
        mapped(mapping, given) == b'"custom":1,"list":[{"a":1}],"context":{"odd":{"a":1}},"mine":1'
    )


def test_a_thousand_unknown_fields_come_through_byte_for_byte():
    fields = b",".join(
        b'"k\\u00e9%d": [ {"n": 1.10, "n" :12345678901234567890},1e400 , "\\ud83d\\ude00",-0 ]' % n
        for n in range(1000)
    )
    # An escape in a top-level key is the one thing that rebuilding an event spells anew.
    inner = b'"properties":{%b},"context":{%b},%b' % (
        fields,
        fields,
        fields.replace(b"\\u00e9", b"").replace(b'": [', b'":['),
    )
    quiet = {
        "preset": "ecommerce",
        "global": {"properties.nope": "properties.neither", "traits.a": {"from": "traits.b"}},
        "event": {"Cart Viewed": {"properties.x": {"value": 1}}},
        "source": {"app": {"properties.x": {"value": 1}}},
        "type": {"page": {"context.x": {"value": 1}}},
    }
    for mapping in ({}, {"preset": "ecommerce"}, quiet):
        mapper = compile_mapping(mapping)
        raw = b"{" + HEAD + b"," + inner + b"}"
        event = Event(raw)
        mapper.apply(event, "web")
        assert event.body() is raw
    # Where a rule speaks, all the others keep their bytes still.
    out = everywhere({"properties.x": {"value": 1}}, inner)
    assert out == inner.replace(b'},"context"', b',"x":1},"context"')


def test_duplicates_at_the_top_level_end_with_the_last_where_the_event_is_rebuilt():
    out = everywhere({"mine": {"value": 1}}, b'"custom":1,"custom":2')
    assert out == b'"custom":2,"mine":1'


def test_a_mapping_that_changes_nothing_gives_back_the_very_bytes():
    raw = b'{ "type":"track","event":"e","userId":"u","properties":{"a":"x"} }'
    for rules in (
        {"properties.a": {"transform": "lower"}},
        {"userId": ["userId", "x"]},
        {"properties.a": {"value": "x"}},
    ):
        event = Event(raw)
        compile_mapping({"global": rules}).apply(event, "web")
        assert event.body() == raw


def test_types_are_judged_after_mapping():
    mapping = {"global": {"context.screen.width": "properties.w"}}
    assert mapped(mapping, b'"properties":{"w":"1920"}', types="coerce") == (
        b'"properties":{},"context":{"screen":{"width":1920}}'
    )


def test_the_lens_agrees_with_what_will_be_sent():
    mapper = compile_mapping(
        {
            "global": {
                "userId": "traits.id",
                "anonymousId": {"transform": "drop"},
                "event": {"value": "E"},
            }
        }
    )
    event = Event(b'{"type":"track","event":"x","anonymousId":"a","traits":{"id":7}}')
    mapper.apply(event, "web")
    fresh = Event(event.body())
    for name in event.lens.__struct_fields__:
        assert getattr(event.lens, name) == getattr(fresh.lens, name)


def test_looking_at_an_event_is_not_counted():
    mapper: Mapper = compile_mapping({"global": {"properties.x": {"transform": "e164"}}})
    mapper.explain(b'{"type":"page","userId":7,"properties":{"x":"030"}}', "web")
    assert not mapper.counters.left_out
    assert not mapper.counters.coerced
