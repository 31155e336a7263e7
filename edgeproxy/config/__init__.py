"""Every setting, default and limit; reading them; and saying what is wrong with them.

Pure but for reading the named files: no network, no database, no event loop.
"""

from edgeproxy.config.judging import Judge, fit_to_serve, is_loopback
from edgeproxy.config.loading import (
    Loaded,
    admin_of_instance,
    buffer_of_instance,
    default_path,
    for_instance,
    load,
    load_explained,
    load_table,
)
from edgeproxy.config.mistakes import ConfigError, Mistake, nearest
from edgeproxy.config.reading import resolve
from edgeproxy.config.settings import (
    Admin,
    Buffer,
    DeadLetters,
    Flush,
    Hightouch,
    Log,
    Retry,
    Server,
    Settings,
    Source,
    Validation,
)

__all__ = [
    "Admin",
    "Buffer",
    "ConfigError",
    "DeadLetters",
    "Flush",
    "Hightouch",
    "Judge",
    "Loaded",
    "Log",
    "Mistake",
    "Retry",
    "Server",
    "Settings",
    "Source",
    "Validation",
    "admin_of_instance",
    "buffer_of_instance",
    "default_path",
    "fit_to_serve",
    "for_instance",
    "is_loopback",
    "load",
    "load_explained",
    "load_table",
    "nearest",
    "resolve",
]
