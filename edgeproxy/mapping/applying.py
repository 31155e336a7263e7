"""Applying a list of rules to one event: read all inputs, then write all outputs.

Rules read the event as it came; none sees what another wrote. What changes is collected as edits,
which are applied level by level at the end, so that everything else keeps its bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edgeproxy.events import Event
from edgeproxy.mapping.counters import Counters, Trace
from edgeproxy.mapping.objects import Edits, Text, edit
from edgeproxy.mapping.paths import EVERY, Path, show_path
from edgeproxy.mapping.rules import Rule
from edgeproxy.mapping.transforms import DROPPED, run_chain
from edgeproxy.mapping.values import Unfit, decode, encode
from edgeproxy.mapping.view import Index, View
from edgeproxy.mapping.writing import put_edits

__all__ = ["Plan"]


class Plan:
    """The rules for one kind of event, sorted so that outer outputs come before inner ones.

    Each entry is a chain: the rules for one output key, the winning one first; the next has its
    say only where the condition of the one before is not met.
    """

    __slots__ = ("_chains", "_counters", "_stay")

    def __init__(
        self, chains: Iterable[Sequence[Rule]], counters: Counters, stay: frozenset[Path]
    ) -> None:
        """Take rules.

        Args:
            stay: output keys of the field table, which are mapped to themselves and therefore not
                moved away when a rule reads them.
        """
        self._chains = sorted((tuple(chain) for chain in chains), key=lambda c: len(c[0].output))
        self._counters = counters
        self._stay = stay

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Every output key that a rule may supply."""
        return tuple(chain[0].output for chain in self._chains)

    def apply(self, event: Event, source: str, view: View, trace: Trace | None) -> None:
        """Change the event. Never raises: what cannot be supplied is left out and counted."""
        work = _Work(source, view, self._counters, trace)
        for chain in self._chains:
            work.run(chain)
        if not work.edits and not work.used:
            return
        for path in work.used:
            if path not in self._stay:
                _take_out(work.edits, path)
        failed: list[str] = []
        put_edits(event, work.edits, failed)
        for reason in failed:
            work.leave_out("", "", reason)


