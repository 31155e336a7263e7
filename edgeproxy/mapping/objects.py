"""Changing a few members of a JSON object or array without touching the text of the others.

One level at a time is decoded into raw values. Where an object's text is not what encoding it
again would give (blanks between members, escapes in keys, duplicate keys), it is edited by the
positions of its members instead, so that the rest keeps its bytes in any case.
"""

import json
import json.decoder
import json.scanner
import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec
from msgspec import Raw

__all__ = ["Edits", "Flat", "Text", "edit", "edit_members", "is_null", "read_array", "read_members"]

Text = Raw | bytes
#: What to put at each key or index: JSON text, None to take it out, or edits of what is there.
Edits = dict[str | int, "bytes | Raw | Edits | None"]


class Flat(dict[str | int, "bytes | Raw | Edits | None"]):
    """Edits that name members only, and hold Raw and None only: the quick case."""

    __slots__ = ()


_object = msgspec.json.Decoder(dict[str, Raw])
_array = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.encode
_NULL = Raw(b"null")
_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def is_null(text: Text) -> bool:
    """Say whether a value is null, which everywhere means the same as absent."""
    return text == (_NULL if isinstance(text, Raw) else b"null")


def read_members(text: Text) -> dict[str, Raw] | None:
    """Read one level of an object (of duplicate keys the last); None if it is none."""
    try:
        return _object.decode(text)
    except _ERRORS:
        return None


def read_array(text: Text) -> list[Raw] | None:
    """Read one level of an array; None if it is none."""
    try:
        return _array.decode(text)
    except _ERRORS:
        return None


def edit(text: Text | None, edits: Edits, failed: list[str] | None = None) -> bytes | None:
    """Apply edits to an object or array; an absent or null one is made.

    What cannot hold members (a string, a number) stays as it is, and `failed` gets a line. Index
    edits beyond an array's end, and gaps, are left out likewise. A key given twice ends up once.

    Returns:
        The new text, or None when there was nothing and nothing came of it.
    """
    if text is None or is_null(text):
        if type(edits) is Flat:
            there = {key: now for key, now in edits.items() if now is not None}
            return _encode(there) if there or text is not None else None
        made = _make(edits, failed)
        return bytes(text) if made is None and text is not None else made
    if not edits:
        return bytes(text)
    members = read_members(text)
    if members is not None:
        return edit_members(text, members, edits, failed)
    elements = read_array(text)
    if elements is not None:
        return _edit_array(elements, edits, failed)
    if failed is not None:
        failed.append("it is inside a value that is neither object nor array")
    return bytes(text)


def _result(was: Text | None, change: Text | Edits | None, failed: list[str] | None) -> Text | None:
    return edit(was, change, failed) if isinstance(change, dict) else change


def _make(edits: Edits, failed: list[str] | None) -> bytes | None:
    if any(isinstance(key, int) for key in edits):
        return _make_array(edits, failed)
    made = {key: _result(None, change, failed) for key, change in edits.items()}
    members = {key: text for key, text in made.items() if text is not None}
    return _join(cast(Mapping[str, Text], members)) if members else None


def _make_array(edits: Edits, failed: list[str] | None) -> bytes | None:
    # Indexes come from an array of the event, or from a path, where they have three digits at most.
    size = 1 + max(key for key in edits if isinstance(key, int))
    made = [_result(None, edits.get(at), failed) for at in range(size)]
    if all(text is None for text in made):
        return None
    return b"[%b]" % b",".join([b"null" if text is None else bytes(text) for text in made])


def _join(members: Mapping[str, Text]) -> bytes:
    return b"{%b}" % b",".join([b"%b:%b" % (_encode(k), bytes(v)) for k, v in members.items()])


def edit_members(
    text: Text, members: dict[str, Raw], edits: Edits, failed: list[str] | None
) -> bytes:
    """As `edit`, of an object whose members have been read; `members` is used up."""
    as_given = Raw(_encode(members)) == (text if type(text) is Raw else Raw(text))
    if as_given and type(edits) is Flat:
        for name, text_now in cast(dict[str, Raw | None], edits).items():
            if text_now is not None:
                members[name] = text_now
            elif name in members:
                del members[name]
        return _encode(members)
    changes: dict[str, Raw | None] = {}
    for key, change in edits.items():
        if isinstance(key, int):
            if failed is not None:
                failed.append("an index stands where the event has an object")
            continue
        now = edit(members.get(key), change, failed) if isinstance(change, dict) else change
        if now is not None:
            changes[key] = members[key] = now if isinstance(now, Raw) else Raw(now)
        elif key in members:
            changes[key] = None
            del members[key]
    return _encode(members) if as_given else _splice(bytes(text), changes)


def _edit_array(elements: Sequence[Raw], edits: Edits, failed: list[str] | None) -> bytes:
    result: list[Text | None] = list(elements)
    for key, change in edits.items():
        if isinstance(key, int) and key < len(elements):
            now = _result(elements[key], change, failed)
            # Taking an element out would move the others: null keeps their places.
            result[key] = b"null" if now is None else now
        elif failed is not None:
            failed.append("the array has no such element")
    return b"[%b]" % b",".join([bytes(text) for text in result if text is not None])


# --- Objects whose text is not what we would write ---

# Numbers stay text, so that no number is too long to be skipped.
_scan = json.scanner.make_scanner(json.JSONDecoder(strict=False, parse_int=str, parse_float=str))  # type: ignore[arg-type]  # as json.decoder does
_key_at: Callable[[str, int], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]
_SPACE = re.compile(r"[ \t\n\r]*")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _spans(text: str) -> list[tuple[str, int, int, int]]:
    """Each member of an object known to be valid: its key, where that begins, its value's span."""
    spans = []
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] != "}":
        begin = at
        key, at = _key_at(text, at + 1)
        value = _skip(text, _skip(text, at) + 1)
        _, end = _scan(text, value)
        spans.append((key, begin, value, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return spans


def _splice(source: bytes, changes: Mapping[str, Raw | None]) -> bytes:
    text = source.decode()
    spans = _spans(text)
    last = {key: number for number, (key, *_) in enumerate(spans)}
    members: list[bytes] = []
    for number, (key, begin, value, end) in enumerate(spans):
        if key not in changes:
            members.append(text[begin:end].encode())
            continue
        now = changes[key]
        if now is not None and last[key] == number:
            members.append(text[begin:value].encode() + bytes(now))
    for key, now in changes.items():
        if now is not None and key not in last:
            members.append(b"%b:%b" % (_encode(key), bytes(now)))
    return b"{%b}" % b",".join(members)
