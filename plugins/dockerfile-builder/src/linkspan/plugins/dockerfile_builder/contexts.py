"""Where a build's files come from: a tar, a folder, a repository, an address."""

import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import chain
from pathlib import Path

import trio

from linkspan.plugins.dockerfile_builder.archive import open_stream
from linkspan.plugins.dockerfile_builder.client import secret_of
from linkspan.plugins.dockerfile_builder.client_source import ClientSource
from linkspan.plugins.dockerfile_builder.config import GIT_FOLDER, DockerfileBuilderConfig
from linkspan.plugins.dockerfile_builder.context_files import (
    IGNORE_FILE,
    missing,
    patterns_of,
    read_text,
)
from linkspan.plugins.dockerfile_builder.git_source import (
    AUTH_SECRET,
    checkout,
    parse_git,
)
from linkspan.plugins.dockerfile_builder.kept_folders import ClientTree, KeptFolders
from linkspan.plugins.dockerfile_builder.layers import bare_errors, in_thread
from linkspan.plugins.dockerfile_builder.parser import MAX_FILE_BYTES
from linkspan.plugins.dockerfile_builder.remote import fetch, is_git, is_url
from linkspan.plugins.dockerfile_builder.selection import TransferError
from linkspan.plugins.dockerfile_builder.stream import BuildStream, silent_stream
from linkspan.plugins.dockerfile_builder.tree import (
    DigestMemo,
    EmptyTree,
    FolderTree,
    Node,
    TarTree,
    Tree,
)
from linkspan.plugins.dockerfile_builder.unpack import is_archive
from linkspan.sdk.build_client import ClientFolder
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.drivers.builder import BuildRequest
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.host import Host
from linkspan.sdk.lending import Borrowed, Interrupted, Lendable, Loan

_BATCH_BYTES = 1 << 18

Opened = tuple[TarTree | FolderTree | ClientTree | EmptyTree, str, IgnorePatterns]
"""A context, the text of its Dockerfile, and what is left out."""


class Contexts:
    """Opens the contexts of builds."""

    def __init__(self, config: DockerfileBuilderConfig, host: Host, clients: KeptFolders) -> None:
        self._config = config
        self._host = host
        self._clients = clients
        self._memo = DigestMemo()

    @contextlib.asynccontextmanager
    async def main(
        self, request: BuildRequest, stream: BuildStream | None = None
    ) -> AsyncIterator[Opened]:
        """The context that a build is about.

        Args:
            stream: Is told what is loaded.

        Raises:
            InvalidArgument: It cannot be had (``remote_context``, ``context_missing``), is hostile, or has no
                Dockerfile (``dockerfile_missing``).
        """
        async with contextlib.AsyncExitStack() as stack:
            opened: Opened
            if request.remote:
                opened = await self._open_remote(stack, request)
            elif request.context is None:
                source = ClientSource(self._host, self._clients, request, stream or silent_stream())
                opened = await source.open(stack)
            elif isinstance(request.context, Path):
                opened = await in_thread(_open_main, request.context, request.file, self._memo)
            else:
                opened = await self._open_tar(request.context, request.file)
            stack.callback(opened[0].close)
            yield opened

    async def _open_tar(self, source: AsyncIterator[bytes], file: str) -> Opened:
        tree = await in_thread(self._tar_tree)
        try:
            await self._receive(tree, source)
            return (tree, *await in_thread(_dockerfile_of, tree, file))
        except BaseException:
            tree.close()
            raise

    async def _open_remote(self, stack: contextlib.AsyncExitStack, request: BuildRequest) -> Opened:
        """A git repository, an archive, or a Dockerfile without a context, by its address."""
        try:
            if is_git(request.remote):
                keep = request.args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR") in ("1", "true")
                token = await secret_of(request, AUTH_SECRET) or b""
                folder = self._host.state_dir / GIT_FOLDER
                source = parse_git(request.remote, keep_git_dir=keep)
                _, _, place = await stack.enter_async_context(checkout(source, folder, token=token))
                return await in_thread(_open_main, place, request.file, self._memo)
            if not is_url(request.remote):
                raise TransferError(f"'{request.remote}' is no address of a repository or a file")
            limit = self._config.max_context_bytes
            fetched, selection = await fetch(
                request.remote, self._host.state_dir, checksum="", limit_bytes=limit
            )
        except TransferError as error:
            raise InvalidArgument(str(error), code="remote_context") from error
        stack.callback(fetched.close)
        node = selection.sources[0].node
        tree = await in_thread(self._tar_tree)
        return await in_thread(_read_fetched, fetched, node, tree, request.file, limit)

    @contextlib.asynccontextmanager
    async def named(
        self, request: BuildRequest, stream: BuildStream | None = None
    ) -> AsyncIterator[dict[str, Tree | str]]:
        """The contexts beside the main one: folders as trees, images as references."""
        async with contextlib.AsyncExitStack() as stack:
            found: dict[str, Tree | str] = {}
            source = ClientSource(self._host, self._clients, request, stream or silent_stream())
            for name, context in request.contexts.items():
                if isinstance(context, Path):
                    tree = await in_thread(_open_folder, context, self._memo)
                    stack.callback(tree.close)
                    found[name.lower()] = tree
                elif isinstance(context, ClientFolder):
                    found[name.lower()] = await source.open_named(stack, name, context)
                else:
                    found[name.lower()] = context
            yield found

    def _tar_tree(self) -> TarTree:
        return TarTree(self._host.state_dir, max_entries=self._config.max_context_entries)

    async def _receive(self, tree: TarTree, source: AsyncIterator[bytes]) -> None:
        """Read a tar stream in a worker thread, while the next pieces arrive.

        What follows the end of the tar is read too, so that the sender can finish.
        """
        loan = await source.lend() if isinstance(source, Lendable) else None
        if loan is not None:
            await self._receive_lent(tree, loan)
            return
        full, arrived = trio.open_memory_channel[bytes](4)

        def more() -> bytes:
            return trio.from_thread.run(_next_batch, arrived)

        with bare_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_fill_batches, source, full)
                await in_thread(self._read, tree, more)

    async def _receive_lent(self, tree: TarTree, loan: Loan) -> None:
        """As ``_receive``; the thread reads what arrives itself."""
        borrowed = Borrowed(loan.descriptor, loan.terms, trio.from_thread.check_cancelled)
        pieces = filter(None, chain((loan.ahead,), map(b"".join, borrowed.groups())))

        def receive() -> None:
            with contextlib.suppress(Interrupted):
                self._read(tree, lambda: next(pieces, b""))

        try:
            await in_thread(receive)
        finally:
            loan.given_back(borrowed.report())

    def _read(self, tree: TarTree, more: Callable[[], bytes]) -> None:
        """A whole stream. Blocking."""
        tree.receive(open_stream(more, limit_bytes=self._config.max_context_bytes))
        while more():
            pass


