"""edgeproxy.mapping.compiling: mistakes, files of their own, the revision, tests of a mapping."""

import json
import tomllib
from pathlib import Path

import pytest

from edgeproxy.config import ConfigError, load
from edgeproxy.events import Event
from edgeproxy.events.intake import Receipt
from edgeproxy.mapping import (
    Mapper,
    compile_file,
    compile_mapping,
    compile_settings,
    mapping_mistakes,
)


def mistakes(text: str, folder: Path = Path()) -> list[str]:
    tables = tomllib.loads(text)
    with pytest.raises(ConfigError) as caught:
        compile_mapping(
            tables.get("mapping", {}),
            tables.get("filters", []),
            tables.get("tests", []),
            folder=folder,
            sources=["web"],
        )
    for mistake in caught.value.mistakes:
        assert mistake.problem
        assert "\n" not in str(mistake)
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[mapping]\npresett='x'", ["[mapping] presett: is not a known key; did you mean preset?"]),
        ("[mapping]\npreset='shop'", ["[mapping] preset: there is none called 'shop'; known here: ecommerce"]),
        ("[mapping]\nunmapped='no'", ["[mapping] unmapped: is 'no'; write \"forward\" or \"drop\""]),
        ("[mapping]\nkeep=[5]", ["[mapping] keep: is not a text or a list of texts"]),
        ("[mapping]\nkeep=['a..b']", ["[mapping] keep: 'a..b' is not a path"]),
        ("[mapping]\nrevision=5", ["[mapping] revision: is not a text"]),
        ("[mapping]\nglobal=5", ["[mapping] global: is not a table; write it as [mapping.global]"]),
        ("[mapping.global]\nuserId=5", ["[mapping.global] userId: is neither a path nor a table; write a path"]),
        ("[mapping.global]\nuserId={}", ["[mapping.global] userId: is an empty table"]),
        ("[mapping.global]\nuserId=[]", ["[mapping.global] userId: has an empty list of inputs"]),
        ("[mapping.global]\nuserId=[5]", ["[mapping.global] userId: 5 is not a path"]),
        ("[mapping.global]\n'a[x]'='b'", ["[mapping.global] a[x]: 'a[x]' is not a path"]),
        ("[mapping.global]\n'[0]'='b'", ["[mapping.global] [0]: '[0]' is not a path"]),
        ("[mapping.global]\n''='b'", ["a path is empty"]),
        ("[mapping.global]\nproperties.total='x'", ['put all of it in quotes: "properties.total"']),
        ("[mapping.global]\nx={from='a',value=1}", ["x: has both from and value; keep one of them"]),
        ("[mapping.global]\nx={value=1,default=2}", ["x: has a default beside a value or expr"]),
        ("[mapping.global]\nx={value=1,transform='lower'}", ["x: transforms a constant"]),
        ("[mapping.global]\nx={from='a',copy='yes'}", ["copy: is not true or false"]),
        ("[mapping.global]\nx={expr='1 +'}", ["x: expr: the expression '1 +' cannot be used: at 1:4: Syntax error"]),
        ("[mapping.global]\nx={value=1,when=''}", ["x: when: is not a text"]),
        ("[mapping.global]\nx={value=nan}", ["x: value: it is not a finite number"]),
        ("[mapping.global]\n'a[].x'='b[].c[].d'", ["b[].c[].d has 2 [] and the key has 1"]),
        (
            "[mapping.global]\n'context.screen.width'={value='wide'}",
            ["context.screen.width: value: is String, and Hightouch wants Integer"],
        ),
        ("[mapping.global]\n'a.b'='x'\n'a.\"b\"'='y'", ['is the same key as [mapping.global] "a.b"']),
        ("[mapping.type.trak]", ["[mapping.type] trak: is not an event type; did you mean track?"]),
        ("[mapping.source.wbe]", ["[mapping.source] wbe: is not a source; did you mean web?"]),
        ("[mapping.source]\nweb=5", ["[mapping.source] web: is not a table of rules; write [mapping.source.web]"]),
        ("[mapping.event]\nX=5", ["[mapping.event] X: is not a table of rules"]),
        ("[mapping.event.X]\nmatch=5", ['[mapping.event."X"] match: is not a text or a list of texts']),
        ("[mapping.event.X]\nevent=5", ['[mapping.event."X"] event: is not a text']),
        (
            "[mapping.event.X]\nmatch='a'\n[mapping.event.Y]\nmatch='a'",
            ["[mapping.event.\"Y\"] match: 'a' is matched by [mapping.event.\"X\"] too"],
        ),
        ("[[filters]]\nmatch='x'", ["[[filters]] 1 action: is missing; write one of drop, keep, sample, dead_letters"]),
        ("[[filters]]\naction='drop'", ["[[filters]] 1: would drop every event"]),
        ("[[filters]]\naction='sample'", ["[[filters]] 1 rate: is not a number between 0 and 1"]),
        ("[[filters]]\naction='sample'\nrate=true", ["[[filters]] 1 rate: is not a number"]),
        ("[[filters]]\naction='drop'\nmatch='x'\nrate=0.5", ["[[filters]] 1 rate: means nothing here"]),
        ("[[filters]]\naction='drop'\ntypes='trak'", ["'trak' is not an event type; did you mean track?"]),
        ("[[filters]]\naction='drop'\nsources='wbe'", ["there is no source 'wbe'; did you mean web?"]),
        ("[[filters]]\naction='drop'\nwhen='x'", ["[[filters]] 1 when: the expression 'x' cannot be used"]),
        (
            "[[filters]]\nname='a'\naction='drop'\nmatch='x'\n[[filters]]\nname='a'\naction='drop'\nmatch='y'",
            ["[[filters]] 2 name: 'a' is another filter's, too"],
        ),
        ("[[filters]]\naction='drop'\nmatch='x'\nwhem='y'", ["[[filters]] 1 whem: is not a known key; did you mean when?"]),
        ("[[tests]]\nname='x'", ["[[tests]] 1 event: is not given once"]),
        ("[[tests]]\nevent=5", ["[[tests]] 1 event: is not a table"]),
        ("[[tests]]\nevent={}\nverdict='good'", ["[[tests]] 1 verdict: 'good' is none"]),
        ("[[tests]]\nevent={}\nverdict='filtered'\nabsent='a'", ["filtered leaves no output"]),
        ("[[tests]]\nevent={}\nfilter='a'", ["[[tests]] 1 filter: goes with a filtered event"]),
        ("[[tests]]\nevent={}\n[tests.expect]\n'a..b'=1", ["[[tests]] 1 expect: 'a..b' is not a path"]),
        ("[[tests]]\nevent={}\nabsent='a[].b'", ["[[tests]] 1 absent: a[].b speaks of many elements"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_table_key_and_remedy(text: str, told: list[str]):
    found = mistakes(text)
    assert len(found) == len(told)
    for line, part in zip(found, told, strict=True):
        assert line.startswith("config.toml: ")
        assert part in line


def test_all_mistakes_are_named_at_once():
    found = mistakes(
        "[mapping]\nunmapped='x'\n[mapping.global]\nuserId=5\ny={expr='1 +'}\n[[filters]]\n[[tests]]"
    )
    assert len(found) == 6


# --- the revision ---


def test_a_revision_is_the_one_given_or_a_hash_of_the_rules():
    rules = {"userId": "id"}
    assert compile_mapping({"revision": "2026-11"}).revision == "2026-11"
    plain = compile_mapping({"global": rules}).revision
    assert len(plain) == 12
    assert compile_mapping({"global": dict(rules)}).revision == plain
    assert compile_mapping({"global": rules}, [{"action": "drop", "match": "x"}]).revision != plain
    assert compile_mapping({"global": {"userId": "di"}}).revision != plain
    assert compile_mapping({}).revision == compile_mapping({}).revision


def test_a_revision_says_nothing_of_a_key():
    rule = {"properties.x": {"transform": "hmac_sha256"}}
    one, other = (compile_mapping({"hmac_key": key * 16, "global": rule}).revision for key in "ab")
    assert one == other


# --- files ---

FILE = """
[mapping]
revision = "2026-11"
[mapping.global]
"properties.total" = "properties.sum"
[[filters]]
action = "drop"
match = ["Noise"]
[[tests]]
event = { type = "page", userId = "u", properties = { sum = 1 } }
expect = { "properties.total" = 1 }
"""


def test_a_mapping_may_live_in_a_file_of_its_own(tmp_path: Path):
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings/2026-11.toml").write_text(FILE)
    mapper = compile_mapping({"file": "mappings/2026-11.toml"}, folder=tmp_path)
    assert mapper.revision == "2026-11"
    event = Event(b'{"type":"page","userId":"u","properties":{"sum":2}}')
    assert mapper.apply(event, "web") is None
    assert event.body() == b'{"type":"page","userId":"u","properties":{"total":2}}'
    assert mapper.apply(Event(b'{"type":"track","event":"Noise"}'), "web") is not None
    assert mapper.run_tests() == ()


def test_filters_and_tests_beside_the_file_stay_in_force(tmp_path: Path):
    (tmp_path / "m.toml").write_text(FILE)
    mapper = compile_mapping(
        {"file": "m.toml"}, [{"name": "own", "action": "drop", "match": "Mine"}], folder=tmp_path
    )
    for name in ("Mine", "Noise"):
        assert (
            mapper.apply(Event(b'{"type":"track","event":"%b"}' % name.encode()), "web") is not None
        )


@pytest.mark.parametrize(
    ("config", "file", "told"),
    [
        (
            "file = 'm.toml'\nunmapped = 'drop'",
            FILE,
            "config.toml: [mapping] unmapped: stands beside file",
        ),
        ("file = 5", FILE, "[mapping] file: is not the name of a file"),
        ("file = 'nowhere.toml'", FILE, "nowhere.toml: cannot be read: No such file or directory"),
        ("file = 'm.toml'", "x = ", "m.toml: is not TOML"),
        ("file = 'm.toml'", "mapping = 5", "m.toml: [mapping]: is not a table"),
        ("file = 'm.toml'", "filters = 5", "m.toml: [filters]: is not an array of tables"),
        (
            "file = 'm.toml'",
            "[mapping]\nfile = 'm.toml'",
            "m.toml: [mapping] file: stands in a file that",
        ),
        (
            "file = 'm.toml'",
            "[mapping.global]\nuserId = 5",
            "m.toml: [mapping.global] userId: is neither",
        ),
    ],
)
def test_a_mistake_in_or_about_a_mapping_file_names_the_file(tmp_path: Path, config, file, told):
    (tmp_path / "m.toml").write_text(file)
    (found,) = mistakes(f"[mapping]\n{config}", tmp_path)
    assert told in found


def settings(tmp_path: Path, text: str, **environ: str):
    path = tmp_path / "config.toml"
    path.write_text(f'[hightouch]\nwrite_key = "abcdefghijkl"\n{text}')
    return load(path, environ)


def test_a_configurations_mapping_is_compiled_with_its_types_and_folder(tmp_path: Path):
    (tmp_path / "m.toml").write_text(FILE)
    found = settings(tmp_path, '[validation]\ntypes = "quarantine"\n[mapping]\nfile = "m.toml"')
    assert list(mapping_mistakes(found)) == []
    mapper = compile_settings(found)
    assert mapper.apply(Event(b'{"type":"page","userId":7}'), "default") is not None


def test_another_file_is_compiled_beside_a_configuration(tmp_path: Path):
    (tmp_path / "m.toml").write_text(FILE)
    key = 'hmac_key = "0123456789abcdef"'
    found = settings(
        tmp_path, f'[mapping]\n{key}\n[mapping.global]\nx = {{ transform = "hmac_sha256" }}'
    )
    assert compile_file(found, tmp_path / "m.toml").revision == "2026-11"


def test_failing_tests_are_mistakes_of_the_configuration(tmp_path: Path):
    text = '[[tests]]\nname = "sum"\nevent = { type = "page", userId = "u" }\nexpect = { x = 1 }'
    (mistake,) = mapping_mistakes(settings(tmp_path, text))
    assert str(mistake).endswith(
        "[[tests]] 1 'sum': x is absent, expected 1; correct the mapping or the test"
    )


def test_the_mappings_scalars_can_come_from_the_environment(tmp_path: Path):
    found = settings(tmp_path, "", EDGEPROXY_MAPPING__REVISION="from outside")
    assert compile_settings(found).revision == "from outside"


# --- [[tests]] ---

EVENT = {"type": "track", "event": "e", "userId": "u", "properties": {"a": 1, "l": [{"b": 2}]}}


def run(rows: list[dict], mapping: dict | None = None, filters: list | None = None) -> list[str]:
    mapper: Mapper = compile_mapping(mapping or {}, filters or [], rows)
    return [failure.problem for failure in mapper.run_tests()]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, None),
        ({"expect": {"properties.a": 1, "properties.l[0].b": 2.0, "event": "e"}}, None),
        ({"expect": {"properties.a": 2}}, "properties.a is 1, expected 2"),
        ({"expect": {"properties.a": True}}, "properties.a is 1, expected true"),
        ({"expect": {"properties.b": 2}}, "properties.b is absent, expected 2"),
        ({"expect": {"properties.l[1].b": 2}}, "properties.l[1].b is absent, expected 2"),
        ({"expect": {"properties": {"a": 1, "l": [{"b": 2}]}}}, None),
        ({"absent": ["properties.z"]}, None),
        ({"absent": ["properties.a"]}, "properties.a is there, expected it absent"),
        ({"verdict": "filtered"}, "was accepted, expected filtered"),
        ({"event": {"type": "track", "userId": "u"}, "verdict": "missing_event"}, None),
        ({"event": {"type": "track"}}, "was missing_identity (one of `anonymousId` and `userId` is needed), expected accepted"),
        ({"json": "nonsense", "event": None, "verdict": "invalid_event"}, None),
        ({"json": '{"type":"page","userId":"u"}', "event": None}, None),
    ],
)  # fmt: skip
def test_a_test_holds_or_says_what_it_found(row: dict, problem: str | None):
    row = {"event": EVENT} | row
    row = {key: value for key, value in row.items() if value is not None}
    assert run([row]) == ([] if problem is None else [problem])


