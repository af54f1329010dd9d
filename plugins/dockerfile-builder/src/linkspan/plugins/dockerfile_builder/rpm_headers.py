"""rpm's databases: headers of packages (rpm's "Header Structure") in SQLite or in ndb files."""

import itertools
import os
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from linkspan.plugins.dockerfile_builder.tree import Node, Tree

_MAX_HEADER_BYTES: Final = 64 << 20
_MAX_SQL_TURNS: Final = 20_000
"""Of a thousand instructions each: a view in place of the table must not run for ever."""
_TAGS: Final = {
    1000: "name",
    1001: "version",
    1002: "release",
    1003: "epoch",
    1014: "license",
    1022: "architecture",
    1044: "source",
}
_TEXT: Final = (6, 9)
_INT32: Final = 4
_MAX_INDEX: Final = 100_000

_NDB_HEAD: Final = struct.Struct("<4sIII16x")
_NDB_SLOT: Final = struct.Struct("<4sIII")
_NDB_BLOB: Final = struct.Struct("<4sIII")
_NDB_PAGE: Final = 4096
_NDB_BLOCK: Final = 16
_NDB_MAX_PAGES: Final = 2048


class RpmUnreadable(Exception):
    """A database is not what it should be; the message says why."""


def read_sqlite(tree: Tree, node: Node) -> Iterator[Mapping[str, str]]:
    """Packages of an ``rpmdb.sqlite``; keys are those of ``Package``. Blocks.

    Raises:
        RpmUnreadable: It is damaged, or something else.
    """
    turns = itertools.count()
    with tree.data_range(node) as (fd, _):
        # Nothing beside the file is looked at, and nobody locks it.
        uri = f"file:/proc/self/fd/{fd}?mode=ro&immutable=1"
        try:
            database = sqlite3.connect(uri, uri=True)
            try:
                database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_HEADER_BYTES)
                database.execute("PRAGMA trusted_schema=OFF")
                database.set_progress_handler(lambda: next(turns) > _MAX_SQL_TURNS, 1000)
                for (blob,) in database.execute("SELECT blob FROM Packages"):
                    if not isinstance(blob, bytes):
                        raise RpmUnreadable("a package's header is no blob")
                    yield _package(blob)
            finally:
                database.close()
        except sqlite3.Error as error:
            raise RpmUnreadable(str(error)) from error


def read_ndb(tree: Tree, node: Node) -> Iterator[Mapping[str, str]]:
    """Packages of a ``Packages.db``; see ``read_sqlite``."""
    with tree.data_range(node) as (fd, _):
        magic, version, _, pages = _unpack(_NDB_HEAD, os.pread(fd, _NDB_HEAD.size, 0))
        if magic != b"RpmP" or version != 0 or pages > _NDB_MAX_PAGES:
            raise RpmUnreadable("it is no database of rpm's ndb format")
        slots = os.pread(fd, pages * _NDB_PAGE, 0)[_NDB_HEAD.size :]
        whole = len(slots) // _NDB_SLOT.size * _NDB_SLOT.size
        for slot_magic, index, offset, _ in _NDB_SLOT.iter_unpack(slots[:whole]):
            if slot_magic != b"Slot":
                raise RpmUnreadable("a slot is damaged")
            if not offset:
                continue
            place = offset * _NDB_BLOCK
            found = _unpack(_NDB_BLOB, os.pread(fd, _NDB_BLOB.size, place))
            blob_magic, blob_index, _, size = found
            if blob_magic != b"BlbS" or blob_index != index or size > _MAX_HEADER_BYTES:
                raise RpmUnreadable("a package's header is damaged")
            yield _package(os.pread(fd, size, place + _NDB_BLOB.size))


def _unpack(form: struct.Struct, data: bytes) -> tuple[bytes, int, int, int]:
    if len(data) < form.size:
        raise RpmUnreadable("it is too short")
    found: tuple[bytes, int, int, int] = form.unpack(data)
    return found


def _package(header: bytes) -> Mapping[str, str]:
    """What a header says about its package."""
    try:
        count, size = struct.unpack_from(">II", header)
        if count > _MAX_INDEX or 8 + count * 16 + size > len(header):
            raise RpmUnreadable("a package's header is damaged")
        data = header[8 + count * 16 :]
        fields: dict[str, str] = {}
        for tag, kind, offset, _ in struct.iter_unpack(">IIII", header[8 : 8 + count * 16]):
            if tag not in _TAGS:
                continue
            if kind in _TEXT:
                end = data.index(b"\0", offset)
                fields[_TAGS[tag]] = data[offset:end].decode("utf-8", "replace")
            elif kind == _INT32:
                fields[_TAGS[tag]] = str(struct.unpack_from(">I", data, offset)[0])
    except (struct.error, ValueError) as error:
        raise RpmUnreadable("a package's header is damaged") from error
    release, epoch = fields.pop("release", ""), fields.pop("epoch", "")
    version = "-".join(filter(None, (fields.get("version"), release)))
    fields["version"] = f"{epoch}:{version}" if epoch not in ("", "0") else version
    return fields
