"""A local stand-in for Hightouch's events API, for trying things out and for tests.

It judges on its own, from what is publicly known of Hightouch, and shares no code with the proxy:
a mistake in the proxy's own verdicts must not be repeated here.
"""

from edgeproxy.sandbox.faults import Faults, FaultsError
from edgeproxy.sandbox.server import Sandbox
from edgeproxy.sandbox.store import Arrival

__all__ = ["Arrival", "Faults", "FaultsError", "Sandbox"]
