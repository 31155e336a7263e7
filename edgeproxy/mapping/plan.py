"""Rules made ready for being applied: what can be known of them before any event comes."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from edgeproxy.mapping.paths import EVERY, Path, Segment
from edgeproxy.mapping.rules import Rule

__all__ = ["Chain", "Input", "Ready", "ready_chains"]


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


def ready_chains(chains: Iterable[Sequence[Rule]], stay: frozenset[Path]) -> tuple[Chain, ...]:
    """Take rules apart, outer outputs before the inner ones that are written into them.

    Args:
        chains: for each output key its rules, the winning one first.
        stay: output keys of the field table, which are mapped to themselves and therefore not
            moved away when a rule reads them.
    """
    ordered = sorted(chains, key=lambda chain: len(chain[0].output))
    return tuple(tuple(Ready.of(rule, stay) for rule in chain) for chain in ordered)
