"""One Python function for the simple rules of a plan, written when the plan is made.

Most rules give one field of an object to another, perhaps with a default or a transform, or compute
one. Walking over them as data costs more than what they do; written out as straight code, a rule
whose input an event does not have costs one look into a dict, and nothing in a variant for events
with the same fields. Rules that need more (conditions, arrays, one output inside another) are left
to `applying`, which also says what both have to do: the tests hold the two to each other.

The code holds no text of the settings but names as Python literals; everything else is in its
namespace.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Raw

from edgeproxy.mapping.objects import Edits
from edgeproxy.mapping.paths import Path
from edgeproxy.mapping.plan import Chain, Input, Ready
from edgeproxy.mapping.view import View

__all__ = ["Generated", "Variants", "generate"]


class Work(Protocol):
    """What the function asks for where a value has to be made."""

    def transformed(self, ready: Ready, text: Raw, one: Input) -> Raw | None:
        """What a rule's transforms make of a value; None where the field is left out."""

    def computed(self, ready: Ready) -> Raw | None:
        """What a rule's expression gives; None where the field is left out."""

    def rewrite(self, key: str, puts: dict[str, Raw], takes: dict[str, None]) -> None:
        """Put and take out members of one top-level object."""


#: Changes an event through its last argument, or collects the edits that do.
Generated = Callable[[View, Edits, Work], None]


_PROPERTIES: Path = ("properties",)
_TRAITS: Path = ("traits",)

#: For an object of the event, those of its members that any rule reads.
_Present = Mapping[Path, frozenset[str]]


def generate(
    chains: Sequence[Chain], present: _Present | None = None
) -> tuple[Generated | None, tuple[Chain, ...]]:
    """Write the function.

    Args:
        present: what the events have of which it will be called; None: any.

    Returns:
        The function, None where there is nothing for it; and the chains that it leaves over.
    """
    tangled = _tangled(chains)
    simple = [chain[0] for chain in chains if _is_simple(chain) and not tangled & _touched(chain)]
    rest = tuple(chain for chain in chains if chain[0] not in simple)
    if not simple:
        return None, rest
    writer = _Writer(present)
    for ready in simple:
        writer.rule(ready)
    return writer.compile(alone=not rest), rest


def _is_simple(chain: Chain) -> bool:
    rule = chain[0].rule
    paths = (rule.output, *rule.inputs)
    names_only = all(isinstance(segment, str) for path in paths for segment in path)
    return len(chain) == 1 and rule.when is None and names_only


def _touched(chain: Chain) -> set[Path]:
    """Every path that a chain may write or take out, as far as it is made of names."""
    paths = {one.path for ready in chain for one in ready.moving} | {chain[0].rule.output}
    return {_names(path) for path in paths}


def _names(path: Path) -> Path:
    for at, segment in enumerate(path):
        if not isinstance(segment, str):
            return path[:at]
    return path


def _tangled(chains: Iterable[Chain]) -> set[Path]:
    """The paths that lie around or inside another one that is touched."""
    touched = {path for chain in chains for path in _touched(chain)}
    inner = {path for path in touched if any(path[:at] in touched for at in range(1, len(path)))}
    return inner | {path[:at] for path in inner for at in range(1, len(path))}


def _changes_nothing(ready: Ready, inputs: Sequence[Input]) -> bool:
    """Whether a rule with only these inputs leaves every event as it is."""
    rule = ready.rule
    if rule.value is not None or rule.expr is not None or rule.default is not None:
        return False
    return not inputs or (not rule.chain and [one.path for one in inputs] == [rule.output])


