"""`edgeproxy check`: is the configuration right, what is in effect, and does Hightouch answer."""

import asyncio
import os
import sys
from itertools import groupby
from pathlib import Path

import click
import msgspec

from edgeproxy.cli.effective import Line, effective
from edgeproxy.cli.options import (
    SERVING_JUDGES,
    WRONG_CONFIGURATION,
    config_option,
    instance_option,
    refuse,
)
from edgeproxy.config import (
    ConfigError,
    Loaded,
    Settings,
    default_path,
    for_instance,
    load_explained,
)

__all__ = ["check"]


@click.command()
@config_option
@instance_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--probe", is_flag=True, help="Send one identify event for each source to Hightouch, too."
)
def check(config_path: Path | None, instance: int | None, as_json: bool, probe: bool) -> None:
    """Validate the configuration and print what is in effect.

    Each mistake is one line that names file, table and key, and says what would be right; then
    the exit code is 78. Secrets are masked. With --probe it is 1 when Hightouch could not be
    reached or refused.
    """
    path = config_path or default_path()
    try:
        loaded = _loaded(path, instance)
    except ConfigError as error:
        if as_json:
            _print_json(
                {"ok": False, "path": path, "mistakes": list(map(_mistake, error.mistakes))}
            )
            sys.exit(WRONG_CONFIGURATION)
        refuse(error)
    if not as_json:
        _print_lines(path, effective(loaded))
    results = _probe(loaded.settings, as_json=as_json) if probe else []
    good = all(result["ok"] for result in results)
    if as_json:
        report: dict[str, object] = {"ok": good, "path": path, "settings": effective(loaded)}
        _print_json(report | ({"probe": results} if probe else {}))
    sys.exit(0 if good else 1)


def _loaded(path: Path | None, instance: int | None) -> Loaded:
    loaded = load_explained(path, os.environ, judges=SERVING_JUDGES)
    if instance is None:
        return loaded
    changed = ("buffer.path", "server.reuse_port", "admin.port")
    origins = loaded.origins | dict.fromkeys(changed, f"--instance {instance}")
    return Loaded(for_instance(loaded.settings, instance), origins)


def _probe(settings: Settings, *, as_json: bool) -> list[dict[str, object]]:
    from edgeproxy.cli.probe import probe_all  # noqa: PLC0415 (the only part that needs aiohttp)

    results = asyncio.run(probe_all(settings))
    if not as_json:
        for result in results:
            click.echo()
            click.echo("\n".join(result.lines()))
    return [msgspec.to_builtins(result) for result in results]


def _mistake(mistake: msgspec.Struct) -> dict[str, object]:
    return {**msgspec.structs.asdict(mistake), "line": str(mistake)}


def _print_json(report: dict[str, object]) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(report, enc_hook=str)).decode())


def _print_lines(path: Path | None, lines: tuple[Line, ...]) -> None:
    click.echo(f"{path or 'No configuration file'}: the configuration is right. In effect:")
    for table, rows in groupby(lines, key=lambda line: line.table):
        click.echo(f"\n{table}")
        for row in rows:
            click.echo(f"{row.key:<20} = {row.value:<44} # {row.origin}")
