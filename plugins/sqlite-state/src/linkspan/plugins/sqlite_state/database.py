"""The tables and what is done with them; every function blocks and runs in a worker thread.

One process has the file to itself (``locking_mode = exclusive``), one thread at a time uses the
connection. ``synchronous = full`` makes each commit wait for the disk: what was answered is there after
a power cut.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from linkspan.sdk.drivers.state import ChangeEvent, Delete, Entry, Operation, Put
from linkspan.sdk.errors import (
    Conflict,
    DataLoss,
    LinkspanError,
    NotUsable,
    OutOfSpace,
    Unavailable,
)
from linkspan.sdk.values import frozen

SCHEMA_VERSION = 1
_LAST = "\U0010ffff"
"""Sorts behind every character that a key may hold."""

_SCHEMA = """
create table if not exists entry (
    key text primary key, value blob not null, revision integer not null, lease text not null
);
create index if not exists entry_lease on entry (lease) where lease != '';
create table if not exists history (
    revision integer not null, key text not null, value blob, primary key (revision, key)
) without rowid;
create table if not exists meta (name text primary key, value integer not null) without rowid;
insert or ignore into meta values ('revision', 0), ('compacted', 0);
"""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """sqlite's errors as ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "is full" in text or "disk I/O" in text:
            raise OutOfSpace(
                f"no space left for the cluster's state in {path}",
                help="free space on its disk; nothing was written",
            ) from error
        if "locked" in text:
            raise NotUsable(
                f"{path} is in use by another daemon", code="state_in_use", help="stop it first"
            ) from error
        if "unable to open" in text:
            raise NotUsable(f"cannot open {path}: {text}", code="state_unreadable") from error
        raise Unavailable(f"the cluster's state in {path} cannot be used: {text}") from error
    except sqlite3.DatabaseError as error:
        raise DataLoss(
            f"the cluster's state in {path} is damaged: {error}",
            code="state_damaged",
            help="restore the file from a backup, or move it away to begin anew",
        ) from error


@frozen
class Committed:
    """A transaction that holds."""

    revision: int
    events: tuple[ChangeEvent, ...]


@frozen
class DropLease:
    """Removes what a lease holds at the moment of its commit; alone in its transaction."""

    lease: str


Transaction = Sequence[Operation] | DropLease
Outcome = Committed | LinkspanError


