"""A small web site on a port of its own, whose pages load an SDK from elsewhere."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

METHODS = ["identify", "track", "page", "screen", "group", "alias", "reset", "ready", "on"]

HIGHTOUCH = """<!doctype html><meta charset="utf-8"><title>A shop</title><h1>A shop</h1>
<script>
  const queue = (window.htevents = [])
  for (const method of {methods}) {{
    queue[method] = (...given) => {{ queue.push([method, ...given]); return queue }}
  }}
  queue._writeKey = {key}
  queue._loadOptions = {options}
</script>
<script async src="{script}"></script>
"""

SEGMENT = """<!doctype html><meta charset="utf-8"><title>A shop</title><h1>A shop</h1>
<script src="/segment.js"></script>
<script>window.segment = window.loadSegment({settings}, {options})</script>
"""

RUDDERSTACK = """<!doctype html><meta charset="utf-8"><title>A shop</title><h1>A shop</h1>
<script src="/rudderstack.js"></script>
<script>window.rudder = window.loadRudder({key}, {proxy}, {options})</script>
"""


class Site:
    """Pages by path, to be set by tests."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.scripts: dict[str, Path] = {}
        self.url = ""

    def add_hightouch(self, path: str, proxy: str, key: str, **options: object) -> str:
        """A page with the script of `proxy` that sends there; its address."""
        host = proxy.partition("://")[2]
        self.pages[path] = HIGHTOUCH.format(
            methods=json.dumps(METHODS),
            key=json.dumps(key),
            options=json.dumps({"apiHost": host, "protocol": "http", **options}),
            script=f"{proxy}/browser/release/v1-latest/events.min.js",
        )
        return self.url + path

    def add_segment(self, path: str, proxy: str, key: str, script: Path, **options: object) -> str:
        """A page with Segment's SDK from `script`, its settings and API at `proxy`."""
        host = proxy.partition("://")[2]
        api = {"apiHost": f"{host}/v1", "protocol": "http", **options}
        self.scripts["/segment.js"] = script
        self.pages[path] = SEGMENT.format(
            settings=json.dumps({"writeKey": key, "cdnURL": proxy}),
            options=json.dumps({"integrations": {"Segment.io": api}}),
        )
        return self.url + path

    def add_rudderstack(
        self, path: str, proxy: str, key: str, script: Path, **options: object
    ) -> str:
        """A page with RudderStack's SDK from `script`, its settings and API at `proxy`."""
        self.scripts["/rudderstack.js"] = script
        self.pages[path] = RUDDERSTACK.format(
            key=json.dumps(key),
            proxy=json.dumps(proxy),
            options=json.dumps({"configUrl": proxy, **options}),
        )
        return self.url + path

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if request.path in self.pages:
            return web.Response(text=self.pages[request.path], content_type="text/html")
        if request.path in self.scripts:
            text = self.scripts[request.path].read_text()
            return web.Response(text=text, content_type="text/javascript")
        return web.Response(status=404 if request.path != "/favicon.ico" else 204)

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1"):
        app = web.Application()
        app.router.add_get("/{path:.*}", self._page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, 0).start()
        self.url = f"http://{host}:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()
