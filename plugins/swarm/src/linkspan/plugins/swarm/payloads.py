"""Secrets and configs: the books of them, and the files that tasks are given.

Data lies sealed in the state store. A task's files lie in memory (a tmpfs of this machine), in a folder
that only root enters; its container sees each as a read-only bind.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import attrs
import trio

from linkspan.plugins.swarm.records import PayloadRecord, new_id, stamp
from linkspan.plugins.swarm.seal import Seal
from linkspan.plugins.swarm.store import Change, ClusterStore
from linkspan.plugins.swarm.templates import fill, values_of
from linkspan.sdk.errors import Internal, InvalidArgument
from linkspan.sdk.files import replace_file
from linkspan.sdk.host import Host
from linkspan.sdk.model.container import Mount
from linkspan.sdk.model.service import (
    FileReference,
    Node,
    Payload,
    PayloadKind,
    PayloadSpec,
    ServiceSpec,
    Task,
)
from linkspan.sdk.payloads import (
    check_payload,
    check_references,
    check_unused,
    check_update,
    find_payload,
    name_taken,
    out_of_sequence,
)
from linkspan.sdk.syscalls import RAMFS_MAGIC, TMPFS_MAGIC, file_system_type


class Payloads:
    """All secrets and configs of the cluster."""

    def __init__(self, host: Host, store: ClusterStore, *, now: Callable[[], float]) -> None:
        self._host = host
        self._store = store
        self._now = now
        self._seal = Seal(host.state_dir / "payload-key")
        self._root: Path | None = None

    # -- the books ----------------------------------------------------------------------------

    def _all(self) -> list[Payload]:
        self._store.joined()
        return [record.payload for record in self._store.payloads.values()]

    async def create(self, kind: PayloadKind, spec: PayloadSpec) -> Payload:
        """Keep one; see ``Orchestrator.create_payload``."""
        self._store.joined()
        check_payload(kind, spec)
        now = stamp(self._now())
        made = Payload(
            id=new_id(),
            version=1,
            kind=kind,
            spec=attrs.evolve(spec, data=b""),
            created_at=now,
            updated_at=now,
        )
        sealed = await self._seal.close(spec.data, _purpose(made))

        def decide() -> Change:
            if any((p.kind, p.spec.name) == (kind, spec.name) for p in self._all()):
                raise name_taken(kind, spec.name)
            return Change([PayloadRecord(payload=made, sealed=sealed)])

        await self._store.change(decide)
        return made

    def list(self, kind: PayloadKind) -> "list[Payload]":
        """All of a kind, by name."""
        found = [payload for payload in self._all() if payload.kind == kind]
        return sorted(found, key=lambda payload: payload.spec.name)

    async def get(self, kind: PayloadKind, ref: str) -> Payload:
        """One; a config with its data."""
        found = find_payload(kind, ref, self._all())
        if kind == "secret":
            return found
        data = await self._open(self._store.payloads[found.id])
        return attrs.evolve(found, spec=attrs.evolve(found.spec, data=data))

    async def update(
        self, kind: PayloadKind, ref: str, change: PayloadSpec, version: int
    ) -> Payload:
        """Change its labels."""
        found = find_payload(kind, ref, self._all())
        data = await self._open(self._store.payloads[found.id]) if change.data else b""
        check_update(attrs.evolve(found.spec, data=data), change)

        def decide() -> Change:
            record = self._store.payloads.get(found.id)
            if record is None or record.payload.version != version:
                raise out_of_sequence()
            changed = attrs.evolve(
                record.payload,
                spec=attrs.evolve(record.payload.spec, labels=dict(change.labels)),
                version=version + 1,
                updated_at=stamp(self._now()),
            )
            return Change([attrs.evolve(record, payload=changed)])

        await self._store.change(decide)
        return await self.get(kind, found.id)

    async def remove(self, kind: PayloadKind, ref: str) -> Payload:
        """Forget one that no service refers to."""
        found = find_payload(kind, ref, self._all())

        def decide() -> Change | None:
            check_unused(found, (record.spec for record in self._store.services.values()))
            record = self._store.payloads.get(found.id)
            return None if record is None else Change(remove=[record])

        await self._store.change(decide)
        return found

    def check(self, spec: ServiceSpec) -> None:
        """Raises InvalidArgument for files of a service that are not there."""
        check_references(spec, self._all())

    # -- files of tasks -----------------------------------------------------------------------

    async def place(self, task: Task, node: Node) -> tuple[Mount, ...]:
        """Write a task's files; what its container mounts. Repeating it writes what is missing.

        Raises:
            InvalidArgument: A payload was removed, or has an unknown placeholder.
            Internal: One cannot be opened, or the files cannot be written.
        If cancelled: files may be left, until ``forget``.
        """
        if not task.spec.files:
            return ()
        found = {file: await self._content(file) for file in task.spec.files}
        contents = [
            self._filled(data, found, task, node) if template else data
            for data, template in found.values()
        ]
        return await trio.to_thread.run_sync(self._write, task.id, task.spec.files, contents)

    async def _content(self, file: FileReference) -> tuple[bytes, bool]:
        """What it holds, and whether that is a template."""
        record = self._store.payloads.get(file.id)
        if record is None:
            raise InvalidArgument(
                f"{file.kind} not found: {file.name}", code=f"{file.kind}_not_found"
            )
        return await self._open(record), record.payload.spec.template

    def _filled(
        self,
        data: bytes,
        found: Mapping[FileReference, tuple[bytes, bool]],
        task: Task,
        node: Node,
    ) -> bytes:
        """A template's text for this task; it may call ``env``, ``secret`` and ``config``."""
        values, labels = values_of(task, node), task.spec.labels
        entries = [fill(entry, values, labels) for entry in task.spec.container.env]
        env = dict(entry.split("=", 1) for entry in entries if "=" in entry)

        def of_kind(kind: PayloadKind) -> Callable[[str], str]:
            def read(target: str) -> str:
                for file, (other, _) in found.items():
                    if file.kind == kind and target in (file.target, file.said or file.name):
                        return other.decode(errors="surrogateescape")
                raise InvalidArgument(f"{kind} target {target} not found")

            return read

        functions = {
            "env": lambda name: env.get(name, ""),
            "secret": of_kind("secret"),
            "config": of_kind("config"),
        }
        text = fill(data.decode(errors="surrogateescape"), values, labels, functions)
        return text.encode(errors="surrogateescape")

    async def _open(self, record: PayloadRecord) -> bytes:
        return await self._seal.open(record.sealed, _purpose(record.payload))

    def _write(
        self, task_id: str, files: Sequence[FileReference], contents: Sequence[bytes]
    ) -> tuple[Mount, ...]:
        try:
            folder = self._folder() / task_id
            folder.mkdir(mode=0o700, exist_ok=True)
            mounts = []
            for number, (file, content) in enumerate(zip(files, contents, strict=True)):
                path = folder / str(number)
                if not path.exists():
                    replace_file(path, content, file.mode, owner=(file.uid, file.gid))
                mounts.append(
                    Mount(type="bind", source=str(path), target=file.target, read_only=True)
                )
        except OSError as error:
            raise Internal(f"files of task {task_id} cannot be written: {error}") from error
        return tuple(mounts)

    async def forget(self, task_id: str) -> None:
        """Remove a task's files; its container keeps what it has mounted."""
        await trio.to_thread.run_sync(self._forget, task_id)

    def _forget(self, task_id: str) -> None:
        root = self._folder(make=False)
        shutil.rmtree(root / task_id, ignore_errors=True)
        with contextlib.suppress(OSError):
            root.rmdir()

    async def forget_others(self, task_ids: Iterable[str]) -> None:
        """Remove files of all tasks but these."""
        kept = frozenset(task_ids)

        def remove() -> None:
            root = self._folder(make=False)
            with contextlib.suppress(FileNotFoundError):
                for folder in list(root.iterdir()):
                    if folder.name not in kept:
                        shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                root.rmdir()

        await trio.to_thread.run_sync(remove)

    def _folder(self, *, make: bool = True) -> Path:
        """In memory: the run folder if it is a tmpfs (below /run it is), else in the machine's own."""
        if self._root is None:
            run_dir = self._host.run_dir
            in_memory = _is_in_memory(run_dir)
            name = hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:16]
            shared = Path("/dev/shm") / f"linkspan-{name}"  # noqa: S108
            self._root = run_dir / "files" if in_memory else shared
        if make:
            self._root.mkdir(mode=0o700, exist_ok=True)
            found = self._root.lstat()
            if found.st_uid != os.geteuid() or found.st_mode & 0o170077 != 0o040000:
                raise PermissionError(f"{self._root} belongs to somebody else")
        return self._root


def _purpose(payload: Payload) -> str:
    return f"{payload.kind} {payload.id}"


def _is_in_memory(folder: Path) -> bool:
    """Whether a folder lies on a tmpfs."""
    return file_system_type(folder) in (TMPFS_MAGIC, RAMFS_MAGIC)
