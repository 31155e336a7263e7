"""edgeproxy.mapping.transforms: every transform, on what suits it and on what does not."""

import hashlib
import hmac
import json

import pytest

from edgeproxy.config import ConfigError
from edgeproxy.events import Event
from edgeproxy.mapping import compile_mapping
from edgeproxy.mapping.transforms import TRANSFORMS

LEFT_OUT = object()
KEY = "0123456789abcdef"


def transformed(transform: object, value: str) -> object:
    """What becomes of a JSON text at `properties.x`: JSON text, or LEFT_OUT."""
    mapper = compile_mapping(
        {"hmac_key": KEY, "global": {"properties.x": {"transform": transform}}}
    )
    event = Event(b'{"type":"page","userId":"u","properties":{"x":%b}}' % value.encode())
    assert mapper.apply(event, "default") is None
    properties = event.fields()["properties"]
    found = json.loads(bytes(properties))
    if "x" not in found:
        return LEFT_OUT
    prefix = b'{"x":'
    return bytes(properties)[len(prefix) : -1].decode()


def sha(text: str) -> str:
    return f'"{hashlib.sha256(text.encode()).hexdigest()}"'


def mac(text: str, key: str = KEY) -> str:
    return f'"{hmac.new(key.encode(), text.encode(), "sha256").hexdigest()}"'


CASES = [
    ("lower", '"ÀB c"', '"àb c"'),
    ("lower", "5", '"5"'),
    ("lower", '["A","B"]', '["a","b"]'),
    ("lower", "{}", LEFT_OUT),
    ("upper", '"ab"', '"AB"'),
    ("trim", '"  a b\\n"', '"a b"'),
    ("to_string", "1.10", '"1.10"'),
    ("to_string", "1e400", '"1e400"'),
    ("to_string", "12345678901234567890123", '"12345678901234567890123"'),
    ("to_string", "true", '"true"'),
    ("to_string", '"x"', '"x"'),
    ("to_string", "[1,true]", '["1","true"]'),
    ("to_string", '{"a":1}', LEFT_OUT),
    ("to_boolean", '"Yes"', "true"),
    ("to_boolean", '" OFF "', "false"),
    ("to_boolean", "1", "true"),
    ("to_boolean", "0", "false"),
    ("to_boolean", "true", "true"),
    ("to_boolean", '"maybe"', LEFT_OUT),
    ("to_boolean", "2", LEFT_OUT),
    ("to_float", '"19.90"', "19.90"),
    ("to_float", '" 5 "', "5"),
    ("to_float", '"1e3"', "1e3"),
    ("to_float", '".5"', "0.5"),
    ("to_float", "1.10", "1.10"),
    ("to_float", '"12 Euro"', LEFT_OUT),
    ("to_float", "true", LEFT_OUT),
    ("to_float", '"NaN"', LEFT_OUT),
    ("to_float", '"1e999999999"', LEFT_OUT),
    ("round", "2.5", "3"),
    ("round", "-2.5", "-3"),
    ("round", '"2.4"', "2"),
    ("round", "[1.5,2]", "[2,2]"),
    ("round", "1e999999999", LEFT_OUT),
    ("truncate", "2.9", "2"),
    ("truncate", "-2.9", "-2"),
    ("truncate", '"x"', LEFT_OUT),
    ("truncate_float", "19.999", "19.99"),
    ("truncate_float", "-0.129", "-0.12"),
    ({"truncate_float": 1}, '"19.99"', "19.9"),
    ({"truncate_float": {"digits": 0}}, "19.99", "19"),
    ({"join": ", "}, '["a",1,true,null]', '"a, 1, true"'),
    ("join", '["a","b"]', '"a,b"'),
    ("join", '"alone"', '"alone"'),
    ("join", '[{"a":1}]', LEFT_OUT),
    ({"split": ","}, '"a,b,,c"', '["a","b","","c"]'),
    ({"split": {"separator": "|"}}, '"a"', '["a"]'),
    ({"split": ","}, "[]", LEFT_OUT),
    ({"substring": {"start": 1, "length": 2}}, '"abcd"', '"bc"'),
    ({"substring": 2}, '"abcd"', '"cd"'),
    ({"substring": {"start": -3, "length": 2}}, '"abcd"', '"bc"'),
    ({"substring": {"length": 2}}, '"a"', '"a"'),
    ({"substring": {"start": -9}}, '"ab"', '"ab"'),
    ({"replace": {"old": "-", "new": "_"}}, '"a-b-c"', '"a_b_c"'),
    ({"replace": {"old": " "}}, '"a b"', '"ab"'),
    ({"pluck": "id"}, '[{"id":1},{"x":2},{"id":"b"},5]', '[1,"b"]'),
    ({"pluck": "id"}, '{"id":1.10}', "1.10"),
    ({"pluck": "id"}, '{"x":1}', LEFT_OUT),
    ({"pluck": "id"}, "5", LEFT_OUT),
    ("hash", '"a"', sha("a")),
    ({"hash": "md5"}, '" A "', f'"{hashlib.md5(b"a").hexdigest()}"'),
    (
        {"hash": {"algorithm": "sha512", "normalise": False}},
        '"A"',
        f'"{hashlib.sha512(b"A").hexdigest()}"',
    ),
    ("sha256", '" Jo.Bloggs@Example.COM "', sha("jo.bloggs@example.com")),
    ("sha256", '"+49 (0)30 1234-567"', sha("+49301234567")),
    ("sha256", '"030 1234"', sha("030 1234")),
    ("sha256", '"+x"', sha("+x")),
    ("sha256", "4930123456", sha("4930123456")),
    ("sha256", '["A","b"]', f"[{sha('a')},{sha('b')}]"),
    ("sha256", '{"a":1}', LEFT_OUT),
    ({"sha256": {"normalise": False}}, '" A "', sha(" A ")),
    ("hmac_sha256", '" A "', mac("a")),
    ({"hmac_sha256": {"key": "another key, longer"}}, '"a"', mac("a", "another key, longer")),
    ({"hmac_sha256": {"normalise": False}}, '"A"', mac("A")),
    ("e164", '"+49 (0)30 123-456.7"', '"+49301234567"'),
    ("e164", '"+1 (415) 555/2671"', '"+14155552671"'),
    ("e164", '"030 1234567"', LEFT_OUT),
    ("e164", '"+0123456789"', LEFT_OUT),
    ("e164", '"+49 30 call me"', LEFT_OUT),
    ("e164", '"+12"', LEFT_OUT),
    ("drop", '"x"', LEFT_OUT),
    ("drop", "{}", LEFT_OUT),
    ("mask", '"secret"', '"***"'),
    ({"mask": {"end": 4}}, '"4111111111111111"', '"************1111"'),
    ({"mask": {"start": 1, "end": 1}}, '"abcd"', '"a**d"'),
    ({"mask": {"start": 2, "end": 2}}, '"abc"', '"***"'),
    ({"mask": {"start": 1, "character": "#"}}, '"ab"', '"a#"'),
    ("truncate_ip", '"203.0.113.77"', '"203.0.113.0"'),
    ("truncate_ip", '"2001:db8:85a3:8d3:1319:8a2e:370:7348"', '"2001:db8:85a3::"'),
    ("truncate_ip", '" 203.0.113.77 "', '"203.0.113.0"'),
    ("truncate_ip", '"::ffff:203.0.113.77"', '"203.0.113.0"'),
    ("truncate_ip", '"fe80::1%eth0"', '"fe80::"'),
    ("truncate_ip", '"unknown"', LEFT_OUT),
    ("truncate_ip", "3405803850", LEFT_OUT),
    (["trim", {"split": "-"}, {"join": "+"}, "upper"], '" a-b "', '"A+B"'),
    ([], "1.10", "1.10"),
]


