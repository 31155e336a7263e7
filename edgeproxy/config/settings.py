"""Every setting with its kind, limits and default. Durations are seconds, sizes are bytes.

The annotation of a field is all there is to say about a setting: reading the file and the
environment, `edgeproxy check` and the test of the shipped `config.toml` are derived from it.
"""

from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec

from edgeproxy.config import addresses, kinds
from edgeproxy.config.addresses import Network
from edgeproxy.config.kind import Kind
from edgeproxy.config.mistakes import Mistake

__all__ = [
    "TABLES",
    "Admin",
    "Buffer",
    "DeadLetters",
    "Flush",
    "Hightouch",
    "Log",
    "Retry",
    "Server",
    "Settings",
    "Source",
    "SourceTable",
    "Validation",
    "kinds_of",
]

DAY = 86400.0
YEAR = 366 * DAY
REGION = kinds.pattern(r"[a-z]{2}(-[a-z]+)+-\d{1,2}", 'a region such as "us-east-1"')
OPTIONAL_REGION = kinds.pattern(r"|[a-z]{2}(-[a-z]+)+-\d{1,2}", 'a region such as "us-east-1"')
ENDPOINT = addresses.endpoint('"https://us-east-1.hightouch-events.com"')

_SECRETS = frozenset({"write_key", "write_keys", "hightouch_write_key", "token", "proxy"})


