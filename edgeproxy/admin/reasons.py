"""Why a lane does not deliver, in words, and what an operator does about it. Pure data."""

from msgspec import Struct

__all__ = ["Meaning", "meaning"]


class Meaning(Struct, frozen=True):
    """What a lane's reason says to a person."""

    words: str
    remedy: str


_KEEPS = "Nothing to do here: events are kept and tried again by themselves."
_KEY = Meaning(
    "Hightouch does not accept the write key",
    "Copy the write key of the event source in Hightouch to hightouch_write_key of this source or "
    "to [hightouch] write_key, then: edgeproxy reload",
)
_ADDRESS = Meaning(
    "what answers at the endpoint is not Hightouch's events API",
    "Check region and endpoint (scheme and host only), then: edgeproxy reload",
)
_BUSY = Meaning("Hightouch cannot take events at the moment", _KEEPS)

_MEANINGS = {
    "source_removed": Meaning(
        "the settings no longer name this source, and it still has events",
        "Name it again in [[sources]] to send them (edgeproxy reload), or stop the proxy and remove "
        "them: edgeproxy buffer purge --source NAME",
    ),
    "refuses_everything": Meaning(
        "Hightouch refuses every event of this lane",
        "The events themselves are hardly at fault: check write key, region and endpoint "
        "(edgeproxy check --probe), and ask Hightouch's support what it objects to.",
    ),
    "http_401": _KEY,
    "http_403": _KEY,
    "http_404": _ADDRESS,
    "http_405": _ADDRESS,
    "http_410": _ADDRESS,
    "http_429": Meaning(
        "Hightouch asks for a slower pace (429)",
        f"{_KEEPS} If it lasts, ask Hightouch for a higher limit.",
    ),
    "dns": Meaning(
        "the endpoint's name cannot be resolved",
        "Check region (one that does not exist has no address) and this machine's name servers.",
    ),
    "connect": Meaning(
        "no connection to the endpoint",
        "Check this machine's network and firewall, [hightouch] proxy, region and endpoint. "
        "Events are kept meanwhile.",
    ),
    "proxy": Meaning(
        "the outgoing proxy cannot be used",
        "Check [hightouch] proxy, its user and password, and that it allows the endpoint.",
    ),
    "tls": Meaning(
        "no trusted TLS connection to the endpoint",
        "Where a firewall opens TLS, put its certificate authority into [hightouch] ca_file; else "
        "install ca-certificates and check this machine's clock.",
    ),
    "timeout": Meaning(
        "no answer in time",
        "If it lasts: a firewall may drop packets, or the line is slow (raise [flush] timeout). "
        "Events are kept meanwhile.",
    ),
    "disconnected": Meaning("the connection broke off before an answer came", _KEEPS),
    "unreadable": Meaning(
        "what answers does not speak HTTP as Hightouch does",
        "Check endpoint and what is in between (edgeproxy check --probe).",
    ),
    "address": Meaning("the endpoint is no address", "Correct endpoint, then: edgeproxy reload"),
}
_REDIRECT = Meaning(
    "the endpoint redirects elsewhere, which is never followed",
    "Leave endpoint out and set region. A captive portal or proxy in between may have answered in "
    "Hightouch's place.",
)
_UNKNOWN = Meaning("the last attempt failed", "edgeproxy check --probe says more.")


def meaning(reason: str) -> Meaning:
    """What a lane's `reason` of `/status` means."""
    found = _MEANINGS.get(reason)
    if found is not None:
        return found
    if reason.startswith("http_3"):
        return _REDIRECT
    return _BUSY if reason.startswith(("http_5", "http_4")) else _UNKNOWN
