"""Whether the files of `[server] tls_cert`, `tls_key` and `[hightouch] ca_file` are what they must be.

What is no certificate would only show when the listener opens, or with the first batch that is sent.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

from edgeproxy.config.reading import Reader
from edgeproxy.config.settings import Hightouch, Server

__all__ = ["judge_certificates"]

_NO_CERTIFICATE = "holds no certificate in PEM form"


def judge_certificates(reader: Reader, hightouch: Hightouch, server: Server) -> None:
    """Note files that no TLS could be done with; they matter only to commands that serve."""
    for table, key, problem, remedy in _problems(hightouch, server):
        reader.note_unusable(table, key, problem, remedy)


def _problems(hightouch: Hightouch, server: Server) -> Iterator[tuple[str, str, str, str]]:
    if hightouch.ca_file is not None and not _holds_certificates(hightouch.ca_file):
        remedy = "name a file of the certificate authorities to trust"
        yield "hightouch", "ca_file", f"{hightouch.ca_file}: {_NO_CERTIFICATE}", remedy
    cert, key = server.tls_cert, server.tls_key
    if cert is None or key is None:
        return
    if not _holds_certificates(cert):
        remedy = "name the file with the server's certificate and those of its chain"
        yield "server", "tls_cert", f"{cert}: {_NO_CERTIFICATE}", remedy
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, password="")
    except OSError as error:
        reason = getattr(error, "reason", None) or ""
        if reason == "KEY_VALUES_MISMATCH":
            problem, remedy = (
                f"is not the key of tls_cert {cert}",
                "name the two that belong together",
            )
        elif "KEY_TOO_SMALL" in reason or "MD_TOO_WEAK" in reason:
            problem, remedy = f"and tls_cert cannot be used: {error}", "have a stronger one issued"
        else:
            problem = "holds no private key in PEM form that is not encrypted"
            remedy = "name the file with the private key of tls_cert"
        yield "server", "tls_key", f"{key}: {problem}", remedy


def _holds_certificates(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return False
    return True
