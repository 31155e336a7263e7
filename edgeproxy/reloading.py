"""Which changed settings a running proxy cannot apply."""

from edgeproxy.config import Settings

__all__ = ["needs_restart"]

_FIXED = {
    "server": ("host", "port", "reuse_port", "tls_cert", "tls_key"),
    "admin": ("host", "port", "token"),
    "buffer": ("path", "max_size", "durability"),
}


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """Name the changed settings that apply only after a restart, as `table.key`."""
    return [
        f"{table}.{key}"
        for table, keys in _FIXED.items()
        for key in keys
        if getattr(getattr(old, table), key) != getattr(getattr(new, table), key)
    ]