class Database:
    """An open database.

    Attributes:
        revision: Of the last committed transaction.
        compacted: Changes before this revision are forgotten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with translated(path):
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=0.2
            )
        try:
            with translated(path):
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("pragma locking_mode = exclusive")
        run("pragma journal_mode = wal")
        run("pragma synchronous = full")
        (version,) = run("pragma user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise NotUsable(
                f"{self.path} was written by a newer Linkspan (schema {version}, this one knows "
                f"{SCHEMA_VERSION})",
                help="upgrade Linkspan",
            )
        # Taking this lock once keeps other daemons out. Nothing is written without need: the disk may
        # be full.
        new = f"{_SCHEMA} pragma user_version = {SCHEMA_VERSION};"
        self._connection.executescript(
            f"begin exclusive; {new if version < SCHEMA_VERSION else ''} commit;"
        )
        self.revision = self._meta("revision")
        self.compacted = self._meta("compacted")
        self._drop_leased()

    def _meta(self, name: str) -> int:
        row = self._connection.execute("select value from meta where name = ?", (name,)).fetchone()
        return int(row[0])

    def _drop_leased(self) -> None:
        """Whoever held a lease died with the last process."""
        leases = self._connection.execute("select distinct lease from entry where lease != ''")
        for outcome in self.commit_all([DropLease(lease) for (lease,) in leases.fetchall()]):
            if isinstance(outcome, LinkspanError):
                raise outcome

    def close(self) -> None:
        """Close it; the write-ahead log goes into the file."""
        self._connection.close()

    def get(self, key: str) -> Entry | None:
        """One entry."""
        with translated(self.path):
            row = self._connection.execute(
                "select key, value, revision from entry where key = ?", (key,)
            ).fetchone()
        return None if row is None else _entry(row)

    def entries(self, prefix: str) -> tuple[list[Entry], int]:
        """Entries below a prefix and the revision they are of."""
        with translated(self.path):
            rows = self._connection.execute(
                "select key, value, revision from entry where key >= ? and key < ? order by key",
                (prefix, prefix + _LAST),
            ).fetchall()
        return [_entry(row) for row in rows], self.revision

    def changes(
        self, prefix: str, after_revision: int, limit: int
    ) -> tuple[list[ChangeEvent], int]:
        """Changes below a prefix in whole transactions, and the revision up to which they are all.

        At least one transaction with changes is returned if there is one; ``limit`` is about events.
        """
        with translated(self.path):
            rows = self._connection.execute(
                "select revision, key, value from history where revision > ? and key >= ? and key < ?"
                " order by revision, key limit ?",
                (after_revision, prefix, prefix + _LAST, limit + 1),
            ).fetchall()
            if len(rows) <= limit:
                return [_event(row) for row in rows], self.revision
            last = rows[-1][0]
            whole = [row for row in rows if row[0] < last]
            if whole:
                return [_event(row) for row in whole], whole[-1][0]
            rows = self._connection.execute(
                "select revision, key, value from history where revision = ? and key >= ?"
                " and key < ? order by key",
                (last, prefix, prefix + _LAST),
            ).fetchall()
            return [_event(row) for row in rows], last

    def commit_all(self, transactions: Sequence[Transaction]) -> list[Outcome]:
        """Commit several transactions with one wait for the disk; each holds or fails by itself.

        Raises:
            OutOfSpace, Unavailable, DataLoss: None of them holds.
        """
        outcomes: list[Outcome] = []
        revision = self.revision
        run = self._connection.execute
        try:
            with translated(self.path):
                run("begin immediate")
                for transaction in transactions:
                    outcome = self._apply(transaction, revision + 1)
                    if isinstance(outcome, Committed):
                        revision = outcome.revision
                    outcomes.append(outcome)
                run("update meta set value = ? where name = 'revision'", (revision,))
                run("commit")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise
        self.revision = revision
        return outcomes

    def _apply(self, transaction: Transaction, revision: int) -> Outcome:
        """All conditions are checked before the first write, so a failed one leaves nothing."""
        operations = self._operations(transaction)
        found = {op.key: self._revision_of(op.key) for op in operations}
        for op in operations:
            if op.if_revision is not None and op.if_revision != found[op.key]:
                return Conflict(
                    f"'{op.key}' was changed by somebody else: expected revision {op.if_revision}, "
                    f"found {found[op.key]}",
                    code="revision",
                    details={"key": op.key, "expected": op.if_revision, "found": found[op.key]},
                )
        return Committed(revision, tuple(self._write(operations, found, revision)))

    def _operations(self, transaction: Transaction) -> Sequence[Operation]:
        if not isinstance(transaction, DropLease):
            return transaction
        rows = self._connection.execute(
            "select key from entry where lease = ? and lease != ''", (transaction.lease,)
        ).fetchall()
        return [Delete(key=key) for (key,) in rows]

    def _revision_of(self, key: str) -> int:
        row = self._connection.execute(
            "select revision from entry where key = ?", (key,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def _write(
        self, operations: Sequence[Operation], found: dict[str, int], revision: int
    ) -> Iterator[ChangeEvent]:
        run = self._connection.execute
        for op in sorted(operations, key=lambda op: op.key):
            value: bytes | None = None
            if isinstance(op, Put):
                value = op.value
                run(
                    "insert or replace into entry values (?, ?, ?, ?)",
                    (op.key, value, revision, op.lease),
                )
            elif found[op.key]:
                run("delete from entry where key = ?", (op.key,))
            else:
                continue
            run("insert into history values (?, ?, ?)", (revision, op.key, value))
            yield ChangeEvent(key=op.key, value=value, revision=revision)

    def compact(self, revision: int) -> None:
        """Forget changes before a revision."""
        target = min(revision, self.revision + 1)
        if target <= self.compacted:
            return
        run = self._connection.execute
        try:
            with translated(self.path):
                run("begin immediate")
                run("delete from history where revision < ?", (target,))
                run("update meta set value = ? where name = 'compacted'", (target,))
                run("commit")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise
        self.compacted = target


def _entry(row: tuple[str, bytes, int]) -> Entry:
    return Entry(key=row[0], value=row[1], revision=row[2])


def _event(row: tuple[int, str, bytes | None]) -> ChangeEvent:
    return ChangeEvent(key=row[1], value=row[2], revision=row[0])
