"""Hightouch's field table as data, a site's rules as settings, both as one call per event. Pure."""

from edgeproxy.mapping.compiling import (
    compile_file,
    compile_mapping,
    compile_settings,
    mapping_mistakes,
)
from edgeproxy.mapping.counters import Counters, Note
from edgeproxy.mapping.explaining import (
    Difference,
    Explanation,
    Limits,
    Supplied,
    differences,
    receipt_for,
)
from edgeproxy.mapping.filters import SET_ASIDE
from edgeproxy.mapping.mapper import Mapper
from edgeproxy.mapping.testing import Failure

__all__ = [
    "SET_ASIDE",
    "Counters",
    "Difference",
    "Explanation",
    "Failure",
    "Limits",
    "Mapper",
    "Note",
    "Supplied",
    "compile_file",
    "compile_mapping",
    "compile_settings",
    "differences",
    "mapping_mistakes",
    "receipt_for",
]