async def _fill_batches(source: AsyncIterator[bytes], full: trio.MemorySendChannel[bytes]) -> None:
    """Join small pieces: each batch costs a change of thread."""
    async with full:
        batch: list[bytes] = []
        size = 0
        async for piece in source:
            batch.append(piece)
            size += len(piece)
            if size >= _BATCH_BYTES:
                await full.send(b"".join(batch))
                batch.clear()
                size = 0
        if size:
            await full.send(b"".join(batch))


async def _next_batch(arrived: trio.MemoryReceiveChannel[bytes]) -> bytes:
    """The next batch; empty at the end."""
    try:
        return await arrived.receive()
    except trio.EndOfChannel:
        return b""


def _read_fetched(
    fetched: TarTree, node: Node, tree: TarTree, file_name: str, limit: int
) -> Opened:
    """What an address gave: an archive is a context, anything else is a Dockerfile without one."""
    try:
        with fetched.open(node) as file:
            if not is_archive(fetched, node):
                text = file.read(MAX_FILE_BYTES + 1).decode("utf-8", "surrogateescape")
                return tree, text, IgnorePatterns(())
            tree.receive(open_stream(lambda: file.read(_BATCH_BYTES), limit_bytes=limit))
        return (tree, *_dockerfile_of(tree, file_name))
    except BaseException:
        tree.close()
        raise


def _open_main(folder: Path, file: str, memo: DigestMemo) -> Opened:
    """A local context, the text of its Dockerfile, and what is left out."""
    tree = _open_folder(folder, memo, file)
    try:
        # The file itself may be among those that are left out.
        whole = FolderTree(folder)
        try:
            text = read_text(whole, file)
        finally:
            whole.close()
        if text is None:
            raise missing(file)
    except BaseException:
        tree.close()
        raise
    return tree, text, tree.ignore or IgnorePatterns(())


def _open_folder(folder: Path, memo: DigestMemo, file: str = "") -> FolderTree:
    """A local context: its own ``.dockerignore`` is applied here, as clients do before they send.

    Args:
        file: The Dockerfile, whose own ``<name>.dockerignore`` wins; empty if there is none.
    """
    try:
        whole = FolderTree(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidArgument(
            f"the build context '{folder}' is no directory", code="context_missing"
        ) from error
    try:
        ignore_file, ignore = IGNORE_FILE, None
        if file:
            ignore_file = f"{file}{IGNORE_FILE}"
            ignore = read_text(whole, ignore_file)
        if ignore is None:
            ignore_file, ignore = IGNORE_FILE, read_text(whole, IGNORE_FILE)
    finally:
        whole.close()
    return FolderTree(folder, patterns_of(ignore, ignore_file), memo)


def _dockerfile_of(tree: TarTree, file: str) -> tuple[str, IgnorePatterns]:
    """The Dockerfile of a context that was sent, and the patterns of its ``.dockerignore``.

    Clients apply ``.dockerignore`` before they send, but must send these two files in any case; what
    the patterns say about them is done here.
    """
    text = read_text(tree, file)
    if text is None:
        raise missing(file)
    patterns = patterns_of(read_text(tree, IGNORE_FILE), IGNORE_FILE)
    for name in (file, IGNORE_FILE):
        if patterns.excludes("/".join(part for part in name.split("/") if part not in ("", "."))):
            tree.hide(name)
    return text, patterns
