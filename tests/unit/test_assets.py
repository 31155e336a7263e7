"""The browser assets are there, are what they say, and say so when they are not."""

import gzip
from pathlib import Path

import brotli
import pytest

from edgeproxy import assets

ROOT = Path(__file__).parents[2]


def test_the_browser_sdk_is_one_script_with_its_version():
    asset = assets.browser_sdk()
    assert asset.version.count(".") == 2
    assert b"htevents" in asset.plain
    assert gzip.decompress(asset.gzip) == asset.plain
    assert brotli.decompress(asset.brotli) == asset.plain


def test_the_browser_sdk_loads_no_parts_of_itself_from_elsewhere():
    plain = assets.browser_sdk().plain
    assert b".bundle." not in plain
    assert b"cdnjs" not in plain
    assert b"/browser/candidate/" not in plain


def test_the_etag_belongs_to_the_content():
    first, second = assets.browser_sdk(), assets.browser_sdk()
    assert first.etag == second.etag
    assert first.etag != assets.Asset("x", "1", b"other", b"", b"").etag


def test_an_unknown_asset_is_an_error_that_says_what_to_do():
    with pytest.raises(assets.AssetsMissingError, match="pip install"):
        assets.read("no-such-script.js")


def test_a_checkout_that_was_never_built_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(assets.resources, "files", lambda _: tmp_path)
    with pytest.raises(assets.AssetsMissingError, match="never built"):
        assets.browser_sdk()


def test_the_licences_of_what_is_bundled_are_beside_it():
    text = (ROOT / "edgeproxy/bundled/THIRD_PARTY_LICENSES.txt").read_text()
    assert "@ht-sdks/events-sdk-js-browser" in text
    assert "MIT License" in text


def test_the_page_is_bundled_with_its_licences_and_a_type_for_each_file():
    kinds = {
        name: assets.read(name).content_type for name in ("admin.html", "admin.css", "admin.js")
    }
    assert [kind.partition(";")[0] for kind in kinds.values()] == [
        "text/html",
        "text/css",
        "text/javascript",
    ]
    text = (ROOT / "edgeproxy/bundled/THIRD_PARTY_LICENSES.txt").read_text()
    assert "preact 10" in text
    assert "uplot 1" in text


def test_the_locks_name_no_registry():
    locks = [ROOT / "package-lock.json", ROOT / "tests/e2e/node/package-lock.json"]
    assert [lock for lock in locks if '"resolved"' in lock.read_text()] == []
