"""Firefox and WebKit, as Debian has them, driven by the protocols that they speak themselves.

Firefox speaks WebDriver BiDi on a socket; WebKitGTK, the nearest to Safari on Linux, comes with a
driver that speaks classic WebDriver over HTTP, and needs an X server. Only what the tests of the
page ask for is here. (Playwright drives Chromium; its other browsers are builds of its own.)
"""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64decode
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.processes import environment, free_ports

__all__ = ["NEEDED", "Driver", "open_browser"]

PATIENCE = 20.0  # seconds for anything that should take less than one

NEEDED = {"firefox": ("firefox-esr",), "webkit": ("WebKitWebDriver", "Xvfb")}
"""Which programs a browser takes."""

#: Of WebKit's. Without a window manager the window under the pointer has the focus, and the pointer
#: is in the middle.
SCREEN = (2600, 1200)

KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Space": " ", "Shift": "\ue008"}

# Nothing outside this machine is asked for anything.
FIREFOX_PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.no_proxies_on": "127.0.0.1, localhost",
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.proxy.type": 1,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.enabled": False,
    "ui.prefersReducedMotion": 1,
}

# What a page complains of, where the protocol does not tell.
LISTEN = """
window.problems = []
addEventListener('error', ({ message }) => problems.push(message))
addEventListener('unhandledrejection', ({ reason }) => problems.push(String(reason)))
addEventListener('securitypolicyviolation', (e) => problems.push(e.violatedDirective + ' ' + e.blockedURI))
for (const name of ['error', 'warn']) console[name] = (...said) => problems.push(said.join(' '))
"""


class Driver:
    """One window of one browser."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        """What scripts complained of since the start."""

    async def go(self, url: str) -> None:
        """Open an address, and wait until it is loaded."""
        raise NotImplementedError

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, once its promise is fulfilled; JSON."""
        raise NotImplementedError

    async def resize(self, width: int, height: int = 900) -> None:
        """Give the page so much room."""
        raise NotImplementedError

    async def press(self, *keys: str) -> None:
        """Press keys, all of them down before the first is up again."""
        raise NotImplementedError

    async def picture(self) -> bytes:
        """A PNG of what is in the window."""
        raise NotImplementedError

    async def complaints(self) -> list[str]:
        """What scripts complained of so far."""
        return self.problems

    async def until(self, expression: str) -> None:
        """Wait until an expression is truthy; while it throws, it is not."""
        found = await self.evaluate(
            "new Promise((done) => {"
            f" const ends = Date.now() + {PATIENCE * 1000};"
            " const look = () => {"
            "   let found = false;"
            f"  try {{ found = !!({expression}) }} catch {{ /* not there yet */ }}"
            "   if (found || Date.now() > ends) done(found);"
            "   else setTimeout(look, 25)"
            " };"
            " look() })"
        )
        if not found:
            text = await self.evaluate("document.body.innerText")
            raise AssertionError(f"waited in vain for {expression}; the page says: {text[:3000]}")

    async def until_text(self, text: str, within: str = "body") -> None:
        """Wait until an element that fits the selector holds this text."""
        elements = f"[...document.querySelectorAll({json.dumps(within)})]"
        await self.until(f"{elements}.some((one) => one.innerText.includes({json.dumps(text)}))")

    async def click(self, selector: str, text: str = "") -> None:
        """Click on the first element that fits, once it is there."""
        elements = f"[...document.querySelectorAll({json.dumps(selector)})]"
        found = f"{elements}.find((one) => one.textContent.includes({json.dumps(text)}))"
        await self.until(f"!!{found}")
        await self.evaluate(f"{found}.click()")


@asynccontextmanager
async def open_browser(name: str, folder: Path, *, dark: bool = False):
    """Start `firefox` or `webkit` with a profile in `folder`: a `Driver`; end it afterwards."""
    if name == "firefox":
        async with _firefox(folder, dark=dark) as driver:
            yield driver
    else:
        async with _webkit(folder, dark=dark) as driver:
            yield driver


# --- Firefox -----------------------------------------------------------------------------------------


