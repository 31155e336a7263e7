"""The mapper: filters, rules and types as one call on the path of every event."""

from collections.abc import Mapping

from edgeproxy.events import Event, Refusal
from edgeproxy.events.intake import Receipt
from edgeproxy.events.verdicts import TYPES, Filtered
from edgeproxy.mapping.applying import Plan
from edgeproxy.mapping.checking import Checker, Types
from edgeproxy.mapping.counters import Counters, Trace
from edgeproxy.mapping.explaining import Explanation, Limits, preview, receipt_for
from edgeproxy.mapping.filters import Filter, judge
from edgeproxy.mapping.names import Names
from edgeproxy.mapping.paths import Path, parse_path
from edgeproxy.mapping.plain import ShortWay, seal_plain
from edgeproxy.mapping.plan import ready_chains
from edgeproxy.mapping.pruning import Pruner
from edgeproxy.mapping.ruled import Ruled, takes_plan
from edgeproxy.mapping.rules import EventRule, MappingSet, Rule
from edgeproxy.mapping.table import allowed, field_table
from edgeproxy.mapping.testing import Failure, MappingTest, run
from edgeproxy.mapping.values import encode
from edgeproxy.mapping.view import View
from edgeproxy.mapping.writing import put

__all__ = ["Mapper"]

_MAX_NAMES = 4096
_MAX_NAME = 200
"""Names are the clients' to choose: so many, and no longer ones, are remembered with their rule."""