@pytest.mark.parametrize(("transform", "given", "wanted"), CASES)
def test_a_transform_gives_what_it_promises_or_leaves_the_field_out(transform, given, wanted):
    assert transformed(transform, given) == wanted


def test_every_transform_has_a_case():
    tried = set()
    for transform, _, _ in CASES:
        for one in transform if isinstance(transform, list) else [transform]:
            tried.add(one if isinstance(one, str) else next(iter(one)))
    assert tried == set(TRANSFORMS)


@pytest.mark.parametrize(
    "transform", [t for t in TRANSFORMS if t not in ("split", "pluck", "replace")]
)
def test_null_is_absent_for_every_transform(transform):
    assert transformed(transform, "null") == "null"


def test_what_does_not_fit_is_counted_by_its_key():
    mapper = compile_mapping({"global": {"properties.phone": {"transform": "e164"}}})
    for phone in (b'"030"', b'"+49301234567"', b"[]", b"{}"):
        event = Event(b'{"type":"page","userId":"u","properties":{"phone":%b}}' % phone)
        mapper.apply(event, "default")
    assert mapper.counters.left_out == {"properties.phone": 2}


@pytest.mark.parametrize(
    ("transform", "told"),
    [
        ("lowr", "did you mean lower?"),
        (5, "is not a transform"),
        ({"split": ",", "join": ","}, "is not a transform"),
        ("split", "split needs separator"),
        ({"split": 5}, "split: separator is not a text"),
        ({"lower": 1}, "lower takes no value alone"),
        ({"lower": {"x": 1}}, "lower has no option 'x'"),
        ({"substring": {"start": True}}, "start is not a whole number"),
        ({"hash": "crc32"}, "algorithm 'crc32' is not"),
        ({"mask": {"start": -1}}, "0 or more"),
        ({"sha256": {"normalise": "no"}}, "normalise is not true or false"),
        ({"hmac_sha256": {"key": "short"}}, "at least 16 characters"),
        ("hmac_sha256", "hmac_sha256 has no key"),
        ({"truncate_float": -1}, "digits"),
        ({"split": ""}, "separator"),
    ],
)
def test_a_transform_that_cannot_be_built_is_a_mistake_with_a_remedy(transform, told):
    with pytest.raises(ConfigError) as caught:
        compile_mapping({"global": {"properties.x": {"transform": transform}}})
    (mistake,) = caught.value.mistakes
    assert (mistake.table, mistake.key.split(":")[0]) == ("[mapping.global]", "properties.x")
    assert told in str(mistake)
    assert mistake.remedy


def test_an_hmac_key_may_come_from_a_file(tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    rule = {"properties.x": {"transform": {"hmac_sha256": {"key_file": "key"}}}}
    for mapping in (
        {"global": rule},
        {"hmac_key_file": "key", "global": {"properties.x": {"transform": "hmac_sha256"}}},
    ):
        event = Event(b'{"type":"page","userId":"u","properties":{"x":"a"}}')
        compile_mapping(mapping, folder=tmp_path).apply(event, "default")
        assert json.loads(event.body())["properties"]["x"] == mac("a").strip('"')


def test_a_key_is_never_part_of_a_mistake(tmp_path):
    with pytest.raises(ConfigError) as caught:
        compile_mapping(
            {"hmac_key": "hush", "hmac_key_file": "nowhere", "global": {"x": 5}}, folder=tmp_path
        )
    assert "hush" not in str(caught.value)
    assert "hmac_key_file: cannot be read" in str(caught.value)
