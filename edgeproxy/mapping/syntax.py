"""A CEL expression's syntax tree: what it reads, whether it is bounded, which numbers it mixes.

The evaluator gives its parsed tree as a protobuf message (`cel.expr.ParsedExpr`, cel-spec's
syntax.proto). The few fields that matter are read here directly; their numbers are in `_Field`.
"""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

__all__ = ["Node", "NotBoundedError", "check_bounds", "doubled", "parse", "paths_read"]


class NotBoundedError(ValueError):
    """An expression whose cost cannot be told from its text; the message says what to do instead."""


class Node(Struct):
    """One node of the tree; which attributes are meant depends on `kind`."""

    kind: str
    """const, ident, select, call, list, struct or loop (what macros become)."""
    at: int = -1
    """Where in the source it stands (code points)."""
    name: str = ""
    """An identifier, a selected field, a function; of a constant its type."""
    value: object = None
    """A constant; of a select whether it only asks `has(…)`."""
    parts: tuple["Node", ...] = ()
    """Operands and arguments; of a loop its body (everything but what it iterates)."""
    over: "Node | None" = None
    """What a loop iterates."""
    variables: frozenset[str] = frozenset()
    """What a loop names itself."""


# --- reading the message ---

_Message = Mapping[int, list["int | bytes"]]


class _Field:
    PARSED_EXPR, PARSED_SOURCE = 2, 3
    ID, CONST, IDENT, SELECT, CALL, LIST, STRUCT, LOOP = 2, 3, 4, 5, 6, 7, 8, 9
    POSITIONS = 4


