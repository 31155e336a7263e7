"""Runs on the booted host, with Debian's Python alone: Hightouch's name and TLS, and clients.

`inside.py upstream`: a name server for hightouch.test, and TLS on 9443 in front of the sandbox.
`inside.py load SECONDS TIMEOUT`: impatient clients, a new connection for each event.
`inside.py faults JSON`: what the sandbox does wrong from now on.
`inside.py missing`: how many of the accepted events have not arrived in the sandbox.
"""

import asyncio
import collections
import json
import socket
import ssl
import struct
import sys
import time
import urllib.request
import uuid
from pathlib import Path

ACCEPTED = Path("/root/accepted.json")


class NameServer(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        end = 12
        while data[end]:
            end += data[end] + 1
        question = data[12 : end + 5]
        known = question[: end - 12] == b"\x09hightouch\x04test"
        answer = b""
        if known and question[-4:] == b"\0\1\0\1":
            answer = struct.pack(">HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton("127.0.0.1")
        counts = struct.pack(">HHHHH", 0x8180 + (0 if known else 3), 1, bool(answer), 0, 0)
        self.transport.sendto(data[:2] + counts + question + answer, peer)


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def front(reader, writer):
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", 9400)
    await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))


async def upstream():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 53))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("/root/hightouch.pem")
    server = await asyncio.start_server(front, "127.0.0.1", 9443, ssl=context)
    await server.serve_forever()


async def send(number: str) -> str:
    """The status line of one event's answer, over a connection of its own."""
    event = {"type": "track", "event": "Booted", "anonymousId": number, "messageId": number}
    body = json.dumps(event | {"writeKey": "boot-key"}).encode()
    head = f"POST /v1/track HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    reader, writer = await asyncio.open_connection("127.0.0.1", 8080)
    writer.write(head.encode() + b"\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    return answer.split(b"\r\n")[0].decode() or "closed"


async def load(seconds: float, timeout: float):
    counts: collections.Counter[str] = collections.Counter()
    accepted = json.loads(ACCEPTED.read_text()) if ACCEPTED.exists() else []
    end = time.monotonic() + seconds

    async def client():
        while time.monotonic() < end:
            number = str(uuid.uuid4())
            try:
                answer = await asyncio.wait_for(send(number), timeout)
            except (TimeoutError, OSError) as error:
                answer = type(error).__name__
            counts[answer] += 1
            if answer == "HTTP/1.1 200 OK":
                accepted.append(number)
            await asyncio.sleep(0.03)

    await asyncio.gather(*(client() for _ in range(4)))
    ACCEPTED.write_text(json.dumps(accepted))
    print(json.dumps(counts))


def faults(setting: str):
    request = urllib.request.Request("http://127.0.0.1:9400/faults", setting.encode(), method="PUT")
    urllib.request.urlopen(request).close()


def missing():
    with urllib.request.urlopen("http://127.0.0.1:9400/events?limit=1000000") as answer:
        arrived = {entry["event"].get("messageId") for entry in json.load(answer)}
    print(len(set(json.loads(ACCEPTED.read_text())) - arrived))


match sys.argv[1:]:
    case ["upstream"]:
        asyncio.run(upstream())
    case ["load", seconds, timeout]:
        asyncio.run(load(float(seconds), float(timeout)))
    case ["faults", setting]:
        faults(setting)
    case ["missing"]:
        missing()