class _Firefox(Driver):
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self._socket = socket
        self._numbers = count(1)
        self._context = ""

    async def begin(self) -> None:
        await self.call("session.new", capabilities={})
        await self.call("session.subscribe", events=["log.entryAdded"])
        # In the tab that it starts with, the address bar has the focus.
        tab = await self.call("browsingContext.create", type="tab")
        self._context = tab["context"]

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(PATIENCE * 2):
            while (told := await self._socket.receive_json()).get("id") != number:
                self._hear(told)
        assert told["type"] == "success", f"{method}: {told.get('error')} {told.get('message')}"
        return told["result"]

    def _hear(self, told: dict[str, Any]) -> None:
        if told.get("method") != "log.entryAdded":
            return
        entry = told["params"]
        if entry["level"] in {"error", "warn"}:
            self.problems.append(entry["text"])

    async def go(self, url: str) -> None:
        await self.call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def evaluate(self, expression: str) -> Any:
        told = await self.call(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then((found) => JSON.stringify(found))",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert told["type"] == "success", told["exceptionDetails"]["text"]
        value = told["result"].get("value")
        return None if value is None else json.loads(value)

    async def resize(self, width: int, height: int = 900) -> None:
        viewport = {"width": width, "height": height}
        await self.call("browsingContext.setViewport", context=self._context, viewport=viewport)

    async def press(self, *keys: str) -> None:
        await self.call("input.performActions", context=self._context, actions=_pressed(keys))

    async def picture(self) -> bytes:
        told = await self.call("browsingContext.captureScreenshot", context=self._context)
        return b64decode(told["data"])


@asynccontextmanager
async def _firefox(folder: Path, *, dark: bool):
    profile = folder / "firefox"
    profile.mkdir()
    preferences = {**FIREFOX_PREFERENCES, "ui.systemUsesDarkTheme": int(dark)}
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in preferences.items()]
    (profile / "user.js").write_text("".join(lines))
    process = await asyncio.create_subprocess_exec(
        *("firefox-esr", "--headless", "--no-remote", "--profile", str(profile)),
        *("--remote-debugging-port", "0"),
        env=environment() | {"HOME": str(folder), "MOZ_CRASHREPORTER_DISABLE": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    reading = None
    try:
        async with asyncio.timeout(PATIENCE * 2):
            url = await _announced(process)
        # Whatever else it writes must not fill the pipe.
        reading = asyncio.create_task(process.stderr.read())
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/session", max_msg_size=0) as socket,
        ):
            driver = _Firefox(socket)
            await driver.begin()
            yield driver
    finally:
        await _end(process)
        if reading is not None:
            await reading


async def _announced(process: asyncio.subprocess.Process) -> str:
    said = b""
    while line := await process.stderr.readline():
        said += line
        if b"listening on ws://" in line:
            return line.decode().split()[-1]
    raise AssertionError(f"Firefox ended: {said.decode()[-2000:]}")


# --- WebKit ------------------------------------------------------------------------------------------


class _WebKit(Driver):
    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        super().__init__()
        self._session = session
        self._base = base

    async def begin(self) -> None:
        # A window without tools can be as narrow as a phone.
        shape = "popup,toolbar=no,menubar=no,location=no,width=1280,height=900"
        await self.evaluate(f"void open('about:blank', 'page', '{shape}')")
        first = await self._call("GET", "window")
        (popup,) = set(await self._call("GET", "window/handles")) - {first}
        await self._call("POST", "window", handle=popup)
        await self.resize(1280)

    async def _call(self, method: str, path: str, **body: object) -> Any:
        json_body = body if method == "POST" else None
        async with self._session.request(method, f"{self._base}/{path}", json=json_body) as answer:
            value = (await answer.json())["value"]
        assert answer.status == 200, f"{path}: {value}"
        return value

    async def go(self, url: str) -> None:
        await self._call("POST", "url", url=url)
        await self.evaluate(f"(() => {{ if (!window.problems) {{ {LISTEN} }} }})()")

    async def evaluate(self, expression: str) -> Any:
        script = (
            "const done = arguments[0];"
            f"Promise.resolve().then(() => ({expression}))"
            ".then((found) => done([JSON.stringify(found)]), (error) => done([null, String(error)]))"
        )
        value, *problem = await self._call("POST", "execute/async", script=script, args=[])
        assert not problem, problem
        return None if value is None else json.loads(value)

    async def resize(self, width: int, height: int = 900) -> None:
        left = (SCREEN[0] - width) // 2
        await self._call("POST", "window/rect", x=left, y=0, width=width, height=height)
        await self.until(f"innerWidth === {width}")

    async def press(self, *keys: str) -> None:
        await self._call("POST", "actions", actions=_pressed(keys))

    async def picture(self) -> bytes:
        return b64decode(await self._call("GET", "screenshot"))

    async def complaints(self) -> list[str]:
        return await self.evaluate("window.problems ?? []")


@asynccontextmanager
async def _webkit(folder: Path, *, dark: bool):
    async with _screen() as display:
        (port,) = free_ports(1)
        process = await asyncio.create_subprocess_exec(
            *("WebKitWebDriver", f"--port={port}"),
            env=environment() | {"DISPLAY": display, "HOME": str(folder), "NO_AT_BRIDGE": "1"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            arguments = ["--automation", "--javascript-can-open-windows-automatically=true"]
            options = {"args": [*arguments, "--dark-mode"] if dark else arguments}
            wanted = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                identity = await _begun(session, {"capabilities": wanted})
                driver = _WebKit(session, f"/session/{identity}")
                try:
                    await driver.begin()
                    yield driver
                finally:
                    async with session.delete(f"/session/{identity}"):
                        pass
        finally:
            await _end(process)


async def _begun(session: aiohttp.ClientSession, wanted: dict[str, object]) -> str:
    async with asyncio.timeout(PATIENCE * 2):
        while True:
            try:
                async with session.post("/session", json=wanted) as answer:
                    value = (await answer.json())["value"]
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)  # another process
            else:
                assert answer.status == 200, value
                return value["sessionId"]


@asynccontextmanager
async def _screen():
    """An X server without a screen, as wide as a wall: its display."""
    reader, writer = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *("Xvfb", "-displayfd", str(writer), "-screen", "0", f"{SCREEN[0]}x{SCREEN[1]}x24"),
            *("-nolisten", "tcp", "-noreset"),
            pass_fds=(writer,),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    finally:
        os.close(writer)
    try:
        async with asyncio.timeout(PATIENCE):
            number = await asyncio.to_thread(os.read, reader, 16)
        yield f":{number.decode().strip()}"
    finally:
        os.close(reader)
        await _end(process)


# --- both --------------------------------------------------------------------------------------------


def _pressed(keys: tuple[str, ...]) -> list[dict[str, object]]:
    codes = [KEYS.get(key, key) for key in keys]
    down = [{"type": "keyDown", "value": code} for code in codes]
    up = [{"type": "keyUp", "value": code} for code in reversed(codes)]
    return [{"type": "key", "id": "keyboard", "actions": [*down, *up]}]


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
