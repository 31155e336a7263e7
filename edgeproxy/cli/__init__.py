"""The `edgeproxy` command: a module per group of commands, imported when it is called.

So `edgeproxy --help` is quick, and a command that needs little loads little.
"""

import importlib.util

import click
import msgspec

from edgeproxy import __version__

__all__ = ["main"]


class _Entry(msgspec.Struct, frozen=True):
    """Where a command is, and its line in the list, so that listing imports nothing."""

    name: str
    module: str
    summary: str


_COMMANDS = (
    _Entry("run", "run", "Serve until SIGTERM or SIGINT."),
    _Entry("demo", "demo", "Try it out on one machine: sandbox, proxy and a shop page."),
    _Entry("sandbox", "sandbox", "A local stand-in for Hightouch's events API."),
    _Entry("check", "check", "Validate the configuration and print what is in effect."),
    _Entry("map", "map", "Print what would be sent for events read."),
    _Entry("status", "status", "The state of a running proxy."),
    _Entry("tail", "tail", "The events of a running proxy as they pass."),
    _Entry("reload", "reload", "Apply a changed configuration to a running proxy."),
    _Entry("deadletters", "deadletters", "List, show, replay, export, purge."),
    _Entry("buffer", "buffer", "Look after the buffer of a stopped proxy."),
    _Entry("load", "load", "Send synthetic traffic and report rate and latency."),
)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in _COMMANDS if _exists(entry)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = next((entry for entry in _COMMANDS if entry.name == cmd_name), None)
        if entry is None or not _exists(entry):
            return None
        members = vars(importlib.import_module(_module(entry))).values()
        commands = (member for member in members if isinstance(member, click.Command))
        return next((command for command in commands if command.name == cmd_name), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(entry.name, entry.summary) for entry in _COMMANDS if _exists(entry)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _module(entry: _Entry) -> str:
    return f"{__name__}.{entry.module}"


def _exists(entry: _Entry) -> bool:
    return importlib.util.find_spec(_module(entry)) is not None


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="edgeproxy %(version)s")
def main() -> None:
    """A first-party edge proxy for Hightouch Events that does not lose events.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.
    """
