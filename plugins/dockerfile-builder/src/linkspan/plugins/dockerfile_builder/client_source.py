"""The context of a client that stays connected: only what the build needs is asked for."""

import contextlib
import re

import attrs
import trio

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.context_files import (
    IGNORE_FILE,
    patterns_of,
)
from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.kept_folders import ClientTree, KeptFolders, read_texts
from linkspan.plugins.dockerfile_builder.layers import bare_errors
from linkspan.plugins.dockerfile_builder.stages import parse_dockerfile
from linkspan.plugins.dockerfile_builder.stream import BuildStream
from linkspan.plugins.dockerfile_builder.tree import EmptyTree
from linkspan.sdk.build_client import BuildClient, ClientFolder
from linkspan.sdk.dockerignore import IgnorePatterns, read_patterns
from linkspan.sdk.drivers.builder import BuildRequest
from linkspan.sdk.errors import InvalidArgument, LinkspanError
from linkspan.sdk.host import Host

_CONTEXT = "context"
_DOCKERFILE = "dockerfile"
# Most that read it say so plainly, and then nothing need be parsed for this.
_COPIES = re.compile(r"^\s*(?:copy|add)\s+(?!--)[^<]", re.IGNORECASE | re.MULTILINE)


@attrs.frozen
class ClientSource:
    """Loads what one build needs."""

    host: Host
    clients: KeptFolders
    request: BuildRequest
    stream: BuildStream

    async def open(
        self, stack: contextlib.AsyncExitStack
    ) -> tuple[ClientTree | EmptyTree, str, IgnorePatterns]:
        """The context, the text of the Dockerfile, and what is left out.

        Raises:
            InvalidArgument: There is no Dockerfile (``dockerfile_missing``), or what came is hostile.
            LinkspanError: The client cannot send it.
        """
        file = self.request.file
        text, ignore_name, ignore = await self._small_files(file)
        patterns = patterns_of(ignore, ignore_name)
        if not self._uses_context(text, file):
            return EmptyTree(), text, patterns
        with self.stream.work("[internal] load build context") as work:
            received = await stack.enter_async_context(
                self.clients.receive(self._client, _CONTEXT, exclude=read_patterns(ignore or ""))
            )
            work.part("transferring context:", current=received.received_bytes, done=True)
        return received.tree, text, patterns

    async def open_named(
        self, stack: contextlib.AsyncExitStack, name: str, folder: ClientFolder
    ) -> ClientTree:
        """A context beside the main one, without what its ``.dockerignore`` leaves out."""
        with self.stream.work(f"[context {name}] load .dockerignore"):
            (ignore,), _ = await read_texts(self._client, folder.name, (IGNORE_FILE,))
        patterns_of(ignore, IGNORE_FILE)
        with self.stream.work(f"[context {name}] load from client") as work:
            received = await stack.enter_async_context(
                self.clients.receive(self._client, folder.name, exclude=read_patterns(ignore or ""))
            )
            work.part(f"transferring {name}:", current=received.received_bytes, done=True)
        return received.tree

    @property
    def _client(self) -> BuildClient:
        assert self.request.client is not None
        return self.request.client

    async def _small_files(self, file: str) -> tuple[str, str, str | None]:
        """The text of the Dockerfile, and name and text of what leaves files out; side by side."""
        general: list[str | None] = []

        async def ask() -> None:
            general.append(await self._ignore_file())

        with bare_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                text, own = await self._definition(file)
        if own is not None:
            return text, f"{file}{IGNORE_FILE}", own
        return text, IGNORE_FILE, general[0]

    async def _definition(self, file: str) -> tuple[str, str | None]:
        """The text of the Dockerfile, and that of the ``.dockerignore`` of its own."""
        ignore = f"{file}{IGNORE_FILE}"
        with self.stream.work(f"[internal] load build definition from {file}") as work:
            wanted = (file, ignore, file.lower())
            (text, own, lower), size = await read_texts(self._client, _DOCKERFILE, wanted)
            work.part("transferring dockerfile:", current=size, done=True)
            if text is None:
                text = lower
            if text is None:
                raise InvalidArgument(
                    f"failed to read dockerfile: open {file}: no such file or directory",
                    code="dockerfile_missing",
                    help="name it with -f",
                )
        return text, own

    async def _ignore_file(self) -> str | None:
        with self.stream.work("[internal] load .dockerignore") as work:
            (text,), size = await read_texts(self._client, _CONTEXT, (IGNORE_FILE,))
            work.part("transferring context:", current=size, done=True)
        return text

    def _uses_context(self, text: str, file: str) -> bool:
        """Whether anything may read the context, as far as can be known before images are pulled."""
        if _COPIES.search(text):
            return True
        try:
            dockerfile = parse_dockerfile(text, file)
        except DockerfileError:
            return False  # it is told by whoever builds it
        return any(
            any(ins.may_read_context(each) for each in stage.instructions)
            or (
                dockerfile.stage_named(stage.source.base, stage.index) is None
                and self._may_have_triggers(stage.source.base)
            )
            for stage in dockerfile.stages
        )

    def _may_have_triggers(self, base: str) -> bool:
        """Whether an image brings instructions along (ONBUILD)."""
        if base == "scratch":
            return False
        try:
            image = self.host.engine.images.inspect(base)
        except LinkspanError:
            return True
        return bool((image.config.raw.get("config") or {}).get("OnBuild"))
