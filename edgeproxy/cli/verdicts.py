"""What an answer to a probe, or the lack of one, means and what to do about it."""

from urllib.parse import urlsplit

import aiohttp
import msgspec

from edgeproxy.config import Settings, Source

__all__ = ["Verdict", "answered", "unanswered"]


class Verdict(msgspec.Struct, frozen=True):
    """What a probe found."""

    code: str
    """`ok`, `wrong_key`, `wrong_address`, `redirect`, `refused`, `busy`, or without an answer
    `dns`, `proxy`, `tls`, `connection`, `timeout`, `broken_answer`."""
    message: str
    """What happened, to follow "endpoint: "."""
    remedy: str
    """What to do."""


def answered(source: Source, response: aiohttp.ClientResponse, message_id: str) -> Verdict:
    """The meaning of an answer."""
    status = response.status
    answer = f"answered {status}"
    if 200 <= status < 300:
        look = f"look in Hightouch's debugger for an identify event with messageId {message_id}."
        by_region = source.endpoint == f"https://{source.region}.hightouch-events.com"
        return Verdict(
            "ok",
            f"{answer}: the event was taken",
            "Hightouch answers 200 in a wrong region, too, so this cannot tell whether "
            f'"{source.region}" is the region of your workspace: {look}'
            if by_region
            else f"This cannot tell what became of it behind the configured endpoint: {look}",
        )
    if 300 <= status < 400:
        where = urlsplit(response.headers.get("Location", "")).netloc or "elsewhere"
        return Verdict(
            "redirect",
            f"{answer}: redirects to {where}, which the proxy never follows",
            "Leave endpoint out and set region, unless you mean another address; something in "
            "between (a captive portal, a proxy) may have answered in Hightouch's place.",
        )
    if status in {401, 403}:
        return Verdict(
            "wrong_key",
            f"{answer}: the write key is not accepted",
            "Copy the write key of the event source in Hightouch to hightouch_write_key of the "
            f'source "{source.name}" or to [hightouch] write_key. If it is right, ask who runs '
            "the firewall on the way.",
        )
    if status in {404, 405, 410}:
        return Verdict(
            "wrong_address",
            f"{answer}: this is not Hightouch's events API",
            "Check region and endpoint; /v1/batch is added to the endpoint.",
        )
    if status in {408, 425, 429} or status >= 500:
        return Verdict(
            "busy",
            f"{answer}: Hightouch (or a proxy in between) cannot take events now",
            "The proxy keeps events and tries again; try the probe later.",
        )
    return Verdict(
        "refused",
        f"{answer}: the event was refused",
        "Check that the endpoint is Hightouch's events API, and the proxy in between if any.",
    )


# The first whose exception fits; the order is from the narrower to the wider class.
_UNANSWERED: tuple[tuple[type[Exception], Verdict], ...] = (
    (
        aiohttp.ClientProxyConnectionError,
        Verdict(
            "proxy",
            "the proxy {proxy} cannot be reached ({reason})",
            "Check [hightouch] proxy, and that this machine may connect to it.",
        ),
    ),
    (
        aiohttp.ClientHttpProxyError,
        Verdict(
            "proxy",
            "the proxy {proxy} refused the connection to {host} ({reason})",
            "407: put user and password into [hightouch] proxy (http://user:password@host). "
            "Others: let the proxy allow CONNECT to {host} port {port}.",
        ),
    ),
    (
        aiohttp.ClientConnectorDNSError,
        Verdict(
            "dns",
            "the name {host} cannot be resolved ({reason})",
            "Check region (one that does not exist has no address) and this machine's name "
            "servers: getent hosts {host}",
        ),
    ),
    (
        aiohttp.ClientConnectorCertificateError,
        Verdict(
            "tls",
            "the certificate of {host} is not trusted ({reason})",
            "Where a firewall opens TLS, put its certificate authority into [hightouch] ca_file; "
            "else install ca-certificates and check this machine's clock.",
        ),
    ),
    (
        aiohttp.ClientSSLError,
        Verdict(
            "tls",
            "no TLS connection to {host} ({reason})",
            "Check endpoint's scheme and port, and what is in between.",
        ),
    ),
    (
        TimeoutError,
        Verdict(
            "timeout",
            "no answer within {timeout:g} s",
            "A firewall may drop packets: let this machine connect to {host} port {port}, or set "
            "[hightouch] proxy. For a slow line raise [flush] timeout.",
        ),
    ),
    (
        aiohttp.ClientConnectorError,
        Verdict(
            "connection",
            "no connection to {host} port {port} ({reason})",
            "Check region and endpoint, and that this machine may connect to it (firewall, "
            "[hightouch] proxy).",
        ),
    ),
    (
        Exception,
        Verdict(
            "broken_answer",
            "the connection broke off or the answer cannot be read ({reason})",
            "What answers there does not speak HTTP as Hightouch does: check endpoint and what is "
            "in between.",
        ),
    ),
)


def unanswered(source: Source, settings: Settings, error: aiohttp.ClientError | OSError) -> Verdict:
    """The meaning of a failure of the network."""
    endpoint = urlsplit(source.endpoint)
    found = next(verdict for kind, verdict in _UNANSWERED if isinstance(error, kind))
    facts = {
        "host": endpoint.hostname,
        "port": endpoint.port or {"https": 443}.get(endpoint.scheme, 80),
        "proxy": urlsplit(settings.hightouch.proxy).hostname,
        "reason": _reason(error),
        "timeout": settings.flush.timeout,
    }
    return Verdict(found.code, found.message.format_map(facts), found.remedy.format_map(facts))


def _reason(error: Exception) -> str:
    """In few words, and without the proxy's login, which aiohttp's own text may hold."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{error.status} {error.message}".strip()
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    text = getattr(cause, "strerror", None) or str(cause)
    return " ".join(text.split()) or type(cause).__name__
