"""Server SDKs against the real process: each call arrives as the SDK would have sent it."""

import sys
from pathlib import Path

import pytest

from tests.e2e.oracle import sent_events
from tests.e2e.processes import finish

pytestmark = pytest.mark.timeout(240)  # the first test installs the SDKs

HERE = Path(__file__).parent
ALL_TYPES = {"identify", "track", "page", "screen", "group", "alias"}


@pytest.mark.parametrize("gzip", ["plain", "gzip"])
@pytest.mark.parametrize("sdk", ["hightouch", "segment", "rudderstack"])
async def test_every_event_of_a_python_sdk_arrives(stage, sdk, gzip):
    sender = HERE / "senders" / "python_sdk.py"
    await _sends(stage, sys.executable, sender, sdk, stage.relay.url, stage.key, gzip)
    compressed = [r.header("Content-Encoding") == "gzip" for r in stage.relay.requests]
    assert all(compressed) if gzip == "gzip" else not any(compressed)


async def test_every_event_of_a_python_sdk_arrives_below_a_prefix(stage):
    sender = HERE / "senders" / "python_sdk.py"
    host = f"{stage.relay.url}/a/prefix"
    await _sends(stage, sys.executable, sender, "hightouch", host, stage.key)
    assert {request.path for request in stage.relay.requests} == {"/a/prefix/v1/batch"}


async def test_every_event_of_segment_s_node_sdk_arrives(stage, node, node_modules):
    await _sends(stage, node, HERE / "node" / "segment.mjs", stage.relay.url, stage.key)


@pytest.mark.parametrize("gzip", ["plain", "gzip"])
async def test_every_event_of_rudderstack_s_node_sdk_arrives(stage, node, node_modules, gzip):
    sender = HERE / "node" / "rudderstack.mjs"
    await _sends(stage, node, sender, stage.relay.url, stage.key, gzip)


async def _sends(stage, *command) -> None:
    code, output = await finish(*command)
    assert code == 0, output
    sent = sent_events(stage.relay.requests)
    assert len(sent) >= 7
    await stage.everything_arrives(sent)
    assert {arrival.type for arrival in stage.sandbox.events} == ALL_TYPES
