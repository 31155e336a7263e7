"""The browser SDK's script at its CDN path, so that a site can load it first-party.

`v1-latest` names no version, so a plain load is revalidated hourly. A page that adds `?v=` with the
version in use may keep the answer for ever: a new release comes with a new address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import ETag, web

if TYPE_CHECKING:
    from edgeproxy.assets import Asset

__all__ = ["ScriptService"]

_FOREVER = "public, max-age=31536000, immutable"
_HOURLY = "public, max-age=3600"


class ScriptService:
    """Answers GET and HEAD for one asset, in the encoding that the client prefers."""

    def __init__(self, asset: Asset) -> None:
        self._asset = asset

    async def script(self, request: web.BaseRequest) -> web.Response:
        """The script; 304 when the client's copy is current."""
        asset = self._asset
        named = request.query.get("v") == asset.version
        headers = {
            # The same for every page, so that a CDN in front may give one answer to all.
            "Access-Control-Allow-Origin": "*",
            "Cache-Control": _FOREVER if named else _HOURLY,
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
        }
        if _holds(request.if_none_match, asset.etag):
            response = web.Response(status=304, headers=headers)
        else:
            body, encoding = self._encoded(request.headers.get("Accept-Encoding", ""))
            headers["Content-Type"] = asset.content_type
            if encoding is not None:
                headers["Content-Encoding"] = encoding
            response = web.Response(body=body, headers=headers)
        # Weak, because the compressed forms share it.
        response.etag = ETag(asset.etag, is_weak=True)
        return response

    def _encoded(self, accepted: str) -> tuple[bytes, str | None]:
        codings = _codings(accepted)
        if "br" in codings:
            return self._asset.brotli, "br"
        if "gzip" in codings:
            return self._asset.gzip, "gzip"
        return self._asset.plain, None


def _holds(validators: tuple[ETag, ...] | None, etag: str) -> bool:
    return any(validator.value in {etag, "*"} for validator in validators or ())


def _codings(accepted: str) -> set[str]:
    """The content codings that an Accept-Encoding header allows (RFC 9110, 12.5.3)."""
    found = set()
    for item in accepted.lower().split(","):
        coding, _, parameters = item.partition(";")
        refused = parameters.replace(" ", "") in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
        if not refused:
            found.add(coding.strip())
    return found
