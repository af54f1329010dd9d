"""COPY and ADD: from a build context, a stage, an image or a URL into a layer."""

import contextlib
import posixpath
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import attrs
import trio

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.cache import StepRecord, step_key
from linkspan.plugins.dockerfile_builder.client import secret_of
from linkspan.plugins.dockerfile_builder.config import GIT_FOLDER
from linkspan.plugins.dockerfile_builder.copying import Copier, CopyOptions
from linkspan.plugins.dockerfile_builder.git_source import (
    AUTH_SECRET,
    checkout,
    parse_git,
)
from linkspan.plugins.dockerfile_builder.layers import in_thread
from linkspan.plugins.dockerfile_builder.mount_option import MountError
from linkspan.plugins.dockerfile_builder.ownership import Mode, parse_owner
from linkspan.plugins.dockerfile_builder.parser import os_bytes
from linkspan.plugins.dockerfile_builder.remote import fetch, is_git, is_url
from linkspan.plugins.dockerfile_builder.selection import (
    Selection,
    Selector,
    Source,
    TransferError,
    selection_digest,
)
from linkspan.plugins.dockerfile_builder.services import Services
from linkspan.plugins.dockerfile_builder.target import Target
from linkspan.plugins.dockerfile_builder.tree import Node, TarTree, Tree
from linkspan.plugins.dockerfile_builder.variables import expanded

_MOST_SELECTIONS = 1000


@attrs.frozen(kw_only=True)
class Order:
    """A COPY or ADD, expanded.

    Attributes:
        dest: Absolute, as written otherwise.
        source: ``--from``.
        inline: Name and text of the documents that stand in the Dockerfile.
        history: What the image's history says.
    """

    instruction: ins.Copy | ins.Add
    sources: tuple[str, ...]
    dest: str
    chown: str
    chmod: str
    mode: Mode | None
    exclude: tuple[str, ...]
    unpack: bool
    source: str
    parents: bool
    inline: tuple[tuple[str, str], ...]
    history: str

    @property
    def unpacks_remote(self) -> bool:
        """Fetched archives are unpacked only when asked for."""
        return isinstance(self.instruction, ins.Add) and self.instruction.unpack is True


def expand_order(
    instruction: ins.Copy | ins.Add, values: Mapping[str, str], working_dir: str
) -> Order:
    """The instruction with its variables expanded and its contradictions refused.

    Raises:
        DockerfileError: A variable cannot be expanded, or the sources do not fit the instruction.
        TransferError: ``--chmod`` cannot be read.
    """

    def word(text: str) -> str:
        return expanded(instruction, text, values).text

    line = instruction.line
    sources = tuple(word(source) for source in instruction.sources)
    dest = word(instruction.dest)
    chmod = word(instruction.chmod)
    unpack = False
    if isinstance(instruction, ins.Add):
        unpack = instruction.unpack is not False
        if instruction.checksum and not all(is_url(source) or is_git(source) for source in sources):
            raise line.error("checksum requires HTTP(S) or Git sources", framed=False)
        if instruction.checksum and len(sources) > 1:
            raise line.error("checksum can't be specified for multiple sources", framed=False)
    elif any(is_url(source) or source.startswith(("git@", "git://")) for source in sources):
        raise line.error("source can't be a URL for COPY", framed=False)
    return Order(
        instruction=instruction,
        sources=sources,
        dest=dest if dest.startswith("/") else posixpath.join(working_dir, dest),
        chown=word(instruction.chown),
        mode=Mode.parse(chmod) if chmod else None,
        chmod=chmod,
        exclude=tuple(word(pattern) for pattern in instruction.exclude),
        unpack=unpack,
        source=instruction.source if isinstance(instruction, ins.Copy) else "",
        parents=isinstance(instruction, ins.Copy) and instruction.parents,
        inline=tuple(
            (
                document.name,
                expanded(instruction, document.text, values, raw_quotes=True).text
                if document.expand
                else document.text,
            )
            for document in instruction.inline
        ),
        history=" ".join(
            (
                line.keyword,
                *line.flags,
                *sources,
                *(f"<<{document.name}" for document in instruction.inline),
                dest,
            )
        ),
    )


