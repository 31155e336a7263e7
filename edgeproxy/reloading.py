"""Which changed settings a running proxy cannot apply."""

from edgeproxy.config import Settings

__all__ = ["needs_restart"]

_FIXED = {
    "server": ("host", "port", "reuse_port"),
    "admin": ("host", "port", "token"),
    "buffer": ("path", "max_size", "durability"),
}


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """Name the changed settings that apply only after a restart, as `table.key`."""
    changed = [
        f"{table}.{key}"
        for table, keys in _FIXED.items()
        for key in keys
        if getattr(getattr(old, table), key) != getattr(getattr(new, table), key)
    ]
    # Another certificate can be shown at once, but a listener begins with TLS or without.
    if (old.server.tls_cert is None) != (new.server.tls_cert is None):
        changed.append("server.tls_cert")
    return changed
