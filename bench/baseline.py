"""The HTTP baseline: an aiohttp handler on uvloop that reads the body and answers.

`python -m bench.baseline PORT`
"""

import asyncio
import sys

import uvloop
from aiohttp import web


async def _take(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b'{"success":true}', content_type="application/json")


async def _main(port: int) -> None:
    app = web.Application(client_max_size=4 * 2**20)
    app.router.add_post("/v1/track", _take)
    app.router.add_post("/v1/batch", _take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
