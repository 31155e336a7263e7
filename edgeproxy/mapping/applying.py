"""Applying a list of rules to one event: read all inputs, then write all outputs.

Rules read the event as it came; none sees what another wrote. What changes is collected as edits,
which are applied level by level at the end, so that everything else keeps its bytes.
"""

from collections.abc import Iterator

from msgspec import Raw

from edgeproxy.events import Event
from edgeproxy.mapping.collecting import put_in, take_out
from edgeproxy.mapping.counters import Counters, Trace
from edgeproxy.mapping.generated import Variants, generate
from edgeproxy.mapping.objects import Edits, Text, is_null
from edgeproxy.mapping.paths import EVERY, Path, show_path
from edgeproxy.mapping.plan import Chain, Input, Ready
from edgeproxy.mapping.rules import Rule
from edgeproxy.mapping.transforms import DROPPED, run_chain
from edgeproxy.mapping.values import Unfit, decode, encode
from edgeproxy.mapping.view import Index, View
from edgeproxy.mapping.writing import put_edits, rewrite

__all__ = ["Plan", "Work"]


class Plan:
    """The rules for one kind of event."""

    __slots__ = ("_chains", "_rest", "generated", "outputs", "variants")

    def __init__(self, chains: tuple[Chain, ...]) -> None:
        self._chains = chains
        self.generated, self._rest = generate(chains)
        """The function that does what the simple rules say."""
        self.variants = None if self.generated is None else Variants(chains, self.generated)
        """The same for events that have only some of what the rules read."""
        self.outputs = frozenset(chain[0].rule.output for chain in chains)
        """Every output key that a rule may supply."""

    def reads_and_writes(self) -> Iterator[Path]:
        """Every path that a rule may read or write, those of its expressions included."""
        for ready in (ready for chain in self._chains for ready in chain):
            rule = ready.rule
            yield from (rule.output, *rule.inputs)
            for expression in (rule.when, rule.expr):
                if expression is not None:
                    yield from expression.paths()

    @property
    def is_simple(self) -> bool:
        """The generated function does all there is to do."""
        return not self._rest

    def apply(
        self, event: Event, source: str, view: View, counters: Counters, trace: Trace | None
    ) -> None:
        """Change an event. Never raises: what cannot be supplied is left out and counted."""
        work = Work(event, source, view, counters, trace)
        edits = work.edits
        rest = self._chains
        # Where somebody watches, every rule is gone through, so that it can say what it did.
        if trace is None:
            rest = self._rest
            if self.generated is not None:
                self.generated(view, edits, work)
        for chain in rest:
            work.run(chain)
        for path in work.used:
            take_out(edits, path)
        if not edits:
            return
        failed: list[str] = []
        put_edits(event, edits, view, failed)
        for reason in failed:
            work.leave_out("", "", reason)


