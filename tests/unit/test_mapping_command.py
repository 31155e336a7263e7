"""`edgeproxy map`: what it reads, prints, explains and compares."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeproxy.cli.map import command

CONFIG = """
[hightouch]
write_key = "abcdefghijkl"
[mapping]
preset = "ecommerce"
[mapping.global]
"properties.total" = "properties.sum"
"properties.phone" = { transform = "e164" }
[[filters]]
name = "noise"
action = "drop"
match = ["Noise"]
"""
EVENT = '{"type":"track","event":"order_completed","userId":7,"messageId":"m","originalTimestamp":"2026-11-23T10:00:00Z","properties":{"sum":1.10}}'
SENT = '{"sentAt":"2026-11-23T10:00:00.000Z","type":"track","event":"Order Completed","userId":"7","messageId":"m","originalTimestamp":"2026-11-23T10:00:00Z","properties":{"total":1.10}}'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


def run(config: Path, *arguments: str, given: str = EVENT, code: int = 0) -> Result:
    done = CliRunner().invoke(command, ["--config", str(config), *arguments], input=given)
    assert done.exit_code == code, done.output
    return done


def test_it_prints_what_would_be_sent_one_event_a_line(config: Path):
    done = run(config, given=f"{EVENT}\n\n{EVENT}\n")
    assert done.stdout.splitlines() == [SENT, SENT]
    assert done.stderr == ""


def test_a_file_is_read_as_standard_input_is(config: Path, tmp_path: Path):
    (tmp_path / "events.ndjson").write_text(EVENT)
    assert run(config, str(tmp_path / "events.ndjson"), given="").stdout.strip() == SENT


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(json.loads(EVENT, parse_float=float), indent=2),
        f"[{EVENT}]",
        f"[\n{EVENT},\n{EVENT}]",
        f'{{"batch":[{EVENT}],"sentAt":"2026-11-23T10:00:00Z"}}',
        f'{{\n"batch":[\n{EVENT}\n]}}',
    ],
)
def test_one_json_document_may_go_over_many_lines(config: Path, text: str):
    lines = run(config, given=text).stdout.splitlines()
    assert lines
    assert all(json.loads(line) == json.loads(SENT) for line in lines)


def test_a_batchs_context_and_time_reach_its_events(config: Path):
    batch = '{"batch":[{"type":"page","userId":"u"}],"sentAt":"2026-11-23T10:00:00Z","context":{"library":{"name":"go"}}}'
    sent = json.loads(run(config, given=batch).stdout)
    assert sent["context"] == {"library": {"name": "go"}}
    assert sent["originalTimestamp"] == "2026-11-23T10:00:00Z"


def test_what_is_refused_or_filtered_is_said_on_standard_error(config: Path):
    given = '{"type":"track","event":"Noise","userId":"u"}\n{"type":"track","userId":"u"}\nnonsense\n[1]'
    done = run(config, given=given)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "event 1: filtered by 'noise'"
    assert lines[1].startswith("event 2: refused, missing_event: ")
    assert lines[2].startswith("event 3: refused, invalid_event: ")
    assert lines[3].startswith("event 4: refused, not_an_object: ")


def test_an_explanation_names_rule_input_coercion_and_size(config: Path):
    given = EVENT.replace("1.10}", '1.10,"phone":"none"}')
    text = run(config, "--explain", given=given).stdout
    assert f"event 1: accepted, {len(SENT)} of 96000 bytes (mapping " in text
    assert 'named by [mapping.event."Order Completed"]' in text
    for line in (
        'properties.total moved from properties.sum [[mapping.global] "properties.total"]',
        "userId coerced [Hightouch's field table · from Integer to String]",
        "messageId as it came [Hightouch's field table]",
        'properties.phone left out [[mapping.global] "properties.phone" · it is not a phone number',
        "the event passed [[[filters]] noise]",
    ):
        assert line in " ".join(text.split())


def test_json_is_one_object_a_line(config: Path):
    given = f'{EVENT}\n{{"type":"track","event":"Noise","userId":"u"}}'
    one, two = map(json.loads, run(config, "--json", "--explain", given=given).stdout.splitlines())
    assert one["verdict"] == "accepted"
    assert one["output"]["event"] == "Order Completed"
    assert one["size"] == len(SENT)
    assert {"key", "did", "rule", "input", "detail"} <= set(one["supplied"][0])
    assert (two["verdict"], two["filter"], two["output"]) == ("filtered", "noise", None)


def test_a_difference_shows_what_another_mapping_changes(config: Path, tmp_path: Path):
    other = tmp_path / "next.toml"
    other.write_text(
        '[mapping]\nrevision = "next"\n[mapping.global]\n"properties.total" = "properties.sum"\n'
    )
    same = '{"type":"page","userId":"u"}'
    noise = '{"type":"track","event":"Noise","userId":"u"}'
    done = run(config, "--diff", str(other), given=f"{EVENT}\n{same}\n{noise}")
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "event 1:", '  - event: "Order Completed"', '  + event: "order_completed"',
    ]  # fmt: skip
    assert "  - filtered by 'noise'" in lines
    assert "event 2:" not in lines
    assert lines[-1].startswith("2 of 3 events differ (")
    first = json.loads(run(config, "--diff", str(other), "--json").stdout)
    assert first["changes"] == [
        {"key": "event", "before": "Order Completed", "after": "order_completed"}
    ]


def test_a_wrong_mapping_exits_78_with_every_mistake(config: Path, tmp_path: Path):
    config.write_text(f"{CONFIG}\n[mapping.source.nope]\n[mapping.type.trak]\n")
    done = run(config, code=78)
    assert len(done.stderr.splitlines()) == 2
    config.write_text(CONFIG)
    (tmp_path / "next.toml").write_text("[mapping.global]\nuserId = 5")
    done = run(config, "--diff", str(tmp_path / "next.toml"), code=78)
    assert "next.toml: [mapping.global] userId: " in done.stderr


def test_a_mapping_whose_tests_fail_can_still_be_looked_at(config: Path):
    config.write_text(
        f'{CONFIG}\n[[tests]]\nevent = {{ type = "page", userId = "u" }}\nexpect = {{ x = 1 }}\n'
    )
    assert run(config).stdout.strip() == SENT


def test_a_source_that_does_not_exist_is_wrong_usage(config: Path):
    assert "'app' is not one of default" in run(config, "--source", "app", code=2).stderr


def test_no_event_is_too_old(config: Path):
    assert "1999" in run(config, given=EVENT.replace("2026", "1999")).stdout


@pytest.mark.parametrize("key", ["sentAt", "timestamp", "originalTimestamp"])
@pytest.mark.parametrize("value", [b'"\xff"', b"[" * 5000 + b"]" * 5000], ids=["bytes", "depth"])
def test_an_event_with_a_broken_time_is_refused_like_any_other(
    config: Path, tmp_path: Path, key: str, value: bytes
):
    event = b'{"type":"page","userId":"u","%b":%b}\n' % (key.encode(), value)
    (tmp_path / "events.ndjson").write_bytes(event + EVENT.encode())
    done = run(config, str(tmp_path / "events.ndjson"), given="")
    assert "event 1: refused, invalid_event" in done.stderr
    assert done.stdout.strip() == SENT
