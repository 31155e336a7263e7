"""Mistakes that only show when settings are looked at together."""

import ipaddress
from collections.abc import Callable, Iterable, Iterator

from edgeproxy.config.mistakes import Mistake
from edgeproxy.config.reading import Reader
from edgeproxy.config.settings import Settings

__all__ = ["Judge", "fit_to_serve", "is_loopback", "judge_together"]

Judge = Callable[[Settings], Iterable[Mistake]]
"""Looks at whole settings and names what is wrong with them."""

# `{"batch":[`, `],"sentAt":"…","writeKey":"…"}` and the `sentAt` of the one event.
_ENVELOPE = 1000


def is_loopback(host: str) -> bool:
    """Whether a listener on this host can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def judge_together(settings: Settings, reader: Reader) -> None:
    """Note what does not fit together. What could not be read at all is not judged again."""

    def readable(*names: str) -> bool:
        return not any(tuple(name.split(".")) in reader.failed for name in names)

    server, admin, flush = settings.server, settings.admin, settings.flush
    if readable("admin.host", "admin.token") and not is_loopback(admin.host) and not admin.token:
        reader.note(
            "[admin]",
            "token",
            f'is missing, and host "{admin.host}" can be reached from outside this machine',
            "set token (or token_file), or host to 127.0.0.1",
        )
    if readable("server.tls_cert", "server.tls_key"):
        for given, absent in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
            if getattr(server, given) and not getattr(server, absent):
                reader.note("[server]", absent, f"is missing, and {given} is set", "set both")
    if (
        readable("flush.max_bytes", "validation.max_event")
        and flush.max_bytes < settings.validation.max_event + _ENVELOPE
    ):
        reader.note(
            "[flush]",
            "max_bytes",
            f"{flush.max_bytes} bytes cannot hold the largest event "
            f"([validation] max_event is {settings.validation.max_event} bytes)",
            f"set it to at least {settings.validation.max_event + _ENVELOPE}",
        )
    if readable("retry.initial", "retry.max") and settings.retry.initial > settings.retry.max:
        reader.note("[retry]", "initial", "is more than max", "set max to at least initial")
    _judge_ports(reader, settings)
    if readable("buffer.max_size"):
        _judge_shares(reader, settings)


def _judge_shares(reader: Reader, settings: Settings) -> None:
    most = settings.buffer.max_size
    for number, source in enumerate(settings.sources, 1):
        if source.max_size is not None and source.max_size > most:
            reader.note(
                f"[[sources]] {number} ({source.name})",
                "max_size",
                f"{source.max_size} bytes are more than all of the buffer "
                f"([buffer] max_size is {most} bytes)",
                "lower it, leave it out for all of the buffer, or raise [buffer] max_size",
            )


def _judge_ports(reader: Reader, settings: Settings) -> None:
    server, admin = settings.server, settings.admin
    same_host = server.host == admin.host or server.host in {"0.0.0.0", "::", ""}
    if same_host and server.port == admin.port != 0:
        reader.note("[admin]", "port", f"{admin.port} is [server] port too", "give it another")


def fit_to_serve(settings: Settings) -> Iterator[Mistake]:
    """What a proxy needs to serve, and other commands do not: its files, and a write key."""
    yield from settings.unreadable
    only = settings.sources[0]
    if only.name != "default" or only.hightouch_write_key:
        return  # each of `[[sources]]` was judged when it was read
    if any(mistake.key.startswith("write_key") for mistake in settings.unreadable):
        return
    yield Mistake(
        str(settings.path) if settings.path else "no configuration file",
        "[hightouch]",
        "write_key",
        "is missing",
        "set it to the write key of the Hightouch event source: in the file, as "
        "EDGEPROXY_HIGHTOUCH__WRITE_KEY or PROJECT_WRITEKEY, or as write_key_file with the name "
        "of a file or systemd credential that holds it",
    )
