"""Hightouch's field table as data, a site's rules as settings, both as one call per event. Pure."""

from edgeproxy.mapping.compiling import compile, compile_settings, mapping_mistakes  # noqa: A004
from edgeproxy.mapping.counters import Counters, Note
from edgeproxy.mapping.explaining import Explanation, Limits, Supplied
from edgeproxy.mapping.filters import SET_ASIDE
from edgeproxy.mapping.mapper import Mapper
from edgeproxy.mapping.testing import Failure

__all__ = [
    "SET_ASIDE",
    "Counters",
    "Explanation",
    "Failure",
    "Limits",
    "Mapper",
    "Note",
    "Supplied",
    "compile",
    "compile_settings",
    "mapping_mistakes",
]
