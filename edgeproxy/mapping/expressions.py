"""Conditions and computed values: CEL expressions over the event, compiled once.

Google's own CEL in C++ evaluates them (`cel-expr-python`, the extra `expressions`). Converting a
whole event for it would cost more than everything else the proxy does with one, so an expression
binds only the paths that it reads.

What an expression may cost is bounded: macros do not nest, iterate lists of the event only, and
those only up to MAX_ITEMS; the text bound is at most MAX_READ bytes.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from edgeproxy.mapping.objects import Text, is_null, read_members
from edgeproxy.mapping.paths import Path
from edgeproxy.mapping.syntax import check_bounds, doubled, parse, paths_read
from edgeproxy.mapping.values import Unfit
from edgeproxy.mapping.view import View

__all__ = ["MAX_ITEMS", "MAX_READ", "MAX_SOURCE", "Expression", "compile_expression"]

#: A list longer than this is not iterated: the evaluator's `map` takes time by its square.
MAX_ITEMS = 100
#: Bytes of JSON text that one expression may read: as much as an event may have when it is sent.
MAX_READ = 96_000
#: Characters of an expression.
MAX_SOURCE = 2_000

#: Fields of an event that go by their own name; any other is `input.name`.
ROOTS = (
    "anonymousId", "category", "channel", "context", "event", "groupId", "integrations",
    "messageId", "name", "originalTimestamp", "previousId", "properties", "sentAt", "timestamp",
    "traits", "userId",
)  # fmt: skip

_decoder = msgspec.json.Decoder()

#: Names to what is inside; a leaf is the path in the event (or in the element) that is bound there.
_Wanted = dict[str, "_Wanted | Path"]
_Read = Callable[[Path], Text | None]


class _Engine(Struct, frozen=True):
    environment: Any
    error: Any


@cache
def _engine() -> _Engine:
    """The evaluator, loaded when the first expression is compiled. Raises ImportError."""
    from cel_expr_python import cel  # noqa: PLC0415 - an extra, and 6 MB that few need

    _keep_none()
    from cel_expr_python.ext import ext_math, ext_optional, ext_strings  # noqa: PLC0415

    names = (*ROOTS, "input", "item", "source")
    environment = cel.NewEnv(
        variables=dict.fromkeys(names, cel.Type.DYN),
        extensions=[ext_strings.ExtStrings(), ext_math.ExtMath(), ext_optional.ExtOptional()],
    )
    return _Engine(environment, cel.Type.ERROR)


def _keep_none() -> None:
    """Keep the evaluator from freeing None.

    Its 0.1.3 gives back one reference to None too many for every null inside a list or map that an
    expression gives. From Python 3.12 on None cannot be freed (PEP 683); before, the process would
    end with the last reference. So it gets as many as nobody can use up.
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


class _Reads(Struct, frozen=True):
    """What an expression binds."""

    event: _Wanted
    item: _Wanted | Path | None
    source: bool


class Expression:
    """A compiled expression. Evaluating it changes nothing and depends on the event alone."""

    __slots__ = ("_error", "_evaluate", "_iterates", "_names", "_reads", "source")

    def __init__(self, source: str, program: Any, reads: _Reads, *, iterates: bool) -> None:
        self.source = source
        self._evaluate: Callable[..., Any] = program.eval
        self._error = _engine().error
        self._reads = reads
        self._iterates = iterates
        wanted = reads.event if reads.item is None else {**reads.event, "item": reads.item}
        self._names = tuple(name for name, inner in wanted.items() if not isinstance(inner, dict))

    @property
    def uses_item(self) -> bool:
        """Whether it speaks of the array element that a rule is at (`item`)."""
        return self._reads.item is not None

    def paths(self) -> Iterator[Path]:
        """The paths of the event that it binds."""
        yield from _leaves(self._reads.event)

    def evaluate(self, view: View, source: str, item: Text | None = None) -> Any:
        """Evaluate; the result is a JSON value (None, bool, int, float, str, list or dict).

        Raises:
            Unfit: it fails for this event. The message may hold something of the event: it is for
                whoever is shown the event anyway, never for a log.
        """
        binder = _Binder(self._iterates)
        reads = self._reads
        data = binder.bind(reads.event, view.text)
        if reads.item is not None:
            data.update(binder.bind({"item": reads.item}, lambda path: _inside(item, path)))
        # An absent variable is null.
        for name in self._names:
            data.setdefault(name, None)
        if reads.source:
            data["source"] = source
        try:
            result = self._evaluate(data=data)
            value = result.value()
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise Unfit(str(error)) from error
        kind = type(value)
        if kind is str and result.type() == self._error:
            raise Unfit(value)
        # Lists and maps come as views of the evaluator's own.
        return value if kind in _SCALARS else _json(result.plain_value())

    def holds(self, view: View, source: str, item: Text | None = None) -> bool:
        """Evaluate a condition. Raises Unfit as `evaluate`, and for anything but true and false."""
        value = self.evaluate(view, source, item)
        if not isinstance(value, bool):
            raise Unfit(f"it gives a {type(value).__name__}, not true or false")
        return value


