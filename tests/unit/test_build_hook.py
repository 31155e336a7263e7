"""The build hook asks for Node only when the assets do not match what they are made of."""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hook(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import hatch_build

    return hatch_build


@pytest.fixture
def tree(tmp_path, hook):
    """What an sdist holds of the assets and their sources."""
    for name in (*hook.SOURCES, hook.ASSETS):
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    return tmp_path


def plugin(hook, root):
    return hook.BrowserAssets(str(root), {}, None, None, str(root), "wheel")


def test_assets_that_match_need_no_node(hook, tree, monkeypatch):
    monkeypatch.setattr(hook, "build", lambda _: pytest.fail("nothing is to be built"))
    assert plugin(hook, tree).dependencies() == []
    plugin(hook, tree).initialize("standard", {})


@pytest.mark.parametrize("changed", ["package-lock.json", "web/build.mjs", "web/sdk/events.js"])
def test_a_changed_source_needs_node(hook, tree, changed):
    with (tree / changed).open("a") as file:
        file.write("\n")
    assert plugin(hook, tree).dependencies() == [hook.NODE]


def test_a_fresh_checkout_needs_node(hook, tree):
    shutil.rmtree(tree / hook.ASSETS)
    assert plugin(hook, tree).dependencies() == [hook.NODE]


def test_a_build_that_fails_leaves_the_assets_and_says_what_it_needs(hook, tree, monkeypatch):
    (tree / "package-lock.json").write_text("{}")
    before = sorted((tree / hook.ASSETS).iterdir())
    monkeypatch.setattr(
        hook, "_node_program", lambda _: [sys.executable, "-c", "raise SystemExit(3)"]
    )
    with pytest.raises(RuntimeError, match=r"npm ci.*ended with 3"):
        hook.build(tree)
    assert sorted((tree / hook.ASSETS).iterdir()) == before