class Transfer:
    """One COPY or ADD that is being done.

    Args:
        order: What to do.
        parent: The layer below; empty if there is none.
        index: Of the stage.
    """

    def __init__(self, services: Services, order: Order, *, parent: str, index: int) -> None:
        self._services = services
        self._order = order
        self._parent = parent
        self._index = index

    async def run(self) -> tuple[StepRecord, bool]:
        """Do it, or find it in the cache; say which.

        Raises:
            TransferError: In Docker's wording.
            DockerfileError: ``--from`` names what it must not.
        """
        if not self._order.source:
            return await self._copy_context(self._services.context)
        origin = await self._services.origin(
            self._order.source, self._order.instruction, self._index
        )
        if isinstance(origin, Tree):
            return await self._copy_context(origin)
        return await self._copy_from(origin)

    @property
    def _use_cache(self) -> bool:
        return self._services.uses_cache(self._index)

    def _key(self, **facts: object) -> str:
        return step_key(
            op="copy",
            parent=self._parent,
            dest=self._order.dest,
            chown=self._order.chown,
            chmod=self._order.chmod,
            unpack=self._order.unpack,
            link=self._order.instruction.link,
            **facts,
        )

    async def _copy_from(self, top: str) -> tuple[StepRecord, bool]:
        """From a stage or image. Looked up by what it names first; then by what that holds."""
        layers = self._services.layers
        named = self._key(
            source=top,
            paths=self._order.sources,
            exclude=self._order.exclude,
            parents=self._order.parents,
        )
        record = await layers.lookup(named) if self._use_cache else None
        if record is not None and self._services.cache_sources.has(record):
            self._services.note(named, record)
            return record, True
        async with layers.tree(top) as tree:
            selection, digest = await in_thread(
                self._select, tree, self._order.sources, keep_owner=True
            )
            key = self._key(content=[digest], kept_owner=True)
            record, cached = await self._services.once(
                key,
                lambda: self._write([(tree, selection)], tree, keep_owner=True),
                index=self._index,
                step=self._order.history,
            )
        record = attrs.evolve(record, also=key)
        await layers.remember(named, record)
        self._services.note(named, record)
        return record, cached

    async def _copy_context(self, context: Tree) -> tuple[StepRecord, bool]:
        """From a context, the network and the Dockerfile itself."""
        async with self._context_parts(context) as parts:
            digests = [digest for _, _, digest in parts]
            return await self._services.once(
                self._key(content=digests, kept_owner=False),
                lambda: self._write([(tree, selection) for tree, selection, _ in parts], context),
                index=self._index,
                step=self._order.history,
            )

    @contextlib.asynccontextmanager
    async def _context_parts(
        self, context: Tree
    ) -> AsyncIterator[list[tuple[Tree, Selection, str]]]:
        """What is copied from the context, and what is fetched, each with its digest."""
        parts: list[tuple[Tree, Selection, str]] = []
        adds = isinstance(self._order.instruction, ins.Add)
        remote = [source for source in self._order.sources if adds and _is_remote(source)]
        local = tuple(source for source in self._order.sources if source not in remote)
        async with contextlib.AsyncExitStack() as stack:
            if local:
                parts.append((context, *await self._selected(context, local)))
            for url in remote:
                parts.append(await self._remote(stack, url))
            if self._order.inline:
                tree, selection = await in_thread(
                    _inline_tree, self._services.host.state_dir, self._order.inline
                )
                stack.callback(tree.close)
                parts.append((tree, selection, step_key(inline=self._order.inline)))
            yield parts

    async def _selected(self, context: Tree, sources: tuple[str, ...]) -> tuple[Selection, str]:
        """What is copied from the context, and its digest; known already if nothing in it has changed."""
        known = context.selections
        if known is None:
            return await in_thread(self._select, context, sources)
        how = (sources, self._selector())
        if how not in known:
            found = await in_thread(self._select, context, sources)
            if len(known) >= _MOST_SELECTIONS:
                known.clear()
            known[how] = found
        selection, digest = known[how]
        return selection, digest

    async def _remote(
        self, stack: contextlib.AsyncExitStack, url: str
    ) -> tuple[Tree, Selection, str]:
        """Fetch a file or a repository."""
        instruction = self._order.instruction
        assert isinstance(instruction, ins.Add)
        folder = self._services.host.state_dir
        if not is_git(url):
            fetched, selection = await fetch(
                url,
                folder,
                checksum=instruction.checksum,
                limit_bytes=self._services.max_archive_bytes,
            )
            stack.callback(fetched.close)
            node = selection.sources[0].node
            return fetched, selection, f"{url} {node.digest!r} {node.mtime_ns}"
        source = parse_git(
            url, keep_git_dir=instruction.keep_git_dir, checksum=instruction.checksum
        )
        token = await secret_of(self._services.request, AUTH_SECRET) or b""
        tree, commit, _ = await stack.enter_async_context(
            checkout(source, folder / GIT_FOLDER, token=token)
        )
        selection, _ = await in_thread(self._select, tree, (".",))
        kept = "with .git" if source.keep_git_dir else ""
        return tree, selection, f"git {source.url} {commit} {source.subdir} {kept}"

    def _selector(self) -> Selector:
        return Selector(
            keyword=self._order.instruction.line.keyword,
            from_context=not self._order.source,
            exclude=self._order.exclude,
            parents=self._order.parents,
        )

    def _select(
        self, tree: Tree, sources: tuple[str, ...], *, keep_owner: bool = False
    ) -> tuple[Selection, str]:
        """Blocking."""
        selection = self._selector().select(tree, sources)
        digest = selection_digest(
            tree,
            selection,
            keep_owner=keep_owner,
            check=trio.from_thread.check_cancelled,
        )
        return selection, digest

    async def _write(
        self, parts: list[tuple[Tree, Selection]], context: Tree, *, keep_owner: bool = False
    ) -> StepRecord:
        many = sum(len(selection.sources) for _, selection in parts) > 1

        def work(target: Target) -> None:
            owner = parse_owner(self._order.chown, target.read_text) if self._order.chown else None
            for tree, selection in parts:
                unpack = self._order.unpack and (tree is context or self._order.unpacks_remote)
                options = CopyOptions(
                    dest=self._order.dest,
                    owner=owner,
                    keep_owner=keep_owner,
                    mode=self._order.mode,
                    unpack=unpack,
                    unpack_limit_bytes=self._services.max_archive_bytes,
                )
                wide = attrs.evolve(selection, many=selection.many or (many and len(parts) > 1))
                Copier(tree, target, options).copy(wide, self._order.instruction.line.keyword)

        return await self._services.layers.write(
            self._parent, work, apart=self._order.instruction.link
        )


def _is_remote(source: str) -> bool:
    return is_url(source) or is_git(source)


def _inline_tree(folder: Path, documents: tuple[tuple[str, str], ...]) -> tuple[TarTree, Selection]:
    """The documents of a Dockerfile as files. Blocking."""
    tree = TarTree(folder)
    sources = []
    for name, text in documents:
        node = Node(kind="file", mode=0o644, mtime_ns=time.time_ns())
        writer = tree.file_writer(node)
        writer.write(os_bytes(text))
        writer.finish()
        sources.append(Source(name=posixpath.basename(name), node=node))
    return tree, Selection(sources=tuple(sources), many=len(sources) > 1)


@contextlib.contextmanager
def located(instruction: ins.Instruction) -> Iterator[None]:
    """Give the faults of file work their place in the Dockerfile."""
    try:
        yield
    except (TransferError, MountError) as error:
        raise instruction.line.error(str(error), framed=False, diagnostic_id="LS0203") from error
    except OSError as error:
        # A name too long, a value that the file system does not take: the sources' fault.
        raise instruction.line.error(
            f"{instruction.line.keyword} failed: {error.strerror}: {error.filename or ''}",
            framed=False,
            diagnostic_id="LS0203",
        ) from error
