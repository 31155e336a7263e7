"""A listener's certificate: shown anew after a renewal, kept where the new files cannot be used."""

import asyncio
import ssl

import msgspec
import pytest
import trustme

from edgeproxy.listening import renew_certificate, tls_context
from tests.listening import settings


@pytest.fixture
def conf(tmp_path):
    return settings(
        tmp_path,
        server={"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"},
    )


def write(conf, authority, *, key=True):
    """A new certificate into the files that the settings name."""
    made = authority.issue_cert("localhost")
    conf.server.tls_cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    if key:
        conf.server.tls_key.write_bytes(made.private_key_pem.bytes())


async def serial(port, authority):
    """Of the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    shown = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return shown


async def test_a_renewed_certificate_is_shown_and_a_broken_one_is_not(conf):
    authority = trustme.CA()
    write(conf, authority)
    context = tls_context(conf)
    server = await asyncio.start_server(lambda *_: None, "localhost", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    first = await serial(port, authority)
    write(conf, authority)
    assert await serial(port, authority) == first
    renew_certificate(context, conf)
    second = await serial(port, authority)
    assert second != first
    write(conf, authority, key=False)
    with pytest.raises(OSError, match="tls_cert, tls_key: cannot be used"):
        renew_certificate(context, conf)
    assert await serial(port, authority) == second
    server.close()


def test_without_tls_there_is_nothing_to_renew(conf):
    without = msgspec.structs.replace(
        conf, server=msgspec.structs.replace(conf.server, tls_cert=None, tls_key=None)
    )
    renew_certificate(None, conf)
    renew_certificate(None, without)
