"""Dead letters for commands: of a running proxy through its admin listener, else from its files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
import msgspec

from edgeproxy.admin.deadletters import Desk
from edgeproxy.buffer.deadletters import DeadLetterFilter
from edgeproxy.cli.admin import AdminClient, NotRunningError, running_proxy
from edgeproxy.cli.options import JUDGES, settings_for
from edgeproxy.cli.stopped import Stopped, buffer_settings, opened
from edgeproxy.config import Validation
from edgeproxy.mapping import Mapper, compile_settings
from edgeproxy.metrics import Metrics

__all__ = ["Letters", "letters_of"]

#: Seconds from one line of an answer to the next: a large store is gone through in between.
_PATIENCE = 300.0


class Letters(Protocol):
    """Dead letters, wherever they are. Documents are those of the admin listener."""

    def count(self, chosen: DeadLetterFilter) -> dict[str, Any]:
        """How many a filter fits, and why they died."""

    def each(
        self, chosen: DeadLetterFilter, *, limit: int | None, bodies: bool, newest_first: bool
    ) -> Iterator[dict[str, Any]]:
        """Those that a filter fits."""

    def replay(self, chosen: DeadLetterFilter) -> Iterator[dict[str, Any]]:
        """Submit again; how far it has come."""

    def purge(self, chosen: DeadLetterFilter) -> Iterator[dict[str, Any]]:
        """Remove; how far it has come."""


class _OfRunning:
    def __init__(self, proxy: AdminClient) -> None:
        self._proxy = proxy

    def count(self, chosen: DeadLetterFilter) -> dict[str, Any]:
        found: dict[str, Any] = self._proxy.get(
            "/api/deadletters/count", timeout=_PATIENCE, **_query(chosen)
        )
        return found

    def each(
        self, chosen: DeadLetterFilter, *, limit: int | None, bodies: bool, newest_first: bool
    ) -> Iterator[dict[str, Any]]:
        return self._proxy.lines(
            "GET",
            "/api/deadletters",
            timeout=_PATIENCE,
            limit=None if limit is None else str(limit),
            bodies="true" if bodies else None,
            newest_first="true" if newest_first else None,
            **_query(chosen),
        )

    def replay(self, chosen: DeadLetterFilter) -> Iterator[dict[str, Any]]:
        return self._proxy.lines("POST", "/api/deadletters/replay", chosen, timeout=_PATIENCE)

    def purge(self, chosen: DeadLetterFilter) -> Iterator[dict[str, Any]]:
        return self._proxy.lines("POST", "/api/deadletters/purge", chosen, timeout=_PATIENCE)


class _OfStopped:
    def __init__(self, stopped: Stopped, desk: Desk) -> None:
        self._stopped = stopped
        self._desk = desk

    def count(self, chosen: DeadLetterFilter) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self._stopped.run(self._desk.count(chosen)))
        return found

    def each(
        self, chosen: DeadLetterFilter, *, limit: int | None, bodies: bool, newest_first: bool
    ) -> Iterator[dict[str, Any]]:
        found = self._desk.letters(chosen, limit=limit, bodies=bodies, newest_first=newest_first)
        for letter in self._stopped.each(found):
            yield msgspec.json.decode(msgspec.json.encode(letter))

    def replay(self, chosen: DeadLetterFilter) -> Iterator[dict[str, Any]]:
        for progress in self._stopped.each(self._desk.replay(chosen)):
            yield msgspec.to_builtins(progress)

    def purge(self, chosen: DeadLetterFilter) -> Iterator[dict[str, Any]]:
        for progress in self._stopped.each(self._desk.purge(chosen)):
            yield msgspec.to_builtins(progress)


@contextmanager
def letters_of(
    config_path: Path | None, instance: int | None, *, replays: bool = False
) -> Iterator[Letters]:
    """The dead letters of the proxy of a configuration, running or not.

    With `replays` the whole configuration must be right where the proxy does not run: its mapping
    is needed then.
    """
    proxy = running_proxy(config_path, instance)
    try:
        proxy.get("/healthz")
    except NotRunningError:
        pass
    else:
        yield _OfRunning(proxy)
        return
    rules = _rules(config_path, instance) if replays else _no_rules
    with opened(buffer_settings(config_path, instance)) as stopped:
        desk = Desk(stopped.buffer, rules, Metrics(), now=lambda: time.time_ns() // 1_000_000)
        yield _OfStopped(stopped, desk)


def _rules(config_path: Path | None, instance: int | None) -> Any:
    settings = settings_for(config_path, instance, JUDGES)
    found = compile_settings(settings), settings.validation
    return lambda: found


def _no_rules() -> tuple[Mapper, Validation]:
    raise click.ClickException("a replay needs the whole configuration")


def _query(chosen: DeadLetterFilter) -> dict[str, str]:
    given = msgspec.structs.asdict(chosen)
    if chosen.ids is not None:
        given["ids"] = ",".join(map(str, chosen.ids))
    return {key: str(value) for key, value in given.items() if value is not None}