class _Writer:
    """The lines of the function and the namespace that they need."""

    def __init__(self, present: _Present | None) -> None:
        self._present = present
        self._names: dict[str, Any] = {
            "NULL": Raw(b"null"),
            "EMPTY": {},
        }
        self._reads: dict[Path, str] = {}
        self._puts: dict[Path, str] = {}
        self._takes: dict[Path, str] = {}
        self._body: list[str] = []

    def rule(self, ready: Ready) -> None:
        """Write one rule."""
        rule = ready.rule
        inputs = [one for one in ready.inputs if self._may_be_there(one)]
        if _changes_nothing(ready, inputs):
            return
        put = f"{self._put(rule.output)}[{rule.output[-1]!r}]"
        if rule.value is not None:
            self._body.append(f"{put} = {self._constant(Raw(rule.value))}")
            return
        if rule.expr is not None:
            self._body.append(f"w = work.computed({self._constant(ready)})")
            self._put_or_take("", ready, put)
            return
        if not inputs:
            assert rule.default is not None  # noqa: S101 - it changes something
            self._body.append(f"{put} = {self._constant(Raw(rule.default))}")
            return
        own = ""
        for number, one in enumerate(inputs):
            indent = ""
            if number:
                self._body.append("if v is None or v == NULL:")
                indent = "    "
            self._body.append(f"{indent}v = {self._get(one)}")
            if rule.chain:
                self._body.append(f"{indent}i = {self._constant(one)}")
            elif one.path == rule.output:
                own = "own"
                self._body.append(f"{indent}own = v")
        self._use(ready, inputs, put, own)

    def _may_be_there(self, one: Input) -> bool:
        names = None if self._present is None else self._present.get(one.around)
        return names is None or one.last in names

    def _use(self, ready: Ready, inputs: Sequence[Input], put: str, own: str) -> None:
        rule = ready.rule
        self._body.append("if v is not None and v != NULL:")
        if rule.chain:
            self._body.append(f"    w = work.transformed({self._constant(ready)}, v, i)")
            self._put_or_take("    ", ready, put)
        elif not own:
            self._body.append(f"    {put} = v")
        elif len(inputs) > 1:
            self._body.append(f"    if v is not own: {put} = v")
        else:
            self._body.append("    pass")
        for one in ready.moving:
            if one in inputs:
                there = "" if len(inputs) == 1 else f"if {self._get(one)} is not None: "
                self._body.append(f"    {there}{self._take(one.path)}[{one.last!r}] = None")
        if rule.default is not None:
            self._body.append(f"else: {put} = {self._constant(Raw(rule.default))}")

    def _put_or_take(self, indent: str, ready: Ready, put: str) -> None:
        """Put `w`; what is left out is taken out, should it be there."""
        output = ready.rule.output
        self._body.append(f"{indent}if w is None: {self._take(output)}[{output[-1]!r}] = None")
        self._body.append(f"{indent}else: {put} = w")

    def _constant(self, value: object) -> str:
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name

    def _get(self, one: Input) -> str:
        if not one.around:
            return f"view.top({one.last!r})"
        name = self._reads.setdefault(one.around, f"m{len(self._reads)}")
        return f"{name}.get({one.last!r})"

    def _put(self, path: Path) -> str:
        return self._puts.setdefault(path[:-1], f"p{len(self._puts)}")

    def _take(self, path: Path) -> str:
        return self._takes.setdefault(path[:-1], f"t{len(self._takes)}")

    def compile(self, *, alone: bool) -> Generated:
        """The function itself.

        Args:
            alone: whether no other rules add edits to those of the function.
        """
        touched = {*self._puts, *self._takes}
        around = {path[:at] for path in touched for at in range(len(path))}
        flat = {path for path in touched if alone and path and path not in around}
        for path in flat:
            if len(path) == 1:
                self._puts.setdefault(path, f"p{len(self._puts)}")
                self._takes.setdefault(path, f"t{len(self._takes)}")
        dicts = [*self._puts.values(), *self._takes.values()]
        lines = [
            *(f"{name} = view.members({path!r}) or EMPTY" for path, name in self._reads.items()),
            *(f"{name} = {{}}" for name in dicts),
            "own = i = None",
            *self._body,
        ]
        # Outer objects first, so that inner ones find their place in them. Nothing is in both.
        for path in sorted(touched, key=len):
            lines += self._collect(path, is_flat=path in flat)
        source = "def run(view, edits, work):\n" + "".join(f"    {line}\n" for line in lines)
        exec(compile(source, "<mapping>", "exec"), self._names)  # noqa: S102 - see the module's docstring
        run: Generated = self._names["run"]
        return run

    def _collect(self, path: Path, *, is_flat: bool) -> list[str]:
        put, take = self._puts.get(path), self._takes.get(path)
        if is_flat and len(path) == 1:
            return [f"if {put} or {take}: work.rewrite({path[0]!r}, {put}, {take})"]
        # What is put wins over what is taken out.
        name = put or take
        lines = [f"if {take}: {take}.update({put}); {put} = {take}"] if put and take else []
        if not path:
            return [*lines, f"if {name}: edits.update({name})"]
        around = "edits" + "".join(f".setdefault({key!r}, {{}})" for key in path[:-1])
        return [*lines, f"if {name}: {around}[{path[-1]!r}] = {name}"]


#: Variants that are written for one plan; kinds of events that are remembered with theirs; and how
#: often events of a kind come before it is. Writing takes milliseconds, and what fields events have
#: is the clients' to choose: so many bytes of names, and no more, are remembered of a kind.
_MOST_VARIANTS = 64
_MOST_KINDS = 128
_LONGEST = 1000
_SEEN_BEFORE = 16

_Fields = tuple[tuple[str, ...], tuple[str, ...]]


class Variants:
    """The function of a plan, written anew for events with the same fields.

    Most of a site's rules find nothing in most of its events: what is not there costs nothing.
    """

    def __init__(self, chains: Sequence[Chain], general: Generated) -> None:
        """Take the rules, and the function for any event."""
        self._chains = chains
        self._general = general
        self._known: dict[_Fields, Generated] = {}
        self._seen: dict[_Fields, int] = {}
        self._written: dict[tuple[frozenset[str], frozenset[str]], Generated] = {}
        inputs = [one for chain in chains for ready in chain for one in ready.inputs]
        self._read = {
            around: frozenset([str(one.last) for one in inputs if one.around == around])
            for around in (_PROPERTIES, _TRAITS)
        }

    def choose(
        self, properties: Mapping[str, Raw] | None, traits: Mapping[str, Raw] | None
    ) -> Generated:
        """The function for an event with these members in its objects."""
        key = tuple(properties or ()), tuple(traits or ())
        return self._known.get(key) or self._look(key)

    def _look(self, key: _Fields) -> Generated:
        if sum([len(name) for names in key for name in names]) > _LONGEST:
            return self._general
        times = self._seen.pop(key, 0) + 1
        if times <= _SEEN_BEFORE:
            if len(self._seen) >= _MOST_KINDS:
                self._seen.clear()
            self._seen[key] = times
            return self._general
        if len(self._known) >= _MOST_KINDS:
            self._known.clear()
        self._known[key] = self._variant(key)
        return self._known[key]

    def _variant(self, key: _Fields) -> Generated:
        """What is written for the fields that any rule reads: others do not count."""
        properties = self._read[_PROPERTIES].intersection(key[0])
        traits = self._read[_TRAITS].intersection(key[1])
        written = self._written.get((properties, traits))
        if written is None:
            if len(self._written) >= _MOST_VARIANTS:
                return self._general
            made, _ = generate(self._chains, {_PROPERTIES: properties, _TRAITS: traits})
            written = self._written[properties, traits] = made or self._general
        return written
