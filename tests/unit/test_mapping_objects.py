"""edgeproxy.mapping.objects and paths: the bytes of what is not named."""

import json

import pytest
from msgspec import Raw

from edgeproxy.mapping.objects import edit, is_null, read_array, read_members
from edgeproxy.mapping.paths import EVERY, parse_path, show_path


@pytest.mark.parametrize(
    ("text", "edits", "wanted"),
    [
        (b'{"a":1.10,"b":1e400}', {"a": b"2"}, b'{"a":2,"b":1e400}'),
        (b'{"a":1}', {"b": b"2"}, b'{"a":1,"b":2}'),
        (b'{"a":1,"b":2}', {"a": None}, b'{"b":2}'),
        (b'{"a":1}', {"a": None}, b"{}"),
        (b"{}", {"a": b"1"}, b'{"a":1}'),
        (b"{}", {"a": None}, b"{}"),
        (b'{"a":1}', {"b": None}, b'{"a":1}'),
        (b'{ "a" :  1.0 , "b":2 }', {"b": b"3"}, b'{"a" :  1.0,"b":3}'),
        (b'{"\\u0061":1,"b":2}', {"b": b"3"}, b'{"\\u0061":1,"b":3}'),
        (b'{"\\u0061":1,"b":2}', {"a": b"3"}, b'{"\\u0061":3,"b":2}'),
        (b'{"a":1,"a":2,"b":3,"b":4}', {"b": b"5"}, b'{"a":1,"a":2,"b":5}'),
        (b'{"a":1,"a":2,"b":3}', {"a": None}, b'{"b":3}'),
        (b'{"a":{"b":{"c":1,"d":2}}}', {"a": {"b": {"c": b"9"}}}, b'{"a":{"b":{"c":9,"d":2}}}'),
        (b'{"a":1}', {"x": {"y": {"z": b"1"}}}, b'{"a":1,"x":{"y":{"z":1}}}'),
        (b'{"a":null}', {"a": {"b": b"1"}}, b'{"a":{"b":1}}'),
        (b'{"a":1}', {"x": {"y": None}}, b'{"a":1}'),
        (b"[1, 2 ,3]", {1: b"9"}, b"[1,9,3]"),
        (b'[{"a":1,"a":2},{}]', {1: {"a": b"3"}}, b'[{"a":1,"a":2},{"a":3}]'),
        (b"[1,2]", {0: None}, b"[null,2]"),
        (b"[1,2]", {7: b"9"}, b"[1,2]"),
        (b'{"a":"text"}', {"a": {"b": b"1"}}, b'{"a":"text"}'),
        (b'{"a":[1]}', {"a": {"b": b"1"}}, b'{"a":[1]}'),
        (b'{"a":{}}', {"a": {0: b"1"}}, b'{"a":{}}'),
        (b'{"a":"}{][,:\\"","b":2}', {"b": b"3"}, b'{"a":"}{][,:\\"","b":3}'),
        (b'{"a" :"}{][,:\\"","b":2}', {"b": b"3"}, b'{"a" :"}{][,:\\"","b":3}'),
        ('{"é":"ü" ,"b":2}'.encode(), {"b": b"3"}, '{"é":"ü","b":3}'.encode()),
        (b'{"n" :' + b"9" * 5000 + b',"b":2}', {"b": None}, b'{"n" :' + b"9" * 5000 + b"}"),
    ],
)  # fmt: skip
def test_an_edit_changes_what_it_names_and_keeps_the_bytes_of_the_rest(text, edits, wanted):
    assert edit(text, edits) == wanted
    assert edit(Raw(text), edits) == wanted
    json.loads(wanted, parse_int=str)


@pytest.mark.parametrize("nothing", [None, b"null", Raw(b"null")])
def test_what_is_absent_or_null_is_made(nothing):
    assert edit(nothing, {"a": {"b": b"1"}, "c": None}) == b'{"a":{"b":1}}'
    assert edit(nothing, {0: {"a": b"1"}, 2: b"3"}) == b'[{"a":1},null,3]'


def test_nothing_made_of_nothing_leaves_nothing():
    assert edit(None, {"a": None, "b": {"c": None}}) is None
    assert edit(b"null", {"a": None}) == b"null"


def test_what_could_not_be_done_is_said():
    for text, edits in (
        (b'"x"', {"a": b"1"}),
        (b"[1]", {5: b"1"}),
        (b"[1]", {"a": b"1"}),
        (b"{}", {0: b"1"}),
    ):
        failed: list[str] = []
        assert edit(text, edits, failed) == text
        assert len(failed) == 1


def test_only_null_is_null():
    assert is_null(b"null")
    assert is_null(Raw(b"null"))
    assert not is_null(b"nul0")
    assert not is_null(Raw(b'""'))


def test_reading_a_level_says_none_for_anything_else():
    assert read_members(b"[1]") is None
    assert read_members(b"{") is None
    assert read_array(b"{}") is None
    assert read_members(b'{"a":1,"a":2}') == {"a": Raw(b"2")}


PATHS = [
    ("userId", ("userId",)),
    ("properties.total", ("properties", "total")),
    ('context."odd.key".x', ("context", "odd.key", "x")),
    ('"a\\"b"."c\\\\d"', ('a"b', "c\\d")),
    ("properties.products[].price", ("properties", "products", EVERY, "price")),
    ("properties.products[0]", ("properties", "products", 0)),
    ("a[][].b", ("a", EVERY, EVERY, "b")),
    ("properties.größe-x", ("properties", "größe-x")),
    ("a.b c", ("a", "b c")),
]


@pytest.mark.parametrize(("text", "path"), PATHS)
def test_a_path_is_read_and_written(text, path):
    assert parse_path(text) == path
    assert parse_path(show_path(path)) == path


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "[0]", "[].a", "a[x]", "a[-1]", "a[1", 'a."b', "a]b", "a[99999]", ".".join("a" * 40)]
)  # fmt: skip
def test_what_is_no_path_is_refused(text):
    with pytest.raises(ValueError, match=r"path|parts"):
        parse_path(text)
