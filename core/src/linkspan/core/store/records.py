"""Records of the engine in sqlite (WAL): kind and id → JSON document.

A commit survives ``kill -9`` of the daemon; after a power cut the last moments may be missing, never
torn (``synchronous=NORMAL``). All calls run on one worker thread, in order.

On a full disk nothing new is recorded, but what is there can still be changed and removed: a little
space is set aside for that.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio
from cattrs.preconf.orjson import make_converter

from linkspan.core.store.reserve import Reserve
from linkspan.sdk.errors import DataLoss, Internal, OutOfSpace
from linkspan.sdk.threads import in_thread

T = TypeVar("T")
R = TypeVar("R")

SCHEMA_VERSION = 1
# Less than half of what is set aside, in pages of 4 KiB: so much can the log hold when the disk fills up
# while it is being written back, and so much may the database have to grow by.
CHECKPOINT_PAGES = 400
# That the database keeps free; a container's record is some three.
SPARE_PAGES = 32
PAGE_BYTES = 4096
_converter = make_converter(omit_if_default=True)


def to_json(value: Any) -> bytes:
    """An attrs value as a JSON document."""
    return _converter.dumps(value)


def from_json(data: bytes, kind: type[T]) -> T:
    """Back from ``to_json``. Unknown keys are ignored, so that an older daemon can read it."""
    return _converter.loads(data, kind)


class Records:
    """The store; made by ``open_records``."""

    def __init__(self, database: sqlite3.Connection, path: Path, reserve: Reserve) -> None:
        self._database = database
        self._path = path
        self._reserve = reserve
        self._turn = trio.CapacityLimiter(1)

    async def _run(self, work: Callable[[], R]) -> R:
        try:
            # Not abandoned on cancel: a half-awaited commit would leave the caller not knowing.
            return await in_thread(work, limiter=self._turn)
        except sqlite3.OperationalError as error:
            if _is_full(error):
                raise _out_of_space(self._path) from error
            raise Internal(f"cannot write {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise DataLoss(f"{self._path} is damaged: {error}") from error

    async def put(self, kind: str, key: str, value: Any) -> None:
        """Write a record.

        Raises:
            OutOfSpace: The disk is full; the record is as it was.
        """
        data = to_json(value)

        def known() -> bool:
            query = "select 1 from record where kind = ? and key = ?"
            return self._database.execute(query, (kind, key)).fetchone() is not None

        await self._run(
            lambda: self._write(
                "insert or replace into record values (?, ?, ?)", (kind, key, data), known
            )
        )

    async def delete(self, kind: str, key: str) -> None:
        """Remove a record; silent if there is none.

        Raises:
            OutOfSpace: The disk is full, and so is what was set aside.
        """

        def delete() -> None:
            self._write("delete from record where kind = ? and key = ?", (kind, key), lambda: True)
            self._reserve.fill()
            _keep_spare_pages(self._database)

        await self._run(delete)

    def _write(
        self, query: str, values: tuple[object, ...], may_use_reserve: Callable[[], bool]
    ) -> None:
        try:
            self._database.execute(query, values)
        except sqlite3.OperationalError as error:
            if not _is_full(error) or not may_use_reserve():
                raise
            _with_less(self._database, self._reserve, lambda: self._database.execute(query, values))

    async def load(self, kind: str, shape: type[T]) -> dict[str, T]:
        """All records of a kind, by key, in the order they were first written."""

        def read() -> list[tuple[str, bytes]]:
            return self._database.execute(
                "select key, data from record where kind = ? order by rowid", (kind,)
            ).fetchall()

        return {key: from_json(data, shape) for key, data in await self._run(read)}


def _is_full(error: sqlite3.Error) -> bool:
    """Whether sqlite says that the disk is full; it has two ways to say so."""
    return "full" in str(error) or "disk I/O error" in str(error)


def _out_of_space(path: Path) -> OutOfSpace:
    return OutOfSpace(f"no space left for {path}", help="free space on the data root's disk")


def _with_less(database: sqlite3.Connection, reserve: Reserve, write: Callable[[], object]) -> None:
    """Write on a full disk: into the log's old pages, for which what was set aside may have to go."""

    def over_old_pages() -> None:
        database.execute("pragma wal_checkpoint(restart)")
        write()

    try:
        over_old_pages()
    except sqlite3.OperationalError as error:
        if not _is_full(error) or not reserve.release():
            raise
        over_old_pages()


def _open(path: Path, reserve: Reserve) -> sqlite3.Connection:
    try:
        database = _connect(path)
    except sqlite3.OperationalError as error:
        if not _is_full(error) or not reserve.release():
            raise
        database = _connect(path)
    reserve.fill()
    _keep_spare_pages(database)
    return database


def _keep_spare_pages(database: sqlite3.Connection) -> None:
    """Let the files be larger than what is in them, so that records can be written on a full disk.

    What was written and deleted leaves pages in the database and in its log; the next writes go there. In
    two commits: pages that come and go in one are never written, and take no space.
    """
    (spare,) = database.execute("pragma freelist_count").fetchone()
    if spare >= SPARE_PAGES:
        return
    size = 2 * SPARE_PAGES * PAGE_BYTES
    try:
        database.execute(
            "insert or replace into record values ('spare', 'spare', zeroblob(?))", (size,)
        )
        database.execute("delete from record where kind = 'spare'")
        database.execute("pragma wal_checkpoint(passive)")
    except sqlite3.OperationalError as error:
        if not _is_full(error):
            raise


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = normal")
    database.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
    (version,) = database.execute("pragma user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION:
        raise Internal(
            f"{path} was written by a newer Linkspan (schema {version}, this one knows {SCHEMA_VERSION})",
            help="upgrade Linkspan",
        )
    database.execute(
        "create table if not exists record (kind text, key text, data blob, primary key (kind, key))"
    )
    database.execute(f"pragma user_version = {SCHEMA_VERSION}")


@asynccontextmanager
async def open_records(path: Path) -> AsyncIterator[Records]:
    """Open the store, making it if it is missing.

    Raises:
        Internal: It was written by a newer version.
        DataLoss: It is no database.
        OutOfSpace: The disk is full, and nothing is set aside.
    """
    reserve = Reserve(path.with_suffix(".reserve"))
    try:
        database = await trio.to_thread.run_sync(_open, path, reserve)
    except sqlite3.DatabaseError as error:
        if _is_full(error):
            raise _out_of_space(path) from error
        raise DataLoss(f"cannot open {path}: {error}") from error
    try:
        yield Records(database, path, reserve)
    finally:
        database.close()
