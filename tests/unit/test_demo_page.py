"""The shop page's server: what it serves, and what it does not."""

import json
import socket
from contextlib import closing

import pytest

from edgeproxy.demo.narrator import Narrator
from edgeproxy.demo.page import Setup, Shop
from edgeproxy.demo.ports import HOST, Ports
from edgeproxy.sandbox import Sandbox

SETUP = Setup(
    write_key="a</script>key",
    api_host="127.0.0.1:1",
    script="http://127.0.0.1:1/browser/release/v1-latest/events.min.js?v=1.2.3",
    links={"sandbox": "http://127.0.0.1:2", "admin": "http://127.0.0.1:3"},
)


@pytest.fixture
async def client(aiohttp_client):
    return await aiohttp_client(Shop(SETUP, Sandbox(), Narrator(lambda _: None)).app)


async def test_the_page_loads_the_sdk_from_the_proxy(client):
    text = await (await client.get("/")).text()
    assert f'src="{SETUP.script}"' in text
    assert "__S" not in text


def test_no_setting_can_end_the_element_that_holds_it():
    told = SETUP.json()
    assert "<" not in told
    assert json.loads(told)["writeKey"] == "a</script>key"
    assert json.loads(told)["renewUrl"] == "http://127.0.0.1:1/ht/renew"


@pytest.mark.parametrize("path", ["/nothing.js", "/../run.py", "/%2e%2e/run.py", "/page/shop.js"])
async def test_nothing_but_the_page_s_files_is_served(client, path):
    assert (await client.get(path)).status == 404


@pytest.mark.parametrize("body", [b"", b"{", b'{"on":"yes"}'])
async def test_the_switch_takes_only_what_the_page_sends(client, body):
    assert (await client.post("/upstream", data=body)).status == 400


def test_a_port_that_is_free_is_used_as_wished():
    with closing(socket.create_server((HOST, 0))) as probe:
        wanted = probe.getsockname()[1]
    ports = Ports()
    with closing(ports.bind("page", wanted)) as bound:
        assert bound.getsockname()[1] == wanted
    assert ports.moved == []


def test_a_port_that_is_taken_is_replaced_and_said_so():
    ports = Ports()
    with closing(socket.create_server((HOST, 0))) as holder:
        wanted = holder.getsockname()[1]
        other = ports.free("proxy", wanted)
    assert ports.moved == [f"Port {wanted} is taken: the proxy is on {other} instead."]
