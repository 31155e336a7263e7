"""`[[filters]]`: which events go no further, decided on the event as it came (before mapping)."""

import hashlib
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct

from edgeproxy.events import Event, Refusal, is_missing
from edgeproxy.events.verdicts import Filtered
from edgeproxy.mapping.counters import Counters, Trace
from edgeproxy.mapping.expressions import Expression
from edgeproxy.mapping.objects import read_members
from edgeproxy.mapping.values import Unfit
from edgeproxy.mapping.view import View

__all__ = ["SET_ASIDE", "Action", "Filter", "judge", "share_of"]

Action = Literal["drop", "keep", "sample", "dead_letters"]

#: The code of dead letters that a filter made.
SET_ASIDE = "set_aside"

_CONSENT = ("context", "consent", "categoryPreferences")


class Filter(Struct, frozen=True):
    """One filter. It speaks of an event when everything that it asks is so."""

    name: str
    action: Action
    types: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    names: Callable[[str], bool] | None = None
    when: Expression | None = None
    require: tuple[str, ...] = ()
    """Consent categories; the filter speaks of events whose user has not agreed to all of them."""
    rate: float = 1.0
    """The share of users that `sample` lets through."""


def judge(
    filters: tuple[Filter, ...],
    event: Event,
    source: str,
    view: View,
    counters: Counters,
    trace: Trace | None = None,
) -> Filtered | Refusal | None:
    """Ask the filters in order; the first that ends the event's way has decided.

    A filter whose condition fails lets the event pass: what is dropped, is dropped on purpose.
    """
    for rule in filters:
        try:
            verdict = _ask(rule, event, source, view)
        except Unfit as error:
            counters.expression_failed[rule.name] += 1
            if trace is not None:
                trace.add("", "not applied", f"[[filters]] {rule.name}", detail=str(error))
            continue
        if trace is not None:
            did = "passed" if verdict is None else rule.action
            trace.add("", did, f"[[filters]] {rule.name}")
        if verdict is not None:
            return verdict
    return None


def _ask(rule: Filter, event: Event, source: str, view: View) -> Filtered | Refusal | None:
    speaks = _speaks_of(rule, event, source, view)
    match rule.action:
        case "drop":
            ends = speaks
        case "keep":
            ends = not speaks
        case "sample":
            ends = speaks and share_of(event) >= rule.rate
        case "dead_letters":
            if speaks:
                return Refusal(SET_ASIDE, f"the filter {rule.name!r} sets it aside")
            ends = False
    return Filtered(rule.name) if ends else None


def _speaks_of(rule: Filter, event: Event, source: str, view: View) -> bool:
    lens = event.lens
    if rule.sources and source not in rule.sources:
        return False
    if rule.types and not (isinstance(lens.type, str) and lens.type in rule.types):
        return False
    if rule.names is not None and not (isinstance(lens.event, str) and rule.names(lens.event)):
        return False
    if rule.when is not None and not rule.when.holds(view, source):
        return False
    return not rule.require or not _has_consent(view, rule.require)


def _has_consent(view: View, categories: tuple[str, ...]) -> bool:
    """Whether every category is exactly true; without preferences nobody has agreed."""
    text = view.text(_CONSENT)
    preferences = None if text is None else read_members(text)
    if preferences is None:
        return False
    return all(preferences.get(category) == _TRUE for category in categories)


_TRUE = msgspec.Raw(b"true")


def share_of(event: Event) -> float:
    """Where an event's user stands between 0 and 1: the same for all their events, on every machine.

    The user is `anonymousId`, else `userId`, as for the order of events. Events of nobody stand
    at 0 and are never sampled away; they are refused for another reason.
    """
    lens = event.lens
    user = lens.userId if is_missing(lens.anonymousId) else lens.anonymousId
    if is_missing(user):
        return 0.0
    digest = hashlib.blake2b(str(user).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    # 53 bits are what a float between 0 and 1 can hold.
    return (int.from_bytes(digest, "big") >> 11) / 2**53
