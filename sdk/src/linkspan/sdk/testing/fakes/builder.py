"""A builder in memory: reads build files line by line and makes images without layers."""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import attrs
import trio

from linkspan.sdk.diagnostics import Diagnostic, Label, Span
from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.builder import (
    Builder,
    BuilderCap,
    BuildRequest,
    BuildResult,
    CacheEntry,
    PruneRequest,
    PruneResult,
)
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.host import Host, NewImage
from linkspan.sdk.progress import Progress, ProgressSink
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.fakes.build_client import received_files


@attrs.define
class FakeBuilder(Builder[NoConfig]):
    """Implements the role without snapshots.

    A build file has one step a line: ``FROM scratch [AS name]``, ``COPY source dest`` (the source must
    be in the context), ``LABEL name=value``, ``RUN exit N``. The image's labels and the digests of what
    was copied are its whole content.

    Attributes:
        builds: What was asked so far; a test may look.
        steps: Digests of the steps in the cache.
        made: Image → digests of its steps.
    """

    config_type = NoConfig

    host: Host
    builds: list[BuildRequest] = attrs.field(factory=list)
    steps: set[str] = attrs.field(factory=set)
    made: dict[str, set[str]] = attrs.field(factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        """Nothing to acquire."""
        yield cls(host=host)

    @property
    def capabilities(self) -> BuilderCap:
        """Everything that the contract names."""
        return BuilderCap.TARGET | BuilderCap.CACHE | BuilderCap.CHECK

    async def build(self, request: BuildRequest, progress: ProgressSink) -> BuildResult:
        """Read the lines, add the image. If cancelled: nothing was added."""
        self.builds.append(request)
        tags = [parse_reference(tag).with_default_tag() for tag in request.tags]
        if request.remote:
            raise InvalidArgument("the fake reaches no network", code="remote_context")
        files = await _files(request)
        lines = _lines(files, request)
        run = _Run(request=request, files=files, steps=self.steps, usable=self._usable(request))
        for number, line in lines:
            run.step(number, line)
        said = [Progress(stream=f"Step {number}/{len(lines)} : {line}\n") for number, line in lines]
        if request.deliver is not None:
            with tempfile.TemporaryDirectory() as root:
                for place, source in run.places.items():
                    await trio.Path(root, place).write_bytes(files[source])
                await request.deliver(Path(root))
            return BuildResult(image_id="", steps=len(lines), cached_steps=run.cached)
        image = await self.host.engine.images.add(
            NewImage(config=run.config(), chain_ids=()), tags=[str(tag) for tag in tags]
        )
        self.made.setdefault(image.id, set()).update(run.keys)
        if request.quiet:
            said = [Progress(stream=f"{image.id}\n")]
        else:
            said.append(Progress(stream=f"Successfully built {image.id[7:19]}\n"))
            said += [Progress(stream=f"Successfully tagged {tag.familiar}\n") for tag in tags]
        for message in said:
            progress(message)
        return BuildResult(image_id=image.id, steps=len(lines), cached_steps=run.cached)

    def _usable(self, request: BuildRequest) -> set[str]:
        """Digests of the steps that may be taken from the cache."""
        if not request.cache_from_only:
            return set(self.steps)
        usable: set[str] = set()
        for wanted in request.cache_from:
            with suppress(NotFound):
                image = self.host.engine.images.inspect(wanted.reference)
                usable |= self.made.get(image.id, set())
        return usable

    def change_config(self, config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
        """``LABEL name=value`` only."""
        labels = dict(config.get("Labels") or {})
        for change in changes:
            keyword, _, rest = change.partition(" ")
            if keyword != "LABEL":
                raise InvalidArgument(f"{keyword} is not a valid change command")
            name, _, value = rest.partition("=")
            labels[name] = value
        return {**config, "Labels": labels}

    async def check(self, request: BuildRequest) -> tuple[Diagnostic, ...]:
        """Lower-case keywords are its one complaint."""
        lines = _lines(await _files(request), request)
        return tuple(
            Diagnostic(
                id="LS0205",
                headline=f"ConsistentInstructionCasing: '{line.split()[0]}' is not in upper case",
                file=request.file,
                primary=Label(span=Span(line=number, column=1, length=len(line.split()[0]))),
                severity="warning",
            )
            for number, line in lines
            if not line.split()[0].isupper()
        )

    async def prune(self, request: PruneRequest) -> PruneResult:
        """Forget steps. Each counts as one byte."""
        removed = []
        for entry in await self.cache_entries():
            left = len(self.steps)
            done = request.max_used_bytes is not None and left <= request.max_used_bytes
            if left <= request.keep_bytes or done:
                break
            if request.wants(entry):
                self.steps.remove(entry.id)
                removed.append(entry.id)
        return PruneResult(removed=tuple(removed), freed_bytes=len(removed))

    async def cache_entries(self) -> list[CacheEntry]:
        """The steps, in no order."""
        return [CacheEntry(id=step, size_bytes=1) for step in sorted(self.steps)]

    async def cached_layers(self) -> list[str]:
        """There are no layers."""
        return []


async def _files(request: BuildRequest) -> Mapping[str, bytes]:
    context = request.context
    if context is None:
        assert request.client is not None, "a build has a context or a client"
        return {
            **await received_files(request.client, "context"),
            **await received_files(request.client, "dockerfile", paths=(request.file,)),
        }
    if isinstance(context, Path):
        return await trio.to_thread.run_sync(_folder_files, context)
    data = b"".join([piece async for piece in context])
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                files[member.name] = content.read()
    return files


def _folder_files(folder: Path) -> Mapping[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _lines(files: Mapping[str, bytes], request: BuildRequest) -> list[tuple[int, str]]:
    """Number and text of the lines up to the end of the target."""
    if request.file not in files:
        raise InvalidArgument(
            f"Cannot locate specified Dockerfile: {request.file}", code="dockerfile_missing"
        )
    numbered = [
        (number, line)
        for number, line in enumerate(files[request.file].decode().splitlines(), 1)
        if line
    ]
    if not request.target:
        return numbered
    found = False
    kept = []
    for number, line in numbered:
        if line.startswith("FROM "):
            if found:
                break
            found = line.endswith(f" AS {request.target}")
        kept.append((number, line))
    if not found:
        raise InvalidArgument(
            f'{request.file}: target stage "{request.target}" could not be found',
            code="dockerfile",
        )
    return kept


@attrs.define(kw_only=True)
class _Run:
    """One build."""

    request: BuildRequest
    files: Mapping[str, bytes]
    steps: set[str]
    usable: set[str]
    keys: list[str] = attrs.field(factory=list)
    cached: int = 0
    key: str = ""
    labels: dict[str, str] = attrs.field(factory=dict)
    copied: list[str] = attrs.field(factory=list)
    places: dict[str, str] = attrs.field(factory=dict)

    def step(self, number: int, line: str) -> None:
        keyword, _, rest = line.partition(" ")
        content = ""
        match keyword:
            case "FROM":
                self.labels.clear()
                self.copied.clear()
                self.places.clear()
            case "COPY":
                source = rest.split()[0]
                if source not in self.files:
                    raise self._error(number, f"COPY failed: stat {source}: file does not exist")
                content = hashlib.sha256(self.files[source]).hexdigest()
                self.copied.append(f"{rest} {content}")
                self.places[rest.split()[-1].strip("/")] = source
            case "LABEL":
                name, _, value = rest.partition("=")
                self.labels[name] = value
            case "RUN":
                code = int(rest.split()[-1]) if rest.startswith("exit ") else 0
                if code:
                    raise LinkspanError(
                        f"The command '/bin/sh -c {rest}' returned a non-zero code: {code}",
                        code="build_failed",
                        details={"exit_code": code},
                    )
            case _:
                raise self._error(number, f"unknown instruction: {keyword}")
        self.key = hashlib.sha256(f"{self.key} {line} {content}".encode()).hexdigest()
        self.cached += self.key in self.usable and not self.request.no_cache
        self.steps.add(self.key)
        self.keys.append(self.key)

    def _error(self, number: int, text: str) -> InvalidArgument:
        return InvalidArgument(
            f"{self.request.file}:{number}: {text}",
            code="dockerfile",
            details={"file": self.request.file, "line": number},
        )

    def config(self) -> bytes:
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {**self.labels, **self.request.labels}},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [{"created_by": text, "empty_layer": True} for text in self.copied],
        }
        return json.dumps(document, sort_keys=True).encode()
