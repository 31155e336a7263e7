"""Reading rows straight from a database's pages, where SQLite cannot: the file format, no more.

Every page is taken from the WAL where it has one, and is judged by itself, so that damage costs what
lies on the damaged pages and nothing else. Offsets and encodings are those of
sqlite.org/fileformat2.html; the numbers in comments are its sections.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from edgeproxy.buffer.aside import AFTER
from edgeproxy.buffer.database import PAGE

__all__ = ["Pages", "Row", "wal_frames"]

Value = int | float | bytes | str | None
#: A row's number and its columns.
Row = tuple[int, list[Value]]

_LEAF = 0x0D
_MAX_LOCAL = PAGE - 35
_MIN_LOCAL = (PAGE - 12) * 32 // 255 - 23
_FRAME = struct.Struct(">IIII")
_FRAME_SIZE = 24 + PAGE
_POINTERS_PER_MAP = PAGE // 5
_DOUBLE = struct.Struct(">d")
_FREE = 2  # in a pointer map: a page that holds nothing (1.8)
_INTEGERS = (0, 1, 2, 3, 4, 6, 8)  # bytes of serial types 0 to 6 (2.1)


class _DamagedError(Exception):
    """A cell that cannot be read."""


def wal_frames(wal: Path) -> Iterator[tuple[int, int, bool]]:
    """Number (from 0), page and "ends a transaction" of each frame of the WAL's last generation.

    What cannot be told apart is left out: frames whose salts are not those of the header (4.1).
    """
    if not wal.exists():
        return
    with wal.open("rb") as file:
        salts = file.read(32)[16:24]
        number = 0
        while len(head := file.read(24)) == 24:
            page, size, *_ = _FRAME.unpack_from(head)
            if head[8:16] == salts and page:
                yield number, page, size != 0
            number += 1
            file.seek(PAGE, 1)


class Pages:
    """The pages of a database and its WAL, each in its newest form."""

    def __init__(self, database: Path) -> None:
        """Open for reading; either file may be missing."""
        wal = database.with_name(database.name + "-wal")
        size = wal.stat().st_size if wal.exists() else 0
        after = database.name.partition(AFTER)[2]
        self._newest = {
            page: 32 + number * _FRAME_SIZE + 24
            for number, page, _ in wal_frames(wal)
            if 32 + (number + 1) * _FRAME_SIZE <= size and number >= int(after or 0)
        }
        self._wal = wal.open("rb") if size else None
        self._file = database.open("rb") if database.exists() else None
        size = database.stat().st_size if self._file is not None else 0
        self._count = max([size // PAGE, *self._newest])
        self.unreadable = 0
        """Reads that the disk refused."""

    def __enter__(self) -> "Pages":
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        for file in (self._file, self._wal):
            if file is not None:
                file.close()

    def rows(self, last: int | None = None) -> Iterator[Row]:
        """All rows of all tables on pages (up to a last one) that can be read and are in use."""
        for number in range(2, (self._count if last is None else min(last, self._count)) + 1):
            try:
                page = self._page(number)
            except _DamagedError:
                continue
            if page[0] == _LEAF and not self._is_free(number):
                yield from self._cells(page)

    def _page(self, number: int) -> bytes:
        """A page's bytes, padded where the file ends inside it."""
        at = self._newest.get(number)
        file, at = (self._file, (number - 1) * PAGE) if at is None else (self._wal, at)
        if file is None:
            raise _DamagedError
        try:
            file.seek(at)
            page = file.read(PAGE)
        except OSError as error:
            self.unreadable += 1
            raise _DamagedError from error
        if not page:
            raise _DamagedError
        return page.ljust(PAGE, b"\0")

    def _is_free(self, number: int) -> bool:
        # Pages 2, 2 + (pages per map + 1), … are pointer maps: 5 bytes for each page behind them.
        map_page = 2 + (number - 2) // (_POINTERS_PER_MAP + 1) * (_POINTERS_PER_MAP + 1)
        if map_page == number:
            return True
        try:
            return self._page(map_page)[(number - map_page - 1) * 5] == _FREE
        except _DamagedError:
            return False  # rather an event twice than never

    def _cells(self, page: bytes) -> Iterator[Row]:
        cells = int.from_bytes(page[3:5], "big")
        for index in range(min(cells, (PAGE - 8) // 2)):
            at = int.from_bytes(page[8 + 2 * index : 10 + 2 * index], "big")
            try:
                yield self._cell(page, at)
            except (_DamagedError, IndexError, struct.error):
                continue

    def _cell(self, page: bytes, at: int) -> Row:
        size, at = _varint(page, at)
        id_, at = _varint(page, at)
        if size > 2**30:
            raise _DamagedError
        if size <= _MAX_LOCAL:
            payload = page[at : at + size]
        else:
            local = _MIN_LOCAL + (size - _MIN_LOCAL) % (PAGE - 4)
            local = local if local <= _MAX_LOCAL else _MIN_LOCAL
            payload = page[at : at + local]
            payload += self._overflow(page[at + local : at + local + 4], size - local)
        if len(payload) != size:
            raise _DamagedError
        return id_, _record(payload)

    def _overflow(self, pointer: bytes, size: int) -> bytes:
        parts = []
        while size > 0:
            number = int.from_bytes(pointer, "big")
            if not 1 < number <= self._count:
                raise _DamagedError
            page = self._page(number)
            pointer = page[:4]
            parts.append(page[4 : 4 + min(size, PAGE - 4)])
            size -= PAGE - 4
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for byte in data[at : at + 8]:
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    value = value << 8 | data[at]
    return (value - (1 << 64) if value >= 1 << 63 else value), at + 1


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw  # damaged


def _record(payload: bytes) -> list[Value]:
    """A row's columns (2.1)."""
    end, at = _varint(payload, 0)
    values: list[Value] = []
    data = end
    while at < end:
        kind, at = _varint(payload, at)
        if kind >= 12:
            size = (kind - 12) // 2
            raw = payload[data : data + size]
            values.append(_text(raw) if kind % 2 else raw)
        elif kind < 7:
            size = _INTEGERS[kind]
            raw = payload[data : data + size]
            values.append(int.from_bytes(raw, "big", signed=True) if kind else None)
        elif kind == 7:
            size = 8
            values.append(_DOUBLE.unpack_from(payload, data)[0])
        elif kind in {8, 9}:
            size = 0
            values.append(kind - 8)
        else:
            raise _DamagedError
        data += size
    if data != len(payload):
        raise _DamagedError
    return values
