"""The shipped config.toml is held to the code."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from edgeproxy.config import load
from edgeproxy.config.settings import TABLES, SourceTable, kinds_of

SHIPPED = Path(__file__).parents[2] / "config.toml"
SETTING = re.compile(r"#(\w+) = (.+)")


def uncommented() -> str:
    return "\n".join(
        line[1:] if SETTING.fullmatch(line) else line for line in SHIPPED.read_text().splitlines()
    )


def test_as_shipped_it_says_nothing():
    tables = tomllib.loads(SHIPPED.read_text())
    assert all(table == {} for table in tables.values())
    assert load(SHIPPED, {}, judges=()) == with_path(load(None, {}, judges=()), SHIPPED)


def test_uncommented_it_says_the_defaults(tmp_path: Path):
    path = tmp_path / "config.toml"
    path.write_text(uncommented())
    assert load(path, {}, judges=()) == with_path(load(None, {}, judges=()), path)


@pytest.mark.parametrize(("name", "struct"), TABLES, ids=[name for name, _ in TABLES])
def test_it_shows_every_setting_of_each_table_and_no_other(name: str, struct: type[msgspec.Struct]):
    expected = [
        key + suffix
        for key, kind in kinds_of(struct).items()
        for suffix in (("", "_file") if kind.secret else ("",))
    ]
    assert list(tomllib.loads(uncommented())[name]) == expected


def test_it_shows_every_setting_of_a_source():
    shown = re.findall(r"^#     (\w+) = ", SHIPPED.read_text(), re.MULTILINE)
    assert shown == list(kinds_of(SourceTable))


def test_every_setting_or_group_of_settings_is_explained():
    lines = SHIPPED.read_text().splitlines()
    for number, line in enumerate(lines):
        if not SETTING.fullmatch(line):
            continue
        before = number
        while SETTING.fullmatch(lines[before]):
            before -= 1
        assert lines[before].startswith("# "), line


def with_path(settings: msgspec.Struct, path: Path) -> msgspec.Struct:
    return msgspec.structs.replace(settings, path=path, folder=path.parent)
