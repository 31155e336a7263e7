"""`edgeproxy demo`: the whole thing on one machine, with no account."""

import asyncio
import tempfile
from contextlib import nullcontext
from pathlib import Path

import click

__all__ = ["demo"]


@click.command()
@click.option(
    "--port",
    default=8088,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Of the shop page. A port that is taken is replaced by a free one.",
)
@click.option("--traffic", is_flag=True, help="Let visitors shop by themselves.")
@click.option(
    "--rate",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0, max=200, min_open=True),
    help="Events a second of --traffic.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the buffer in this folder. [default: a temporary one]",
)
def demo(port: int, traffic: bool, rate: float, data: Path | None) -> None:
    """Try it out: a sandbox, the proxy, and a shop page with the real browser SDK.

    Everything runs on this machine and needs neither an account nor a network.
    """
    # Not needed for the help.
    from edgeproxy.assets import AssetsMissingError  # noqa: PLC0415
    from edgeproxy.buffer.base import BufferFaultError  # noqa: PLC0415
    from edgeproxy.demo.run import Options, run  # noqa: PLC0415

    folder = nullcontext(str(data)) if data else tempfile.TemporaryDirectory(prefix="edgeproxy-")
    with folder as path:
        options = Options(data=Path(path), port=port, rate=rate if traffic else 0.0)
        try:
            left = asyncio.run(run(options))
        except (OSError, BufferFaultError, AssetsMissingError) as error:
            raise click.ClickException(str(error)) from error
    click.echo(_farewell(left, data))


def _farewell(left: int, data: Path | None) -> str:
    if not left:
        return "Done: every accepted event was delivered."
    counted = "1 event was" if left == 1 else f"{left} events were"
    if data is not None:
        return f"Done. {counted} not delivered yet; {data} holds them for the next start."
    return f"Done. {counted} not delivered and went with the temporary folder; --data keeps them."
