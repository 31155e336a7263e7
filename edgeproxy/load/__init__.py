"""A load generator: traffic of a given shape over plain HTTP/1.1, and what it measured."""

from edgeproxy.load.report import Report
from edgeproxy.load.run import Plan, run
from edgeproxy.load.traffic import Shape, Target, from_lines, synthetic

__all__ = ["Plan", "Report", "Shape", "Target", "from_lines", "run", "synthetic"]
