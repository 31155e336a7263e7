"""Restarts under socket activation: the harness plays systemd and holds the listening socket."""

from __future__ import annotations

import socket

import pytest

from tests.crash.harness.senders import Patience
from tests.crash.harness.world import World

#: sd_listen_fds(3): the sockets begin at descriptor 3, LISTEN_PID is the process's own.
_AS_SYSTEMD = ("bash", "-c", 'exec 3<&"$CRASH_FD"; export LISTEN_PID=$$; exec "$@"', "bash")


async def _restarted(world: World, times: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as held:
        proxy = world.proxy
        proxy.prefix = _AS_SYSTEMD
        proxy.pass_fds = (held.fileno(),)
        proxy.environ = {"CRASH_FD": str(held.fileno()), "LISTEN_FDS": "1"}
        await proxy.start()
        assert proxy.address == held.getsockname()[:2]
        world.load(
            6,
            patience=Patience(
                repeats=False, new_connections=True, timeout=2.0, pause=0.02, most=3, latency=0.1
            ),
        )
        for _ in range(times):
            await world.pass_time(0.02, 0.15)
            assert await proxy.stop() == 0
            await proxy.start()
        figures = await world.settle()
    assert figures.failed_requests == figures.refused_requests == 0
    assert figures.requests > 10 * times, "too little load to mean anything"


async def test_restarted_twenty_times_it_fails_no_request_of_impatient_clients(world: World):
    await _restarted(world, 20)


@pytest.mark.torture
@pytest.mark.timeout(600)
async def test_restarted_a_hundred_times_it_fails_no_request_of_impatient_clients(world: World):
    await _restarted(world, 100)
