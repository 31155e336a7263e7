"""A command's way to the files of a stopped proxy."""

import asyncio
import os
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from edgeproxy import logs
from edgeproxy.buffer.base import BufferFaultError, BufferHeldError
from edgeproxy.buffer.database import DATABASE
from edgeproxy.buffer.folder import Lock
from edgeproxy.buffer.sqlite import SqliteBuffer
from edgeproxy.cli.options import refuse
from edgeproxy.config import (
    Buffer,
    ConfigError,
    Log,
    buffer_of_instance,
    default_path,
    load_table,
)

__all__ = ["Stopped", "buffer_settings", "locked", "opened"]

T = TypeVar("T")

#: Seconds to wait for a process that is just ending.
_PATIENCE = 10.0
#: What the buffer would log is told by the commands; "error" leaves out what they ask for.
_LOG = Log(level="error", format="text")


def buffer_settings(config_path: Path | None, instance: int | None) -> Buffer:
    """The `[buffer]` table; ends the process where it is wrong, whatever others say."""
    try:
        buffer = load_table(config_path or default_path(), os.environ, "buffer", Buffer)
    except ConfigError as error:
        refuse(error)
    return buffer if instance is None else buffer_of_instance(buffer, instance)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, so that no proxy can start on it.

    Raises click.ClickException when there is no buffer, or another process holds it for 10 s.
    """
    _expect_buffer(folder)
    logs.setup(_LOG)
    with asyncio.Runner() as runner:
        try:
            lock = Lock(folder)
            try:
                runner.run(_patiently(folder, lock))
            except BufferHeldError as error:
                raise click.ClickException(_held(error)) from None
        except BufferFaultError as error:
            raise click.ClickException(str(error)) from None
        try:
            yield
        finally:
            _give_to_owner(folder)
            lock.release()


async def _patiently(folder: Path, lock: Lock) -> None:
    acquiring = asyncio.ensure_future(lock.acquire(_PATIENCE))
    done, _ = await asyncio.wait([acquiring], timeout=1.0)
    if not done:
        _say_waiting(folder)
    await acquiring


class Stopped:
    """The buffer of a stopped proxy, opened; its coroutines run when they are asked for."""

    def __init__(self, runner: asyncio.Runner, buffer: SqliteBuffer) -> None:
        """Use a runner for everything."""
        self._runner = runner
        self.buffer = buffer

    def run(self, work: Coroutine[None, None, T]) -> T:
        """Do one thing. Raises click.ClickException for a fault of the buffer."""
        try:
            return self._runner.run(work)
        except BufferFaultError as error:
            raise click.ClickException(str(error)) from None

    def each(self, found: AsyncGenerator[T, None]) -> Iterator[T]:
        """Go through what is found, one by one; ending early ends it."""

        async def following() -> T | None:
            return await anext(found, None)

        async def close() -> None:
            await found.aclose()

        try:
            while (item := self.run(following())) is not None:
                yield item
        finally:
            self.run(close())


@contextmanager
def opened(settings: Buffer) -> Iterator[Stopped]:
    """Open a buffer as a proxy would (a damaged one is salvaged), and close it in the end.

    Raises click.ClickException when there is none, it cannot be used, or is held for 10 s.
    """
    folder = settings.path
    _expect_buffer(folder)
    logs.setup(_LOG)
    with asyncio.Runner() as runner:
        try:
            buffer = runner.run(_open(settings))
        except BufferHeldError as error:
            raise click.ClickException(_held(error)) from None
        except BufferFaultError as error:
            raise click.ClickException(str(error)) from None
        stopped = Stopped(runner, buffer)
        try:
            yield stopped
        finally:
            runner.run(buffer.close())
            _give_to_owner(folder)


async def _open(settings: Buffer) -> SqliteBuffer:
    try:
        return await SqliteBuffer.open(settings.path, max_size=settings.max_size, patience=0)
    except BufferHeldError:
        _say_waiting(settings.path)
    return await SqliteBuffer.open(settings.path, max_size=settings.max_size, patience=_PATIENCE)


def _expect_buffer(folder: Path) -> None:
    if not folder.is_dir() or not any(folder.glob(f"{DATABASE}*")):
        raise click.ClickException(
            f"There is no buffer in {folder.resolve()}, which is [buffer] path; name the proxy's "
            "configuration with --config and its number with --instance."
        )


def _give_to_owner(folder: Path) -> None:
    """Where root called: what was made belongs to the folder's owner, as its proxy needs it.

    (SQLite does the same with the files that it makes itself.)
    """
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    for path in folder.iterdir():
        if path.stat().st_uid != owner.st_uid:
            os.chown(path, owner.st_uid, owner.st_gid)


def _say_waiting(folder: Path) -> None:
    click.echo(
        f"Waiting for the process that holds {folder} (at most {_PATIENCE:.0f} s) …", err=True
    )


def _held(error: BufferHeldError) -> str:
    return f"{error}. This command works on a stopped proxy: systemctl stop edgeproxy"
