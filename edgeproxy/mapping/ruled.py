"""The short way of events that rules change: `plain`, with the rules' one function in its middle.

It is for rules that read and write `properties` and `traits`, and read texts at the top: the usual
ones. Their objects come out of the strict decode as members, so that nothing is decoded for the
rules, and what changes is spliced into the client's bytes. An event for which the rules want
anything else goes the long way, before anything of it was counted.
"""

from collections.abc import Callable

import msgspec
from msgspec import UNSET, Raw

from edgeproxy.events.intake import Receipt, Sealed
from edgeproxy.mapping.applying import Plan, Work
from edgeproxy.mapping.paths import Path
from edgeproxy.mapping.plain import UNFIT, Plain, UnsureError, replaced, seal
from edgeproxy.mapping.plan import Ready
from edgeproxy.mapping.rules import EventRule
from edgeproxy.mapping.values import Unfit, encode
from edgeproxy.mapping.view import View

__all__ = ["Ruled", "takes_plan"]

_OBJECTS = ("properties", "traits")
_TEXTS = frozenset({"type", "messageId", "anonymousId", "userId", "event", "timestamp"})
_NAMES = {key: b'"%b"' % key.encode() for key in _OBJECTS}


class _Members(Plain, gc=False):
    """A plain event, and one level of what rules change."""

    properties: dict[str, Raw] | None = None  # type: ignore[assignment] # read here, not skipped
    traits: dict[str, Raw] | None = None  # type: ignore[assignment]


_decode = msgspec.json.Decoder(_Members).decode
_encode = msgspec.json.encode


def takes_plan(plan: Plan) -> bool:
    """Say whether the events of a plan may go the short way."""
    return plan.is_simple and all(
        path[0] in _OBJECTS or (len(path) == 1 and path[0] in _TEXTS)
        for path in plan.reads_and_writes()
    )


class _View(View):
    """Reads what the decode gave."""

    __slots__ = ("_lens",)

    def __init__(self, event: _Members) -> None:
        self._lens = event
        self._objects: dict[Path, dict[str, Raw] | None] = {
            ("properties",): event.properties,
            ("traits",): event.traits,
        }
        self._arrays = None

    def top(self, key: str) -> Raw | None:
        """The JSON text of a text at the top. Raises UnsureError for anything else."""
        if key not in _TEXTS:
            raise UnsureError
        value = getattr(self._lens, key)
        return None if value is None or value is UNSET else Raw(_encode(value))


class _Work(Work):
    """Splices what is rewritten into the event's bytes; gives up where something would be counted."""

    __slots__ = ("body",)

    def __init__(self, body: bytes, source: str, view: View) -> None:
        self.body = body
        self._source = source
        self._view = view
        self._trace = None
        self.edits = {}

    def rewrite(self, key: str, puts: dict[str, Raw], takes: dict[str, None]) -> None:
        members = self._view.members((key,))
        if members is None:
            raise UnsureError
        old = _encode(members)
        for name in takes:
            members.pop(name, None)
        members.update(puts)
        self.body = replaced(self.body, _NAMES[key], old, _encode(members))

    def leave_out(self, key: str, rule: str, reason: str) -> None:
        raise UnsureError

    def fail(self, ready: Ready, error: Unfit) -> None:
        raise UnsureError


class Ruled:
    """A `ShortWay` for the events of a mapper with rules."""

    def __init__(
        self, find: Callable[[str, str | None, str], tuple[Plan | None, EventRule | None]]
    ) -> None:
        """`find` gives the plan for a type, an event name and a source, and the rule that names it.

        No plan: such events cannot go the short way.
        """
        self._find = find

    def __call__(
        self, raw: bytes, source: str, receipt: Receipt, max_event: int, max_age: float
    ) -> Sealed | None:
        try:
            event = _decode(raw)
            plan, rule = self._find(event.type, event.event, source)
            if plan is None:
                return None
            body = raw
            if plan.variants is not None:
                view = _View(event)
                work = _Work(raw, source, view)
                run = plan.variants.choose(event.properties, event.traits)
                run(view, work.edits, work)
                if work.edits:
                    return None
                body = work.body
            if rule is not None and event.event != rule.sends and ("event",) not in plan.outputs:
                body = replaced(body, b'"event"', _encode(event.event), encode(rule.sends))
            return seal(event, body, receipt, max_event, max_age)
        except UNFIT:
            return None