def _leaves(wanted: _Wanted) -> Iterator[Path]:
    for inner in wanted.values():
        if isinstance(inner, dict):
            yield from _leaves(inner)
        else:
            yield inner


def _json(value: Any) -> Any:
    """A result as a JSON value: maps in the order of their keys, times as RFC 3339."""
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise Unfit("it gives a map whose keys are no texts")
        return {key: _json(value[key]) for key in sorted(value)}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if type(value) not in _SCALARS:
        raise Unfit(f"it gives a {type(value).__name__}, which has no JSON form")
    return value


_SCALARS = frozenset({str, float, int, bool, type(None)})


class _Binder:
    """Converts what one evaluation reads, within MAX_READ and MAX_ITEMS."""

    __slots__ = ("_iterates", "_left")

    def __init__(self, iterates: bool) -> None:
        self._iterates = iterates
        self._left = MAX_READ

    def bind(self, wanted: _Wanted, read: _Read) -> dict[str, Any]:
        """What is wanted, without what is absent."""
        found: dict[str, Any] = {}
        for name, inner in wanted.items():
            if isinstance(inner, dict):
                found[name] = self.bind(inner, read)
                continue
            text = read(inner)
            if text is not None:
                found[name] = self._convert(text)
        return found

    def _convert(self, text: Text) -> Any:
        self._left -= len(bytes(text))
        if self._left < 0:
            raise Unfit(f"it would read more than {MAX_READ} bytes")
        try:
            value = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unfit("it reads a value that cannot be represented") from error
        kind = type(value)
        if kind is float or kind is str or kind is bool:
            return value
        return self._doubles(value)

    def _doubles(self, value: Any) -> Any:
        """Whole numbers as doubles, on every level; long lists refused where they are iterated."""
        if isinstance(value, int) and not isinstance(value, bool):
            # Beyond 2^53 a double would be another number, and not say so.
            if abs(value) > 2**53:
                raise Unfit("it reads a whole number that is too large to compute with")
            return float(value)
        if isinstance(value, list | dict):
            if self._iterates and len(value) > MAX_ITEMS:
                raise Unfit(f"it would iterate more than {MAX_ITEMS} elements")
            if isinstance(value, list):
                return [self._doubles(item) for item in value]
            return {key: self._doubles(item) for key, item in value.items()}
        return value


def _inside(text: Text | None, path: Path) -> Text | None:
    for name in path:
        members = None if text is None else read_members(text)
        text = None if members is None else members.get(str(name))
    return None if text is None or is_null(text) else text


# --- compiling ---


def compile_expression(source: str, *, with_item: bool = False) -> Expression:
    """Compile one expression.

    Args:
        source: CEL, as written in the settings.
        with_item: whether `item` means something where it stands (inside an array).

    Raises:
        ValueError: it cannot be compiled or is not bounded; the message says why, in one line.
    """
    if len(source) > MAX_SOURCE:
        raise ValueError(f"it is longer than {MAX_SOURCE} characters")
    try:
        environment = _engine().environment
    except ImportError:
        raise ValueError(
            "expressions need the package cel-expr-python: pip install 'edgeproxy[expressions]'"
        ) from None
    try:
        tree = parse(environment.compile(source, disable_check=True).serialize())
        iterates = check_bounds(tree)
        reads = _reads(paths_read(tree), with_item=with_item)
        program = environment.compile(doubled(source, tree))
    except RuntimeError as error:
        raise ValueError(_first_line(str(error))) from error
    return Expression(source, program, reads, iterates=iterates)


def _reads(paths: Iterable[tuple[str, ...]], *, with_item: bool) -> _Reads:
    event: _Wanted = {}
    item: _Wanted | Path | None = None
    source = False
    # Shorter paths first: where a whole object is bound, what is inside is bound with it.
    for path in sorted(set(paths), key=len):
        root, below = path[0], path[1:]
        if root == "source":
            source = True
        elif root == "item":
            if not with_item:
                raise ValueError("`item` means something only in a rule for array elements ([])")
            item = _want(item if item is not None else ({} if below else below), below, below)
        elif root == "input":
            if not below:
                raise ValueError(
                    "`input` alone would bind the whole event: name a field, as input.type"
                )
            _want(event, path, below)
        elif root in ROOTS:
            _want(event, path, path)
        elif root == "type":
            # CEL's own function; `type(x)` is a call and not seen here.
            raise ValueError("`type` is a word of CEL: write input.type")
    return _Reads(event, item, source)


def _want(wanted: "_Wanted | Path", names: tuple[str, ...], leaf: Path) -> "_Wanted | Path":
    """Note that a leaf is read, unless something around it already is."""
    level = wanted
    for name in names[:-1]:
        if not isinstance(level, dict):
            return wanted
        level = level.setdefault(name, {})
    if isinstance(level, dict) and names:
        level.setdefault(names[-1], leaf)
    return wanted


def _first_line(message: str) -> str:
    """The evaluator's message without its code and picture."""
    line = message.splitlines()[0]
    for noise in ("INVALID_ARGUMENT: ", "ERROR: ", "<input>:"):
        line = line.removeprefix(noise)
    return f"at {line}"
