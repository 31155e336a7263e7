"""edgeproxy.mapping.expressions: what they read, what they give, and what is refused when compiled."""

import contextlib
import sys

import pytest

from edgeproxy.events import Event
from edgeproxy.mapping import expressions
from edgeproxy.mapping.expressions import MAX_ITEMS, MAX_READ, compile_expression
from edgeproxy.mapping.values import Unfit
from edgeproxy.mapping.view import View

EVENT = (
    b'{"type":"track","event":"Order Completed","userId":"u","odd key":5,"properties":{"total":10,'
    b'"tax":2.5,"name":"Jo","products":[{"price":1,"q":2},{"price":2.5,"q":4}],"big":1152921504606846977,'
    b'"far":1e400,"none":null},"context":{"page":{"path":"/x"}}}'
)


class Watching(View):
    """Notes the paths that are asked for."""

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.read: list[tuple] = []

    def text(self, path):
        self.read.append(path)
        return super().text(path)


def evaluate(source: str, raw: bytes = EVENT, item: bytes | None = None) -> object:
    expression = compile_expression(source, with_item=item is not None)
    return expression.evaluate(View(Event(raw)), "web", item)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("properties.total * 100", 1000),
        ("properties.tax * 100", 250),
        ("100 * properties.tax - 1", 249),
        ("properties.total * (2 * 3)", 60),
        ("properties.total * -1", -10),
        ("properties.total / 4", 2.5),
        ("properties.total*100 > 999", True),
        ("properties.total == 10", True),
        ("properties.total != 10 || properties.tax < 3", True),
        ("size(properties.products) + 1", 3),
        ("properties.products.size() > 1", True),
        ("int(properties.total) % 3", 1),
        ("math.round(properties.tax)", 3),
        ("properties.products[0].price", 1),
        ("properties.products[1].q * 2", 8),
        ("properties.products.map(p, p.price * 2)", [2, 5]),
        ("properties.products.filter(p, p.price > 2).map(p, p.q)", [4]),
        ("properties.products.exists(p, p.q == 4)", True),
        ("properties.products.exists_one(p, p.q > 1)", False),
        ("properties.products.all(p, p.q >= 2)", True),
        ("has(properties.nope)", False),
        ("has(properties.total)", True),
        ("has(context.campaign.name)", False),
        ("anonymousId == null", True),
        ("userId != null && userId == 'u'", True),
        ("properties.none == null", True),
        ("properties.?nope.orValue('d')", "d"),
        ("input.type == 'track'", True),
        ("input['odd key'] + 1", 6),
        ("context.page.path.startsWith('/x') ? 'a' : 'b'", "a"),
        ("source", "web"),
        ("event.lowerAscii()", "order completed"),
        ("userId + string(properties.total)", "u10"),
        ("properties.name.matches('^J')", True),
        ("'a,b'.split(',')", ["a", "b"]),
        ("properties.name.replace('J', 'K')", "Ko"),
        ("{'b': properties.total, 'a': [1]}", {"a": [1], "b": 10}),
        ("timestamp('2026-11-23T10:00:00Z')", "2026-11-23T10:00:00Z"),
        ("timestamp('2026-11-23T10:00:00Z').getFullYear() > 2000", True),
        ("type(properties.name) == string", True),
        ("properties.name in ['Jo', 'Al']", True),
        ("'price' in properties.products[0]", True),
    ],
)  # fmt: skip
def test_an_expression_gives_its_value(source: str, wanted: object):
    assert evaluate(source) == wanted


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("1 +", "Syntax error"),
        ("foo.bar", "undeclared reference"),
        ("nosuch(userId)", "undeclared reference"),
        ("'a' + 1", "no matching overload"),
        ("type == 'track'", "input.type"),
        ("input", "name a field"),
        ("item.price", "array elements"),
        ("properties.a.map(x, properties.b.map(y, y))", "macro inside a macro"),
        ("properties.a.exists(x, x.b.all(y, y))", "macro inside a macro"),
        ("properties.a.filter(x, [1].exists(y, y == x))", "macro inside a macro"),
        ("properties.a.split(',').map(x, x)", "one that is computed"),
        ("properties.a.map(x, properties.s)[0].map(y, y)", "one that is computed"),
        ("(properties.a + properties.a).map(x, x)", "one that is computed"),
        ("properties.s.replace('a', properties.s)", "constant"),
        ("properties.s.matches(properties.p)", "constant pattern"),
        ("properties.n % 2", "int(…)"),
        ("'x'" + " + 'x'" * 1000, "longer than"),
    ],
)
def test_what_cannot_be_compiled_or_is_not_bounded_is_refused(source: str, told: str):
    with pytest.raises(ValueError, match=r".") as caught:
        compile_expression(source)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "properties.nope > 1",
        "properties.name > 1",
        "properties.name * 2",
        "properties.products[9].price",
        "properties.big + 1",
        "properties.far > 1",
        "1 / 0 == 1",
        "anonymousId + 'x'",
        "int(properties.name)",
        "context.page.nope.deeper",
        "optional.none()",
        "{1: properties.total}",
        "b'bytes'",
    ],
)
def test_an_expression_that_fails_says_so(source: str):
    with pytest.raises(Unfit):
        evaluate(source)


