"""What commands share: `--config`, `--instance`, and what a wrong configuration does."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from edgeproxy.config import (
    ConfigError,
    Judge,
    Settings,
    default_path,
    fit_to_serve,
    for_instance,
    load,
)
from edgeproxy.mapping import mapping_mistakes

__all__ = ["config_option", "instance_option", "refuse", "settings_for", "settings_loader"]

WRONG_CONFIGURATION = 78  # EX_CONFIG of sysexits.h; the units do not restart on it

JUDGES: tuple[Judge, ...] = (mapping_mistakes,)
"""Asked by every command."""
SERVING_JUDGES: tuple[Judge, ...] = (fit_to_serve, *JUDGES)
"""Asked by commands that serve: with JUDGES alone, neither keys nor readable files are needed."""

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Configuration file.  [default: ./config.toml, then /etc/edgeproxy/config.toml]",
)
instance_option = click.option(
    "--instance",
    type=click.IntRange(1, 999),
    metavar="N",
    help="One of several on this host: N is added to the buffer's folder, N-1 to the admin port.",
)


def settings_loader(
    config_path: Path | None,
    instance: int | None,
    judges: tuple[Judge, ...] = SERVING_JUDGES,
) -> Callable[[], Settings]:
    """Reads the settings anew at each call; raises ConfigError.

    The default file is looked for once, so that a reload reads the file that start-up read.
    """
    path = config_path or default_path()

    def read() -> Settings:
        settings = load(path, os.environ, judges=judges)
        return for_instance(settings, instance) if instance else settings

    return read


def settings_for(
    config_path: Path | None,
    instance: int | None = None,
    judges: tuple[Judge, ...] = SERVING_JUDGES,
) -> Settings:
    """The settings, or the end of the process with every mistake on standard error."""
    try:
        return settings_loader(config_path, instance, judges)()
    except ConfigError as error:
        refuse(error)


def refuse(error: ConfigError) -> NoReturn:
    """Print the mistakes, one a line, and exit."""
    for mistake in error.mistakes:
        click.echo(str(mistake), err=True)
    sys.exit(WRONG_CONFIGURATION)
