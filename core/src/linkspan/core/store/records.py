"""Records of the engine in sqlite (WAL): kind and id → JSON document.

A commit survives ``kill -9`` of the daemon; after a power cut the last moments may be missing, never
torn (``synchronous=NORMAL``). All calls run on one worker thread, in order.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio
from cattrs.preconf.orjson import make_converter

from linkspan.sdk.errors import DataLoss, Internal, OutOfSpace

T = TypeVar("T")
R = TypeVar("R")

SCHEMA_VERSION = 1
_converter = make_converter(omit_if_default=True)


def to_json(value: Any) -> bytes:
    """An attrs value as a JSON document."""
    return _converter.dumps(value)


def from_json(data: bytes, kind: type[T]) -> T:
    """Back from ``to_json``. Unknown keys are ignored, so that an older daemon can read it."""
    return _converter.loads(data, kind)


class Records:
    """The store; made by ``open_records``."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path
        self._turn = trio.CapacityLimiter(1)

    async def _run(self, work: Callable[[], R]) -> R:
        try:
            # Not abandoned on cancel: a half-awaited commit would leave the caller not knowing.
            return await trio.to_thread.run_sync(work, limiter=self._turn)
        except sqlite3.OperationalError as error:
            text = str(error)
            if "full" in text or "disk I/O error" in text:
                raise OutOfSpace(
                    f"no space left for {self._path}", help="free space on the data root's disk"
                ) from error
            raise Internal(f"cannot write {self._path}: {text}") from error
        except sqlite3.DatabaseError as error:
            raise DataLoss(f"{self._path} is damaged: {error}") from error

    async def put(self, kind: str, key: str, value: Any) -> None:
        """Write a record.

        Raises:
            OutOfSpace: The disk is full; the record is as it was.
        """
        data = to_json(value)
        await self._run(
            lambda: self._database.execute(
                "insert or replace into record values (?, ?, ?)", (kind, key, data)
            )
        )

    async def delete(self, kind: str, key: str) -> None:
        """Remove a record; silent if there is none."""
        await self._run(
            lambda: self._database.execute(
                "delete from record where kind = ? and key = ?", (kind, key)
            )
        )

    async def load(self, kind: str, shape: type[T]) -> dict[str, T]:
        """All records of a kind, by key, in the order they were first written."""

        def read() -> list[tuple[str, bytes]]:
            return self._database.execute(
                "select key, data from record where kind = ? order by rowid", (kind,)
            ).fetchall()

        return {key: from_json(data, shape) for key, data in await self._run(read)}


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = normal")
    (version,) = database.execute("pragma user_version").fetchone()
    if version > SCHEMA_VERSION:
        database.close()
        raise Internal(
            f"{path} was written by a newer Linkspan (schema {version}, this one knows {SCHEMA_VERSION})",
            help="upgrade Linkspan",
        )
    database.execute(
        "create table if not exists record (kind text, key text, data blob, primary key (kind, key))"
    )
    database.execute(f"pragma user_version = {SCHEMA_VERSION}")
    return database


@asynccontextmanager
async def open_records(path: Path) -> AsyncIterator[Records]:
    """Open the store, making it if it is missing.

    Raises:
        Internal: It was written by a newer version.
        DataLoss: It is no database.
    """
    try:
        database = await trio.to_thread.run_sync(_connect, path)
    except sqlite3.DatabaseError as error:
        raise DataLoss(f"cannot open {path}: {error}") from error
    try:
        yield Records(database, path)
    finally:
        database.close()