@pytest.mark.parametrize(
    ("source", "paths"),
    [
        ("properties.total > 1 && context.page.path == '/'", {("properties", "total"), ("context", "page", "path")}),
        ("has(properties.a.b)", {("properties", "a", "b")}),
        ("properties.a.map(x, x.y)", {("properties", "a")}),
        ("properties.l[0].z", {("properties", "l")}),
        ("properties['odd key'].x", {("properties", "odd key", "x")}),
        ("properties.a == 1 || properties.a.b == 1", {("properties", "a")}),
        ("input.custom.x == input.type", {("custom", "x"), ("type",)}),
        ("properties.?a.?b.orValue(1) > 1", {("properties", "a", "b")}),
        ("properties.a.exists(properties, properties == 1)", {("properties", "a")}),
        ("1 < 2", set()),
    ],
)  # fmt: skip
def test_only_the_paths_that_are_read_are_bound(source: str, paths: set):
    view = Watching(Event(EVENT))
    with contextlib.suppress(Unfit):
        compile_expression(source).evaluate(view, "web")
    # What lies around a path is decoded level by level on the way to it.
    ends = {
        path
        for path in view.read
        if not any(other[: len(path)] == path != other for other in view.read)
    }
    assert ends == paths


def test_item_is_the_element_that_a_rule_is_at():
    assert evaluate("item.price * item.q", item=b'{"price":1.5,"q":2,"x":1e400}') == 3
    assert evaluate("item", item=b'"a"') == "a"
    assert evaluate("item.a.b", item=b'{"a":{"b":1}}') == 1
    assert evaluate("has(item.a)", item=b"5") is False
    assert compile_expression("item.a", with_item=True).uses_item
    assert not compile_expression("userId", with_item=True).uses_item


def test_a_long_list_is_not_iterated_but_may_be_measured():
    items = b"[" + b",".join([b"1"] * (MAX_ITEMS + 1)) + b"]"
    raw = b'{"properties":{"l":%b}}' % items
    with pytest.raises(Unfit, match="iterate more than"):
        evaluate("properties.l.map(x, x)", raw)
    assert evaluate("size(properties.l)", raw) == MAX_ITEMS + 1
    nested = b'{"properties":{"l":[%b]}}' % items
    with pytest.raises(Unfit, match="iterate more than"):
        evaluate("properties.l.map(x, x)", nested)


def test_a_large_value_is_not_read():
    raw = b'{"properties":{"s":"%b"}}' % (b"x" * MAX_READ)
    with pytest.raises(Unfit, match="read more than"):
        evaluate("properties.s == ''", raw)


def test_a_condition_gives_true_or_false_and_nothing_else():
    view = View(Event(EVENT))
    assert compile_expression("properties.total > 1").holds(view, "web") is True
    with pytest.raises(Unfit, match="not true or false"):
        compile_expression("properties.total").holds(view, "web")


def test_without_the_evaluator_the_mistake_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    expressions._engine.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"pip install 'edgeproxy\[expressions\]'"):
            compile_expression("userId == 'u'")
    finally:
        expressions._engine.cache_clear()


def test_the_same_expression_gives_the_same_text_every_time():
    source = "{'a': 1, 'b': 2, 'c': 3, 'd': 4, 'e': 5}"
    assert len({str(evaluate(source)) for _ in range(20)}) == 1


def test_a_value_that_is_not_utf8_is_not_computed_with():
    with pytest.raises(Unfit, match="cannot be represented"):
        evaluate("input.x", b'{"type":"track","x":"\xff"}')


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None cannot be freed")
def test_nulls_in_results_do_not_use_none_up():
    expression = compile_expression("properties.a")
    view = View(Event(b'{"properties":{"a":[%b]}}' % b",".join([b"null"] * 5000)))
    for _ in range(20):
        assert len(expression.evaluate(view, "web")) == 5000
    assert sys.getrefcount(None) > 1 << 32
