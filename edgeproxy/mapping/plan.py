"""Rules made ready for being applied: what can be known of them before any event comes."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from edgeproxy.mapping.paths import EVERY, Path, Segment
from edgeproxy.mapping.rules import Rule
from edgeproxy.mapping.view import View

__all__ = ["Chain", "Input", "Plan", "Ready"]


class Input(Struct, frozen=True):
    """One input of a rule."""

    path: Path
    around: Path
    last: Segment
    gathers: bool
    """It has `[]`: what stands there is several values."""
    moves: bool
    """Once it is used it is taken out of where it was."""


class Ready(Struct, frozen=True):
    """One rule, taken apart."""

    rule: Rule
    key: str
    inputs: tuple[Input, ...]
    moving: tuple[Input, ...]
    """Those of the inputs that move."""
    is_plain: bool
    """A path for a path, without anything else."""
    is_elementwise: bool
    """It supplies elements of arrays."""

    @classmethod
    def of(cls, rule: Rule, stay: frozenset[Path]) -> "Ready":
        """Take a rule apart; inputs at the paths of `stay` do not move."""
        inputs = tuple(
            Input(path, path[:-1], path[-1], EVERY in path, _moves(rule, path) and path not in stay)
            for path in rule.inputs
        )
        plain = (
            rule.value is None
            and rule.expr is None
            and rule.default is None
            and not rule.chain
            and EVERY not in rule.output
            and not any(one.gathers for one in inputs)
        )
        moving = tuple(one for one in inputs if one.moves)
        return cls(rule, rule.key, inputs, moving, plain, EVERY in rule.output)


def _moves(rule: Rule, path: Path) -> bool:
    """Whether an input is moved, not copied: a field that is no element, or element by element."""
    return (
        not rule.copy
        and path != rule.output
        and path.count(EVERY) == rule.output.count(EVERY)
        and not any(isinstance(segment, int) for segment in path)
    )


#: The rules for one output key: the next has its say where the one before asks what is not so.
Chain = tuple[Ready, ...]


class Plan:
    """The rules for one kind of event, found quickly by what an event has."""

    def __init__(self, chains: Iterable[Sequence[Rule]], stay: frozenset[Path]) -> None:
        """Take rules.

        Args:
            chains: for each output key its rules, the winning one first.
            stay: output keys of the field table, which are mapped to themselves and therefore not
                moved away when a rule reads them.
        """
        # Outer outputs before inner ones, which are written into them.
        ordered = sorted(chains, key=lambda chain: len(chain[0].output))
        self._chains = tuple(tuple(Ready.of(rule, stay) for rule in chain) for chain in ordered)
        self._always: list[int] = []
        self._wanted: dict[Path, dict[str, list[int]]] = {}
        for number, chain in enumerate(self._chains):
            if all(one.rule.inputs and one.rule.default is None for one in chain):
                for one in chain:
                    for path in one.rule.inputs:
                        self._note(path, number)
            else:
                self._always.append(number)
        self.outputs = frozenset(chain[0].output for chain in ordered)
        """Every output key that a rule may supply."""

    def _note(self, path: Path, number: int) -> None:
        """Note that an event has to have something at a path, as far as that is quickly told."""
        names = [segment for segment in path if isinstance(segment, str)]
        plain = len(names) == len(path)
        at = (
            len(path) - 1
            if plain
            else next(i for i, s in enumerate(path) if not isinstance(s, str)) - 1
        )
        self._wanted.setdefault(path[:at], {}).setdefault(str(path[at]), []).append(number)

    def for_event(self, view: View) -> Sequence[Chain]:
        """The chains that could supply anything for an event, in their order."""
        numbers = list(self._always)
        for around, wanted in self._wanted.items():
            if around:
                members = view.members(around)
                if members:
                    for key in wanted.keys() & members.keys():
                        numbers += wanted[key]
            else:
                for key, found in wanted.items():
                    if view.top(key) is not None:
                        numbers += found
        if len(numbers) > 1:
            numbers = sorted(set(numbers))
        chains = self._chains
        return [chains[number] for number in numbers]
