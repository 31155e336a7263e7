"""What the settings say, as rules: each a value with everything checked and compiled."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from edgeproxy.mapping.expressions import Expression
from edgeproxy.mapping.paths import Path, show_path
from edgeproxy.mapping.transforms import Chain

__all__ = ["EventRule", "MappingSet", "Rule", "Scope"]

#: Where a rule stands; later ones win.
Scope = Literal["default", "global", "type", "event", "source"]


class Rule(Struct, frozen=True):
    """How one output key is supplied. At most one of `value` and `expr` is there."""

    output: Path
    name: str
    """As written in the settings: `[mapping.global] "properties.total"`."""
    inputs: tuple[Path, ...] = ()
    """The first that is present (not absent, not null) wins."""
    value: bytes | None = None
    expr: Expression | None = None
    default: bytes | None = None
    chain: Chain = ()
    when: Expression | None = None
    copy: bool = False
    """Leave the inputs where they were."""

    @property
    def key(self) -> str:
        """The output key as text."""
        return show_path(self.output)


class EventRule(Struct, frozen=True):
    """One `[mapping.event."Name"]`: whom it matches, what it is called, what it maps."""

    title: str
    sends: str
    exact: tuple[str, ...]
    spellings: tuple[str, ...]
    """Names in any usual spelling (`~Name`), squeezed by `squeeze`."""
    patterns: tuple[str, ...]
    rules: tuple[Rule, ...]

    @property
    def name(self) -> str:
        """The table in the settings."""
        return f'[mapping.event."{self.title}"]'

    def __add__(self, shipped: "EventRule") -> "EventRule":
        """A site's rule for a preset's event: it matches what the preset does, too."""
        return EventRule(
            self.title,
            self.sends,
            self.exact + shipped.exact,
            self.spellings + shipped.spellings,
            self.patterns + shipped.patterns,
            self.rules,
        )


class MappingSet(Struct, frozen=True):
    """A whole mapping, checked."""

    revision: str
    forward: bool = True
    keep: tuple[Path, ...] = ()
    default: tuple[Rule, ...] = ()
    everywhere: tuple[Rule, ...] = ()
    by_type: dict[str, tuple[Rule, ...]] = {}
    by_source: dict[str, tuple[Rule, ...]] = {}
    events: Sequence[EventRule] = ()

    @property
    def is_empty(self) -> bool:
        """Say whether only the field table is left to apply."""
        return self.forward and not (
            self.default or self.everywhere or self.by_type or self.by_source or self.events
        )