class _Work:
    """One event's edits as they come together."""

    __slots__ = ("_counters", "_source", "_trace", "_view", "edits", "used")

    def __init__(self, source: str, view: View, counters: Counters, trace: Trace | None) -> None:
        self._source = source
        self._view = view
        self._counters = counters
        self._trace = trace
        self.edits: Edits = {}
        self.used: list[Path] = []

    def run(self, chain: Sequence[Rule]) -> None:
        for rule in chain:
            if rule.when is not None and not rule.when.uses_item and not self._holds(rule, None):
                continue
            if EVERY in rule.output:
                self._supply_elements(rule)
            elif rule.is_plain:
                self._move(rule)
            else:
                self._supply(rule)
            return

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

    def _move(self, rule: Rule) -> None:
        """The most common rule, a path for a path, without anything else."""
        for path in rule.inputs:
            text = self._view.present(path)
            if text is None:
                continue
            self._use(rule)
            if path == rule.output:
                if self._trace is not None:
                    self._trace.add(rule.key, "kept", rule.name, rule.key)
            else:
                self._write(rule, rule.output, text, _verb(rule, path), path)
            return

    def _supply(self, rule: Rule) -> None:
        if rule.value is not None:
            self._write(rule, rule.output, rule.value, "set")
        elif rule.expr is not None:
            self._compute(rule, rule.output, None)
        else:
            self._read(rule)

    def _read(self, rule: Rule) -> None:
        for path in rule.inputs:
            text = self._gather(path) if EVERY in path else self._view.present(path)
            if text is not None:
                self._use(rule)
                self._transform(rule, rule.output, text, path)
                return
        if rule.default is not None:
            self._write(rule, rule.output, rule.default, "default")

    def _gather(self, path: Path) -> bytes | None:
        """A list of what stands at a path through an array."""
        found = [bytes(text) for _, text in self._view.select(path)]
        return b"[%b]" % b",".join(found) if found else None

    def _use(self, rule: Rule) -> None:
        """Note that a rule's inputs have been taken, all of them: see the documentation's "Moved"."""
        for path in rule.inputs:
            if rule.moves(path) and self._view.text(path) is not None:
                self.used.append(path)

    def _transform(self, rule: Rule, place: Path, text: Text, path: Path) -> None:
        if not rule.chain:
            self._write(rule, place, text, _verb(rule, path), path)
            return
        try:
            value = run_chain(rule.chain, decode(text))
            now = None if value is DROPPED or value is None else encode(value)
        except Unfit as error:
            self._write(rule, place, None, None)
            self.leave_out(rule.key, rule.name, str(error))
            return
        self._write(rule, place, now, "transformed" if now is not None else "dropped", path)

    def _compute(self, rule: Rule, place: Path, item: Text | None) -> None:
        assert rule.expr is not None  # noqa: S101 - as above
        try:
            value: Any = rule.expr.evaluate(self._view, self._source, item)
            if rule.chain and value is not None:
                value = run_chain(rule.chain, value)
            now = None if value is DROPPED or value is None else encode(value)
        except Unfit as error:
            self._counters.expression_failed[rule.key] += 1
            self._write(rule, place, None, None)
            if self._trace is not None:
                self._trace.add(show_path(place), "left out", rule.name, detail=str(error))
            return
        self._write(rule, place, now, "computed" if now is not None else "dropped")

    # --- elements of arrays ---

    def _supply_elements(self, rule: Rule) -> None:
        if rule.inputs and any(EVERY in path for path in rule.inputs):
            done = self._map_elements(rule)
        else:
            done = set()
        if rule.inputs and rule.default is None and done:
            return
        for index, place in self._view.places(_element(rule.output)):
            if index not in done and self._applies_to(rule, place):
                self._supply_element(rule, index, place)

    def _map_elements(self, rule: Rule) -> set[Index]:
        """Element by element, from the first input that has something for it."""
        found: dict[Index, tuple[Text, Path]] = {}
        for path in rule.inputs:
            for index, text in self._view.select(path):
                found.setdefault(index, (text, path))
        done: set[Index] = set()
        for index, (text, path) in found.items():
            if not self._applies_to(rule, _fill(_element(rule.output), index)):
                continue
            done.add(index)
            for used in rule.inputs:
                concrete = _fill(used, index)
                if rule.moves(used) and self._view.text(concrete) is not None:
                    self.used.append(concrete)
            self._transform(rule, _fill(rule.output, index), text, path)
        return done

    def _applies_to(self, rule: Rule, place: Path) -> bool:
        if rule.when is None or not rule.when.uses_item:
            return True
        return self._holds(rule, self._view.text(place))

    def _supply_element(self, rule: Rule, index: Index, element: Path) -> None:
        place = _fill(rule.output, index)
        if rule.value is not None:
            self._write(rule, place, rule.value, "set")
        elif rule.expr is not None:
            self._compute(rule, place, self._view.text(element))
        else:
            for path in rule.inputs:
                text = None if EVERY in path else self._view.present(path)
                if text is not None:
                    self._transform(rule, place, text, path)
                    return
            if rule.default is not None:
                self._write(rule, place, rule.default, "default")

    # --- writing ---

    def leave_out(self, key: str, rule: str, reason: str) -> None:
        self._counters.left_out[key] += 1
        if self._trace is not None:
            self._trace.add(key, "left out", rule, detail=reason)

    def _write(
        self, rule: Rule, place: Path, text: Text | None, did: str | None, path: Path | None = None
    ) -> None:
        _put_in(self.edits, place, text)
        if self._trace is not None and did is not None:
            came = "" if path is None else show_path(path)
            self._trace.add(show_path(place), did, rule.name, came)


def _verb(rule: Rule, path: Path) -> str:
    if path == rule.output:
        return "kept"
    return "moved" if rule.moves(path) else "copied"


def _element(path: Path) -> Path:
    """The path of the array element that a path through `[]` ends in."""
    last = len(path) - 1 - path[::-1].index(EVERY)
    return path[: last + 1]


def _fill(path: Path, index: Index) -> Path:
    """A path with its `[]` replaced by places, from the left."""
    places: Iterator[int] = iter(index)
    return tuple([next(places) if segment is EVERY else segment for segment in path])


def _put_in(edits: Edits, path: Path, text: Text | None) -> None:
    level = edits
    for at, segment in enumerate(path[:-1], 1):
        assert segment is not EVERY  # noqa: S101 - places have been filled in
        inner = level.get(segment, level)
        if inner is level:
            inner = level[segment] = {}
        if not isinstance(inner, dict):
            # An outer key was supplied as a whole: this one is written into it.
            below: Edits = {}
            _put_in(below, path[at:], text)
            level[segment] = edit(inner, below)
            return
        level = inner
    last = path[-1]
    assert last is not EVERY  # noqa: S101 - as above
    level[last] = text


def _take_out(edits: Edits, path: Path) -> None:
    """As `_put_in` with nothing, unless something was put there or around it."""
    level = edits
    for segment in path[:-1]:
        assert segment is not EVERY  # noqa: S101 - as above
        inner = level.setdefault(segment, {})
        if not isinstance(inner, dict):
            return
        level = inner
    last = path[-1]
    assert last is not EVERY  # noqa: S101 - as above
    level.setdefault(last, None)