class Work:
    """One event's edits as they come together."""

    __slots__ = ("_counters", "_event", "_source", "_trace", "_view", "edits", "used")

    def __init__(
        self, event: Event, source: str, view: View, counters: Counters, trace: Trace | None
    ) -> None:
        self._event = event
        self._source = source
        self._view = view
        self._counters = counters
        self._trace = trace
        self.edits: Edits = {}
        self.used: list[Path] = []

    def run(self, chain: Chain) -> None:
        for ready in chain:
            rule = ready.rule
            if rule.when is not None and not rule.when.uses_item and not self._holds(rule, None):
                continue
            if ready.is_plain:
                self._move(ready)
                return
            try:
                if ready.is_elementwise:
                    self._supply_elements(ready)
                else:
                    self._supply(ready)
            except Unfit as error:
                self._leave_arrays_out(ready, str(error))
            return

    def _leave_arrays_out(self, ready: Ready, reason: str) -> None:
        """An array that a rule cannot go through is not sent: the rule may be there to hide it."""
        for path in (ready.rule.output, *ready.rule.inputs):
            if EVERY in path:
                put_in(self.edits, path[: path.index(EVERY)], None)
        self.leave_out(ready.key, ready.rule.name, reason)

    def _holds(self, rule: Rule, item: Text | None) -> bool:
        assert rule.when is not None  # noqa: S101 - for the type checker; callers looked
        try:
            if rule.when.holds(self._view, self._source, item):
                return True
            why = "its condition is not met"
        except Unfit as error:
            self._counters.expression_failed[rule.key] += 1
            why = f"its condition fails: {error}"
        if self._trace is not None:
            self._trace.add(rule.key, "not applied", rule.name, detail=why)
        return False

    # --- one field ---

    def _move(self, ready: Ready) -> None:
        """The most common rule, a path for a path, without anything else."""
        for one in ready.inputs:
            text = self._view.inside(one.around, one.last)
            if text is None or is_null(text):
                continue
            self._use(ready)
            rule = ready.rule
            if one.path != rule.output:
                put_in(self.edits, rule.output, text)
            if self._trace is not None:
                self._trace.add(ready.key, _verb(rule, one), rule.name, show_path(one.path))
            return

    def _supply(self, ready: Ready) -> None:
        rule = ready.rule
        if rule.value is not None:
            self._write(rule, rule.output, rule.value, "set")
        elif rule.expr is not None:
            self._compute(ready, rule.output, None)
        else:
            self._read(ready)

    def _read(self, ready: Ready) -> None:
        rule = ready.rule
        for one in ready.inputs:
            given: Text | None
            given = self._gather(one.path) if one.gathers else self._view.present(one.path)
            if given is not None:
                self._use(ready)
                self._transform(ready, rule.output, given, one)
                return
        if rule.default is not None:
            self._write(rule, rule.output, rule.default, "default")

    def _gather(self, path: Path) -> bytes | None:
        """A list of what stands at a path through an array."""
        found = [bytes(text) for _, text in self._view.select(path)]
        return b"[%b]" % b",".join(found) if found else None

    def _use(self, ready: Ready) -> None:
        """Note that a rule's inputs have been taken, all of them: see the documentation's "Moved"."""
        for one in ready.moving:
            if self._view.inside(one.around, one.last) is not None:
                self.used.append(one.path)

    def _transform(self, ready: Ready, place: Path, text: Text, one: Input) -> None:
        if not ready.rule.chain:
            self._write(ready.rule, place, text, _verb(ready.rule, one), one.path)
            return
        now = self.transformed(ready, text, one)
        put_in(self.edits, place, now)
        if self._trace is not None and now is not None:
            self._trace.add(show_path(place), "transformed", ready.rule.name, show_path(one.path))

    def transformed(self, ready: Ready, text: Text, one: Input) -> Raw | None:
        """What a rule's transforms make of a value; None where the field is left out."""
        rule = ready.rule
        try:
            value = run_chain(rule.chain, decode(text))
            if value is not DROPPED and value is not None:
                return Raw(encode(value))
        except Unfit as error:
            self.leave_out(ready.key, rule.name, str(error))
            return None
        if self._trace is not None:
            self._trace.add(ready.key, "dropped", rule.name, show_path(one.path))
        return None

    def _compute(self, ready: Ready, place: Path, item: Text | None) -> None:
        now = self.computed(ready, item)
        put_in(self.edits, place, now)
        if self._trace is not None and now is not None:
            self._trace.add(show_path(place), "computed", ready.rule.name)

    def computed(self, ready: Ready, item: Text | None = None) -> Raw | None:
        """What a rule's expression gives; None where the field is left out."""
        rule = ready.rule
        assert rule.expr is not None  # noqa: S101 - as above
        try:
            value = rule.expr.evaluate(self._view, self._source, item)
            if rule.chain and value is not None:
                value = run_chain(rule.chain, value)
            return None if value is DROPPED or value is None else Raw(encode(value))
        except Unfit as error:
            self.fail(ready, error)
            return None

    def fail(self, ready: Ready, error: Unfit) -> None:
        """Count and tell that an expression failed."""
        self._counters.expression_failed[ready.key] += 1
        if self._trace is not None:
            self._trace.add(ready.key, "left out", ready.rule.name, detail=str(error))

    def rewrite(self, key: str, puts: dict[str, Raw], takes: dict[str, None]) -> None:
        """Put and take out members of one top-level object."""
        rewrite(self._event, key, self._view, puts, takes, self.edits)

    # --- elements of arrays ---

    def _supply_elements(self, ready: Ready) -> None:
        rule = ready.rule
        done: set[Index] = set()
        if any(one.gathers for one in ready.inputs):
            done = self._map_elements(ready)
            if done and rule.default is None:
                return
        for index, place in self._view.places(_element(rule.output)):
            if index not in done and self._applies_to(rule, place):
                self._supply_element(ready, index, place)

    def _map_elements(self, ready: Ready) -> set[Index]:
        """Element by element, from the first input that has something for it."""
        rule = ready.rule
        found: dict[Index, tuple[Text, Input]] = {}
        for one in ready.inputs:
            for index, there in self._view.select(one.path):
                found.setdefault(index, (there, one))
        done: set[Index] = set()
        for index, (text, one) in found.items():
            if len(index) != rule.output.count(EVERY):
                continue  # an input without [] beside others that have it: for every element
            if not self._applies_to(rule, _fill(_element(rule.output), index)):
                continue
            done.add(index)
            for moving in ready.moving:
                concrete = _fill(moving.path, index)
                if self._view.text(concrete) is not None:
                    self.used.append(concrete)
            self._transform(ready, _fill(rule.output, index), text, one)
        return done

    def _applies_to(self, rule: Rule, place: Path) -> bool:
        if rule.when is None or not rule.when.uses_item:
            return True
        return self._holds(rule, self._view.text(place))

    def _supply_element(self, ready: Ready, index: Index, element: Path) -> None:
        rule = ready.rule
        place = _fill(rule.output, index)
        if rule.value is not None:
            self._write(rule, place, rule.value, "set")
        elif rule.expr is not None:
            self._compute(ready, place, self._view.text(element))
        else:
            for one in ready.inputs:
                given = None if one.gathers else self._view.present(one.path)
                if given is not None:
                    self._transform(ready, place, given, one)
                    return
            if rule.default is not None:
                self._write(rule, place, rule.default, "default")

    # --- writing ---

    def leave_out(self, key: str, rule: str, reason: str) -> None:
        """Count and tell that a field cannot be supplied."""
        self._counters.left_out[key] += 1
        if self._trace is not None:
            self._trace.add(key, "left out", rule, detail=reason)

    def _write(
        self, rule: Rule, place: Path, text: Text | None, did: str | None, path: Path | None = None
    ) -> None:
        put_in(self.edits, place, text)
        if self._trace is not None and did is not None:
            came = "" if path is None else show_path(path)
            self._trace.add(show_path(place), did, rule.name, came)


def _verb(rule: Rule, one: Input) -> str:
    if one.path == rule.output:
        return "kept"
    return "moved" if one.moves else "copied"


def _element(path: Path) -> Path:
    """The path of the array element that a path through `[]` ends in."""
    last = len(path) - 1 - path[::-1].index(EVERY)
    return path[: last + 1]


def _fill(path: Path, index: Index) -> Path:
    """A path with its `[]` replaced by places, from the left."""
    places: Iterator[int] = iter(index)
    return tuple([next(places) if segment is EVERY else segment for segment in path])