class _Table(msgspec.Struct, frozen=True):
    def __repr__(self) -> str:
        """Without secrets: tracebacks and test reports print what they hold."""
        shown = (
            f"{key}={'…' if key in _SECRETS else repr(getattr(self, key))}"
            for key in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class Hightouch(_Table, frozen=True):
    """`[hightouch]`: where events go unless a source says otherwise."""

    write_key: Annotated[str, kinds.secret()] = ""
    region: Annotated[str, REGION] = "us-east-1"
    endpoint: Annotated[str, ENDPOINT] = ""
    proxy: Annotated[str, addresses.url("http", example='"http://proxy:3128"', login=True)] = ""
    ca_file: Annotated[Path | None, kinds.file_name()] = None


class Source(_Table, frozen=True):
    """One source with everything resolved: who may send, and where its events go."""

    name: str
    write_keys: tuple[str, ...]
    """What SDKs send; any of them."""
    hightouch_write_key: str
    region: str
    endpoint: str
    """Scheme, host and perhaps a path, without a trailing slash, never empty."""
    allowed_origins: tuple[str, ...] = ("*",)
    max_size: int | None = None
    """Share of the buffer in bytes; None for all of it."""


class SourceTable(_Table, frozen=True):
    """`[[sources]]` as written; empty values are those of `[hightouch]`."""

    name: Annotated[str, kinds.name()] = ""
    write_key: Annotated[tuple[str, ...], kinds.keys()] = ()
    hightouch_write_key: Annotated[str, kinds.secret()] = ""
    region: Annotated[str, OPTIONAL_REGION] = ""
    endpoint: Annotated[str, ENDPOINT] = ""
    allowed_origins: Annotated[tuple[str, ...], addresses.origins()] = ("*",)
    max_size: Annotated[int | None, kinds.size(1000, optional=True)] = None


class Server(msgspec.Struct, frozen=True):
    """`[server]`: the listener for clients."""

    host: Annotated[str, addresses.host()] = "0.0.0.0"
    port: Annotated[int, kinds.count(0, 65535)] = 8080
    reuse_port: Annotated[bool, kinds.flag()] = False
    public_url: Annotated[
        str, addresses.url("https", "http", example='"https://events.example.com"', path=True)
    ] = ""
    trusted_proxies: Annotated[tuple[Network, ...], addresses.networks()] = ()
    client_ip: Annotated[str, kinds.choice("full", "truncated", "off")] = "full"
    max_request: Annotated[int, kinds.size(1000, 2**30)] = 4 * 2**20
    tls_cert: Annotated[Path | None, kinds.file_name()] = None
    tls_key: Annotated[Path | None, kinds.file_name()] = None


class Admin(_Table, frozen=True):
    """`[admin]`: the listener for operators."""

    host: Annotated[str, addresses.host()] = "127.0.0.1"
    port: Annotated[int, kinds.count(0, 65535)] = 8081
    token: Annotated[str, kinds.secret()] = ""


class Validation(msgspec.Struct, frozen=True):
    """`[validation]`: what Hightouch would silently block."""

    max_event: Annotated[int, kinds.size(100, 2**30)] = 96_000
    max_age: Annotated[float, kinds.duration(1, 100 * YEAR)] = 7 * DAY
    types: Annotated[str, kinds.choice("coerce", "forward", "quarantine")] = "coerce"
    dedupe_ids: Annotated[int, kinds.count(0, 50_000_000)] = 200_000


class Buffer(msgspec.Struct, frozen=True):
    """`[buffer]`: the folder that holds what is not yet delivered."""

    path: Annotated[Path, kinds.folder()] = Path("data")
    max_size: Annotated[int, kinds.size(10**6)] = 2**30
    durability: Annotated[str, kinds.choice("fsync", "os")] = "fsync"


class Flush(msgspec.Struct, frozen=True):
    """`[flush]`: how batches are put together and sent."""

    max_events: Annotated[int, kinds.count(1, 100_000)] = 500
    max_bytes: Annotated[int, kinds.size(1000, 2**30)] = 475_000
    interval: Annotated[float, kinds.duration(0, 3600)] = 1.0
    max_in_flight: Annotated[int, kinds.count(1, 1000)] = 4
    compression: Annotated[str, kinds.choice("gzip", "none")] = "gzip"
    timeout: Annotated[float, kinds.duration(0.01, 3600)] = 30.0
    drain_timeout: Annotated[float, kinds.duration(0, 3600)] = 5.0


class Retry(msgspec.Struct, frozen=True):
    """`[retry]`: the bounds of the exponential backoff."""

    initial: Annotated[float, kinds.duration(0.001, 3600)] = 0.5
    max: Annotated[float, kinds.duration(0.001, DAY)] = 60.0


class DeadLetters(msgspec.Struct, frozen=True):
    """`[dead_letters]`: how long and how many are kept."""

    max_age: Annotated[float, kinds.duration(1, 100 * YEAR)] = 30 * DAY
    max_size: Annotated[int, kinds.size(0)] = 256 * 2**20
    keep: Annotated[str, kinds.choice("received", "metadata")] = "received"


class Log(msgspec.Struct, frozen=True):
    """`[log]`: what is written to standard error."""

    level: Annotated[str, kinds.choice("debug", "info", "warning", "error")] = "info"
    format: Annotated[str, kinds.choice("auto", "json", "text")] = "auto"


class Settings(msgspec.Struct, frozen=True):
    """Everything that can be set, resolved and judged."""

    hightouch: Hightouch
    sources: tuple[Source, ...]
    server: Server
    admin: Admin
    validation: Validation
    buffer: Buffer
    flush: Flush
    retry: Retry
    dead_letters: DeadLetters
    log: Log
    mapping: dict[str, object] = {}
    """`[mapping]` as written; the mapping package compiles it."""
    filters: tuple[dict[str, object], ...] = ()
    tests: tuple[dict[str, object], ...] = ()
    path: Path | None = None
    """The file they were read from."""
    folder: Path = Path()
    """What relative file names in the file are relative to: the file's folder."""
    unreadable: tuple[Mistake, ...] = ()
    """Files that settings name and this process cannot use; commands that serve refuse them."""
    credentials: Path | None = None
    """systemd's $CREDENTIALS_DIRECTORY: relative names are looked for there first."""


TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("hightouch", Hightouch),
    ("server", Server),
    ("admin", Admin),
    ("validation", Validation),
    ("buffer", Buffer),
    ("flush", Flush),
    ("retry", Retry),
    ("dead_letters", DeadLetters),
    ("log", Log),
)


def kinds_of(table: type[msgspec.Struct]) -> dict[str, Kind]:
    """The kind of each of a table's settings, in the order of declaration."""
    hints: dict[str, Any] = get_type_hints(table, include_extras=True)
    return {key: hints[key].__metadata__[0] for key in table.__struct_fields__}