def test_a_whole_output_is_compared_but_for_the_time_of_sending():
    event = {"messageId": "m", "originalTimestamp": "2026-11-23T10:00:00Z", **EVENT}
    assert run([{"event": event, "output": event}]) == []
    assert run([{"event": event, "output": event | {"event": "f"}}]) == [
        'event is "e", expected "f"'
    ]
    assert run([{"event": event, "output": event | {"more": 1}}]) == ["more is absent, expected 1"]
    assert run([{"event": event | {"more": 1}, "output": event}]) == [
        "more is 1, expected it absent"
    ]


def test_a_test_may_expect_a_filter_and_speaks_of_a_source():
    filters = [{"name": "f", "action": "drop", "sources": "app"}]
    row = {"event": EVENT, "source": "app", "verdict": "filtered"}
    assert run([row], filters=filters) == []
    assert run([row | {"filter": "f"}], filters=filters) == []
    assert run([row | {"filter": "g"}], filters=filters) == ["was filtered by 'f', expected 'g'"]
    assert run([row | {"source": "web"}], filters=filters) == ["was accepted, expected filtered"]


def test_no_event_of_a_test_is_too_old():
    assert run([{"event": EVENT | {"timestamp": "1999-01-01T00:00:00Z"}}]) == []


def test_a_number_beyond_all_bounds_fails_a_test_and_nothing_else():
    text = '{"type":"page","userId":"u","properties":{"n":1e400}}'
    assert run([{"json": text, "expect": {"properties.n": 1}}]) == [
        "properties.n is 1e400, expected 1"
    ]
    assert run([{"json": text, "output": {"type": "page"}}]) == [
        "output holds a number that cannot be compared: name keys in expect"
    ]


def test_what_is_remembered_of_events_fields_is_bounded():
    mapper = compile_mapping({"global": {"properties.total": "properties.value"}})
    receipt = Receipt(received=1_795_448_194_379)
    for number in range(300):
        for name in (f"{number}" * 30_000, f"n{number}", "value"):
            event = {
                "type": "page", "messageId": "m", "userId": "u",
                "timestamp": "2026-11-23T15:36:34.379Z", "properties": {name: 1},
            }  # fmt: skip
            mapper.short_way(json.dumps(event).encode(), "web", receipt, 96_000, 1e12)
    plan, _ = mapper._find("page", None, "web")
    kept = [*plan.variants._seen, *plan.variants._known]
    assert len(kept) <= 256
    assert max(len(name) for names in kept for fields in names for name in fields) < 1000
    assert (("value",), ()) in plan.variants._known
