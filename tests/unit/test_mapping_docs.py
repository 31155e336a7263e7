"""docs/mapping.md: every example does what it says."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from edgeproxy.mapping import Mapper, compile_mapping
from edgeproxy.mapping.transforms import TRANSFORMS

PAGE = (Path(__file__).parents[2] / "docs/mapping.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^#+ (?P<title>.*)$|^```(?P<kind>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
ADDED = ("sentAt", "messageId", "originalTimestamp")


def compiled(text: str) -> Mapper:
    tables = tomllib.loads(text)
    return compile_mapping(
        tables.get("mapping", {}), tables.get("filters", []), tables.get("tests", [])
    )


def examples() -> list:
    """(section, mapping, event, what is told of it), in the page's order."""
    found, title, mapping, event = [], "", "", None
    for block in BLOCK.finditer(PAGE):
        if block["title"] is not None:
            title = block["title"]
        elif block["kind"] == "toml":
            mapping = block["text"]
        elif block["kind"] in ("json", "text") and event is not None:
            found.append(pytest.param(mapping, event, block["text"], id=f"{title}-{len(found)}"))
            event = None
        elif block["kind"] == "json":
            event = block["text"]
    return found


@pytest.mark.parametrize(("mapping", "event", "told"), examples())
def test_an_example_sends_what_it_shows(mapping: str, event: str, told: str):
    found = compiled(mapping).explain(event.encode(), "default")
    if not told.startswith("{"):
        assert f"{found.verdict} by {found.filter}" == told.strip()
        return
    assert found.output is not None, found
    # Numbers as they are spelled; key order is shown as it is sent, but for what is added in front.
    wanted = json.loads(told, parse_float=str, parse_int=str)
    sent = json.loads(found.output, parse_float=str, parse_int=str)
    sent = {key: sent[key] for key in sent if key in wanted or key not in ADDED}
    assert sent == wanted


def test_the_page_has_many_examples():
    assert len(examples()) >= 20


def mappings() -> list[str]:
    return [block["text"] for block in BLOCK.finditer(PAGE) if block["kind"] == "toml"]


@pytest.mark.parametrize("mapping", mappings())
def test_every_mapping_on_the_page_compiles_and_passes_its_tests(mapping: str):
    assert compiled(mapping).run_tests() == ()


def transform_rows() -> list[list[str]]:
    section = PAGE.split("## Transforms")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


@pytest.mark.parametrize(("transform", "value", "becomes"), transform_rows())
def test_every_transform_does_what_its_row_says(transform: str, value: str, becomes: str):
    first = re.match(r"`([^`]*)`", transform)
    assert first is not None
    tables = tomllib.loads(f"transform = {first[1]}")
    mapper = compile_mapping({"global": {"properties.x": tables}})
    event = f'{{"type":"page","userId":"u","properties":{{"x":{value.strip("`")}}}}}'
    output = mapper.explain(event.encode(), "default").output
    assert output is not None
    properties = json.loads(output, parse_float=str)["properties"]
    if becomes == "left out":
        assert properties == {}
    else:
        assert properties == {"x": json.loads(becomes.strip("`"), parse_float=str)}


def test_every_transform_has_a_row():
    shown = " ".join(row[0] for row in transform_rows())
    assert [name for name in TRANSFORMS if not re.search(rf'["{{ ]{name}["\s]', shown)] == []
