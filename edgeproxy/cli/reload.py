"""`edgeproxy reload`: apply a changed configuration to a running proxy."""

import sys
from pathlib import Path

import click
import msgspec

from edgeproxy.cli.admin import running_proxy
from edgeproxy.cli.options import WRONG_CONFIGURATION, config_option, instance_option

__all__ = ["reload"]

#: Seconds: a mapping's own tests run before it is applied.
_PATIENCE = 120.0


@click.command()
@config_option
@instance_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reload(config_path: Path | None, instance: int | None, as_json: bool) -> None:
    """Apply a changed configuration to a running proxy, without dropping a request.

    It reads its file and the files of its secrets anew. A configuration with mistakes is refused as
    a whole: each is one line, the proxy goes on with the old one, and the exit code is 78. Settings
    that need a restart are named. Exit code 1 when the proxy does not run.
    """
    proxy = running_proxy(config_path, instance)
    _, result = proxy.post("/api/reload", timeout=_PATIENCE)
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    elif result["applied"]:
        file = result.get("path") or "No configuration file: the environment"
        click.echo(f"Applied: {file} (mapping revision {result['mapping_revision']})")
        for setting in result["needs_restart"]:
            table, _, key = setting.partition(".")
            click.echo(f"Needs a restart, still as it was: [{table}] {key}")
    else:
        for mistake in result["mistakes"]:
            click.echo(mistake, err=True)
        click.echo("Refused: the proxy goes on with the configuration that it has.", err=True)
    sys.exit(0 if result["applied"] else WRONG_CONFIGURATION)
