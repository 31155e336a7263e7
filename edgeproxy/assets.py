"""What the package carries for browsers: third-party scripts, built when the wheel was made.

Nothing here asks the network. A checkout that was never built lacks the files; reading one then
raises `AssetsMissingError`, whose text says what to do.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib import resources
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Asset", "AssetsMissingError", "browser_sdk", "read"]

BROWSER_SDK = "events.min.js"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_REMEDY = (
    "this copy of edgeproxy was never built: the browser assets are missing. "
    "Run `pip install .` (or `pip install -e .`) in the checkout, or install a wheel."
)


class AssetsMissingError(Exception):
    """The installed copy has no browser assets, or not the one that was asked for."""


class Asset(msgspec.Struct, frozen=True, dict=True):
    """One script as it is served, in every form that clients may ask for.

    `version` is that of the package it was bundled from: it changes whenever the content may.
    """

    name: str
    version: str
    plain: bytes
    gzip: bytes
    brotli: bytes
    content_type: str = _TYPES[".js"]

    @cached_property
    def etag(self) -> str:
        """A strong validator of the plain form, without quotes."""
        return hashlib.sha256(self.plain).hexdigest()[:32]


def browser_sdk() -> Asset:
    """The Hightouch browser SDK in one file, for its CDN path."""
    return read(BROWSER_SDK)


def read(name: str) -> Asset:
    """The bundled file `name`, read anew on each call: keep it.

    Raises `AssetsMissingError` when the build lacks it.
    """
    folder = resources.files("edgeproxy").joinpath("bundled")
    versions = msgspec.json.decode(_bytes(folder, "versions.json"), type=dict[str, str])
    if name not in versions:
        raise AssetsMissingError(f"there is no bundled asset {name!r}; {_REMEDY}")
    return Asset(
        name=name,
        version=versions[name],
        plain=_bytes(folder, name),
        gzip=_bytes(folder, f"{name}.gz"),
        brotli=_bytes(folder, f"{name}.br"),
        content_type=_TYPES[PurePosixPath(name).suffix],
    )


def _bytes(folder: Traversable, name: str) -> bytes:
    try:
        return folder.joinpath(name).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise AssetsMissingError(_REMEDY) from missing