def _varint(data: bytes, at: int) -> tuple[int, int]:
    shift = value = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _message(data: bytes) -> _Message:
    """Read one message: each field's values in order (protobuf's wire format)."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: int | bytes
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
            case 1:
                value, at = data[at : at + 8], at + 8
            case 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            case 5:
                value, at = data[at : at + 4], at + 4
            case kind:
                raise ValueError(f"wire type {kind} is not known")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _part(message: _Message, number: int) -> bytes:
    value = message.get(number, [b""])[-1]
    return value if isinstance(value, bytes) else b""


def _number(message: _Message, number: int) -> int:
    value = message.get(number, [0])[-1]
    return value if isinstance(value, int) else 0


def _parts(message: _Message, *numbers: int) -> list[bytes]:
    return [v for number in numbers for v in message.get(number, []) if isinstance(v, bytes)]


def parse(serialized: bytes) -> Node:
    """Read the serialized form of a parsed (not checked) expression."""
    parsed = _message(_part(_message(serialized), 2))  # inside a google.protobuf.Any
    source = _message(_part(parsed, _Field.PARSED_SOURCE))
    entries = [_message(entry) for entry in _parts(source, _Field.POSITIONS)]
    positions = {_number(entry, 1): _number(entry, 2) for entry in entries}
    return _node(_part(parsed, _Field.PARSED_EXPR), positions)


def _node(data: bytes, positions: Mapping[int, int]) -> Node:
    message = _message(data)
    at = positions.get(_number(message, _Field.ID), -1)

    def inner(parts: list[bytes]) -> tuple[Node, ...]:
        return tuple(_node(part, positions) for part in parts if part)

    if _Field.CONST in message:
        return _constant(_message(_part(message, _Field.CONST)), at)
    if _Field.IDENT in message:
        return Node("ident", at, _part(_message(_part(message, _Field.IDENT)), 1).decode())
    if _Field.SELECT in message:
        select = _message(_part(message, _Field.SELECT))
        name, asks = _part(select, 2).decode(), bool(_number(select, 3))
        return Node("select", at, name, asks, inner(_parts(select, 1)))
    if _Field.CALL in message:
        call = _message(_part(message, _Field.CALL))
        return Node("call", at, _part(call, 2).decode(), parts=inner(_parts(call, 1, 3)))
    if _Field.LIST in message:
        return Node("list", at, parts=inner(_parts(_message(_part(message, _Field.LIST)), 1)))
    if _Field.STRUCT in message:
        struct = _message(_part(message, _Field.STRUCT))
        entries = [_message(entry) for entry in _parts(struct, 2)]
        return Node(
            "struct", at, parts=inner([p for entry in entries for p in _parts(entry, 3, 4)])
        )
    loop = _message(_part(message, _Field.LOOP))
    names = frozenset(name.decode() for name in _parts(loop, 1, 3, 8))
    body = inner(_parts(loop, 4, 5, 6, 7))
    return Node("loop", at, parts=body, over=_node(_part(loop, 2), positions), variables=names)


def _constant(message: _Message, at: int) -> Node:
    if 3 in message:
        number = _number(message, 3)
        return Node("const", at, "int", number - 2**64 if number >= 2**63 else number)
    if 6 in message:
        return Node("const", at, "string", _part(message, 6).decode())
    return Node("const", at, "other")


# --- what it reads ---

_SELECTS = frozenset({"_[_]", "_?._", "_[?_]"})


def _path(node: Node, hidden: frozenset[str]) -> tuple[str, ...] | None:
    """The path that a chain of selections spells; None if it is no such chain."""
    if node.kind == "ident":
        return None if node.name in hidden else (node.name,)
    if node.kind == "select":
        above = _path(node.parts[0], hidden)
        return None if above is None else (*above, node.name)
    if node.kind == "call" and node.name in _SELECTS:
        key = node.parts[1]
        above = _path(node.parts[0], hidden)
        if above is not None and key.kind == "const" and isinstance(key.value, str):
            return (*above, key.value)
    return None


def paths_read(node: Node, hidden: frozenset[str] = frozenset()) -> Iterator[tuple[str, ...]]:
    """Every path that an expression reads, the variable first. May repeat itself."""
    path = _path(node, hidden)
    if path is not None:
        yield path
        return
    if node.over is not None:
        yield from paths_read(node.over, hidden)
    for part in node.parts:
        yield from paths_read(part, hidden | node.variables)


# --- whether it is bounded ---


def check_bounds(node: Node, *, in_loop: bool = False) -> bool:
    """Refuse what could cost more than the length of a list that is bounded elsewhere.

    Returns:
        Whether anything is iterated at all.

    Raises:
        NotBoundedError
    """
    loops = node.kind == "loop"
    if loops:
        if in_loop:
            raise NotBoundedError("a macro inside a macro is not allowed")
        if not _is_bounded(node.over):
            raise NotBoundedError(
                "a macro may iterate a list of the event, not one that is computed"
            )
    if node.kind == "call":
        _check_call(node)
    if node.over is not None and check_bounds(node.over, in_loop=in_loop):
        loops = True
    for part in node.parts:
        if check_bounds(part, in_loop=in_loop or node.kind == "loop"):
            loops = True
    return loops


def _is_bounded(over: Node | None) -> bool:
    if over is None or over.kind in ("loop", "list", "struct", "ident"):
        return True
    if over.kind == "select" or (over.kind == "call" and over.name in {*_SELECTS, "orValue"}):
        inner = over.parts[0]
        return inner.kind not in ("loop", "list", "struct") and _is_bounded(inner)
    return False


def _check_call(node: Node) -> None:
    # Both could multiply lengths with each other, again and again.
    if node.name == "replace" and any(part.kind != "const" for part in node.parts[2:]):
        raise NotBoundedError("`replace` needs a constant for what it puts in")
    if node.name == "matches" and node.parts[-1].kind != "const":
        raise NotBoundedError("`matches` needs a constant pattern")


# --- numbers ---
#
# Event values are bound as doubles, as CEL has it for JSON; CEL does not compute with an int and a
# double. So that `total * 100` works, whole numbers written beside such values become doubles.

_ARITHMETIC = frozenset({"_+_", "_-_", "_*_", "_/_"})
_COMPARISON = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_WHOLE = frozenset({"size", "int", "indexOf", "lastIndexOf", "_%_"})
_LITERAL = re.compile(r"-?\s*\d+(?![\d.xXuUeE])")


def _is_whole(node: Node) -> bool:
    """Say whether a value is certainly an int."""
    if node.kind == "const":
        return node.name == "int"
    if node.kind != "call":
        return False
    if node.name in _ARITHMETIC:
        return all(_is_whole(part) for part in node.parts)
    return node.name in _WHOLE or node.name.startswith("get")


def doubled(source: str, root: Node) -> str:
    """Write whole numbers as doubles where they meet values of the event.

    Raises:
        NotBoundedError: where `%` meets one, which CEL has for whole numbers only.
    """
    ends: set[int] = set()
    _collect(source, root, ends)
    for end in sorted(ends, reverse=True):
        source = f"{source[:end]}.0{source[end:]}"
    return source


def _collect(source: str, node: Node, ends: set[int]) -> None:
    if node.kind == "call" and len(node.parts) == 2:
        whole = [_is_whole(part) for part in node.parts]
        if node.name == "_%_" and not all(whole):
            raise NotBoundedError("`%` is for whole numbers: write int(…) around what it divides")
        if node.name in _ARITHMETIC | _COMPARISON and any(whole) and not all(whole):
            _double_literals(source, node.parts[whole.index(True)], ends)
    for part in node.parts:
        _collect(source, part, ends)
    if node.over is not None:
        _collect(source, node.over, ends)


def _double_literals(source: str, node: Node, ends: set[int]) -> None:
    if node.kind == "const" and node.at >= 0:
        # What macros add for themselves stands where no literal is.
        if found := _LITERAL.match(source, node.at):
            ends.add(found.end())
    elif node.kind == "call" and node.name in _ARITHMETIC:
        for part in node.parts:
            _double_literals(source, part, ends)