class Mapper:
    """A compiled mapping. One per configuration; not changed after that but for its counters.

    Not thread-safe: one event at a time.
    """

    def __init__(
        self,
        mapping: MappingSet,
        filters: tuple[Filter, ...],
        types: Types,
        tests: tuple[MappingTest, ...] = (),
    ) -> None:
        self.revision = mapping.revision
        """Names the mapping in status, metrics and dead letters."""
        self.counters = Counters()
        """What happened so far, by output key."""
        self._mapping = mapping
        self._tests = tests
        self._filters = filters
        self._names = Names(mapping.events)
        self._checker = Checker(types, self.counters)
        self._twin: Mapper | None = None
        self._has_rules = not mapping.is_empty
        self._plain = mapping.is_empty and not filters
        self._plans: dict[tuple[str, str, str], tuple[Plan, Pruner | None, bool]] = {}
        self._found: dict[str, EventRule | None] = {}
        self._short: dict[tuple[str, str | None, str], tuple[Plan | None, EventRule | None]] = {}
        self._stay: frozenset[Path] = frozenset(parse_path(row.output) for row in field_table())
        self.short_way: ShortWay | None = None
        """Does for most events what `normalise`, `apply` and `seal` do, in one step."""
        if self._plain:
            self.short_way = seal_plain
        elif not filters and any(self._planned(kind, None, "")[2] for kind in TYPES):
            # Where a rule for all events stands in its way, no event is looked at for nothing.
            self.short_way = Ruled(self._find)

    def apply(
        self, event: Event, source: str, trace: Trace | None = None
    ) -> Refusal | Filtered | None:
        """Map one event in place, as the source's settings say. Never raises.

        Returns:
            None when the event goes on, changed or not; Filtered when a filter drops it; Refusal
            when a filter sets it aside or a type is wrong under `types = "quarantine"`. After
            either the event may have been changed in part and is not to be sent.
        """
        if self._plain:
            return self._checker.check(event, trace)
        view = View(event)
        if self._filters:
            verdict = judge(self._filters, event, source, view, self.counters, trace)
            if verdict is not None:
                return verdict
        if self._has_rules:
            self._map(event, source, view, trace)
        return self._checker.check(event, trace)

    def explain(
        self, raw: bytes, source: str, receipt: Receipt | None = None, limits: Limits | None = None
    ) -> Explanation:
        """Say what would become of an event as it comes in, and why. Never raises; changes nothing.

        Without a receipt the event's age is not judged.
        """
        # A mapper of its own counts, so that looking at an event is not mistaken for traffic.
        watched = self._uncounted()
        return preview(watched, raw, source, receipt or receipt_for(raw), limits)

    def run_tests(self) -> tuple[Failure, ...]:
        """Run the `[[tests]]` of the settings; give those that do not hold."""
        return run(self._uncounted(), self._tests)

    def _uncounted(self) -> "Mapper":
        if self._twin is None:
            self._twin = Mapper(self._mapping, self._filters, self._checker.types)
        return self._twin

    def rule_for(self, event: Event) -> EventRule | None:
        """The event rule that names this event, if any."""
        lens = event.lens
        return self._rule_named(lens.event) if lens.type == "track" else None

    def _rule_named(self, name: object) -> EventRule | None:
        if type(name) is not str:
            return None
        try:
            return self._found[name]
        except KeyError:
            rule = self._names.find(name)
            if len(name) <= _MAX_NAME:
                if len(self._found) >= _MAX_NAMES:
                    self._found.clear()
                self._found[name] = rule
            return rule

    def _map(self, event: Event, source: str, view: View, trace: Trace | None) -> None:
        lens = event.lens
        rule = self.rule_for(event)
        kind = lens.type if type(lens.type) is str and lens.type in TYPES else ""
        plan, pruner, _ = self._planned(kind, rule, source)
        plan.apply(event, source, view, self.counters, trace)
        if rule is not None and lens.event != rule.sends and ("event",) not in plan.outputs:
            put(event, "event", encode(rule.sends))
            if trace is not None:
                trace.add("event", "set", rule.name, "event")
        if pruner is not None:
            pruner.prune(event, trace)

    def _find(
        self, kind: str, name: str | None, source: str
    ) -> tuple[Plan | None, EventRule | None]:
        """See `Ruled`."""
        found = self._short.get((kind, name, source))
        if found is None:
            rule = self._rule_named(name) if kind == "track" else None
            plan, _, is_short = self._planned(kind, rule, source)
            found = (plan if is_short else None), rule
            if name is None or len(name) <= _MAX_NAME:
                if len(self._short) >= _MAX_NAMES:
                    self._short.clear()
                self._short[kind, name, source] = found
        return found

    def _planned(
        self, kind: str, rule: EventRule | None, source: str
    ) -> tuple[Plan, Pruner | None, bool]:
        """The plan for such events, what prunes them, and whether the short way takes them."""
        scope = source if source in self._mapping.by_source else ""
        key = (kind, "" if rule is None else rule.title, scope)
        entry = self._plans.get(key)
        if entry is None:
            plan, pruner = self._plan(kind, rule, scope)
            entry = self._plans[key] = plan, pruner, pruner is None and takes_plan(plan)
        return entry

    def _plan(self, kind: str, rule: EventRule | None, source: str) -> tuple[Plan, Pruner | None]:
        mapping = self._mapping
        scopes: list[Mapping[Path, Rule]] = [
            {r.output: r for r in rules}
            for rules in (
                mapping.by_source.get(source, ()),
                () if rule is None else rule.rules,
                mapping.by_type.get(kind, ()),
                mapping.everywhere,
                mapping.default if rule is None else (),
            )
        ]
        outputs = dict.fromkeys(path for scope in scopes for path in scope)
        chains = [_chain([scope[path] for scope in scopes if path in scope]) for path in outputs]
        plan = Plan(ready_chains(chains, self._stay))
        if mapping.forward:
            return plan, None
        keep = {parse_path(key) for key in allowed(kind)} | set(mapping.keep) | plan.outputs
        return plan, Pruner(keep)


def _chain(rules: list[Rule]) -> list[Rule]:
    """The rules that may have a say: up to the first that asks no condition."""
    chain: list[Rule] = []
    for rule in rules:
        chain.append(rule)
        if rule.when is None:
            break
    return chain
