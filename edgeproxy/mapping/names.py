"""Track events' names: which event rule speaks of one."""

import fnmatch
import re
from collections.abc import Callable, Sequence

from edgeproxy.mapping.rules import EventRule

__all__ = ["Names", "matcher", "squeeze"]

_BETWEEN_WORDS = re.compile(r"[\W_]+")


def squeeze(name: str) -> str:
    """What all usual spellings of a name have in common: `Order Completed`, `order_completed`,
    `orderCompleted` and `ORDER-COMPLETED` are all `ordercompleted`.
    """
    return _BETWEEN_WORDS.sub("", name).casefold()


def matcher(names: Sequence[str]) -> Callable[[str], bool]:
    """One test for a list of names as settings have it: exact, `~any spelling`, or with `*` and `?`."""
    exact = frozenset(name for name in names if not is_pattern(name) and not name.startswith("~"))
    spelled = frozenset(squeeze(name[1:]) for name in names if name.startswith("~"))
    patterns = [compile_pattern(name) for name in names if is_pattern(name)]

    def matches(name: str) -> bool:
        return (
            name in exact
            or (bool(spelled) and squeeze(name) in spelled)
            or any(pattern(name) for pattern in patterns)
        )

    return matches


def is_pattern(name: str) -> bool:
    """Say whether a name in the settings is a pattern."""
    return not name.startswith("~") and ("*" in name or "?" in name)


def compile_pattern(name: str) -> Callable[[str], object]:
    """`*` stands for any text and `?` for one character; case counts."""
    # Brackets are no pattern here: names may have them.
    escaped = name.replace("[", "[[]")
    return re.compile(fnmatch.translate(escaped)).match


class Names:
    """From a track event's name to its rule: exact names first, then spellings, then patterns."""

    def __init__(self, rules: Sequence[EventRule]) -> None:
        self._exact = {name: rule for rule in reversed(rules) for name in rule.exact}
        self._spelled = {name: rule for rule in reversed(rules) for name in rule.spellings}
        self._patterns = [(compile_pattern(p), rule) for rule in rules for p in rule.patterns]

    def find(self, name: str) -> EventRule | None:
        """The rule that names an event, if any."""
        found = self._exact.get(name)
        if found is None and self._spelled:
            found = self._spelled.get(squeeze(name))
        if found is None:
            for matches, rule in self._patterns:
                if matches(name):
                    return rule
        return found
