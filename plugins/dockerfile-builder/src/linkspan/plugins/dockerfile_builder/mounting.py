"""Makes the mounts of one RUN step: what they stand for in the cache's key, and the folders behind them."""

import contextlib
import posixpath
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import trio

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.agent_sockets import DEFAULT_ID, agent_socket
from linkspan.plugins.dockerfile_builder.client import secret_of
from linkspan.plugins.dockerfile_builder.copying import Copier, CopyOptions
from linkspan.plugins.dockerfile_builder.layers import in_thread
from linkspan.plugins.dockerfile_builder.mount_option import MountError, RunMount, parse_mount
from linkspan.plugins.dockerfile_builder.secret_files import secret_files
from linkspan.plugins.dockerfile_builder.selection import (
    Selection,
    Source,
    TransferError,
    selection_digest,
)
from linkspan.plugins.dockerfile_builder.services import Services
from linkspan.plugins.dockerfile_builder.target import Target
from linkspan.plugins.dockerfile_builder.tree import Node, Tree
from linkspan.sdk.build_client import BuildClient
from linkspan.sdk.host import StepMount

_SCRIPT_FOLDER = "/dev/pipes"


@attrs.frozen(kw_only=True)
class Mounted:
    """What the process gets.

    Attributes:
        env: Secrets as variables.
    """

    mounts: tuple[StepMount, ...]
    env: dict[str, str]


@attrs.frozen(kw_only=True)
class _Planned:
    """A mount and where it appears; ``origin`` is what ``from`` names: a context or a top layer."""

    mount: RunMount
    destination: str
    origin: Tree | str
    secret: bytes = attrs.field(default=b"", repr=False)


class StepMounts:
    """The mounts of one RUN step. Make it with :meth:`plan`, look at ``facts``, then :meth:`enter`.

    Attributes:
        facts: What counts for the cache: places and contents of binds; of caches and secrets only where
            they are.
    """

    def __init__(
        self, services: Services, index: int, planned: list[_Planned], facts: list[object]
    ) -> None:
        self._services = services
        self._index = index
        self._planned = planned
        self.facts = facts

    @classmethod
    async def plan(
        cls,
        services: Services,
        instruction: ins.Run,
        *,
        index: int,
        working_dir: str,
        expand: Callable[[str], str],
    ) -> "StepMounts":
        """Read the mounts and find what they name; stages are built if need be.

        Raises:
            MountError, TransferError: Docker's text.
            NotFound: A required secret was not given.
        """
        planned: list[_Planned] = []
        facts: list[object] = []
        for text in instruction.mounts:
            mount = parse_mount(text, expand)
            if mount.kind == "ssh":
                if not await _has_agent(services.request.client, mount):
                    continue
                agents = sum(each.mount.kind == "ssh" for each in planned)
                default = f"/run/buildkit/ssh_agent.{agents}"
                mount = attrs.evolve(mount, target=mount.target or default)
            secret = b""
            if mount.kind == "secret":
                given = await secret_of(services.request, mount.id)
                if given is None and mount.required:
                    raise MountError(f"secret {mount.id}: not found")
                if given is None:
                    continue
                secret = given
            destination = mount.destination(working_dir) if mount.target else ""
            origin: Tree | str = services.context if mount.kind == "bind" else ""
            if mount.source_from:
                origin = await services.origin(mount.source_from, instruction, index)
            planned.append(
                _Planned(mount=mount, destination=destination, origin=origin, secret=secret)
            )
            content = origin
            if isinstance(origin, Tree):
                content = await in_thread(_digest, origin, mount.source)
            facts.append(
                [mount.kind, destination, mount.read_only, mount.source, mount.env, content]
            )
        return cls(services, index, planned, facts)

    @contextlib.asynccontextmanager
    async def enter(self, script: tuple[str, str] | None) -> AsyncIterator[Mounted]:
        """The folders, for as long as the step runs.

        Args:
            script: Name and text of an inline document that is run as a program.
        """
        async with contextlib.AsyncExitStack() as stack:
            made: list[StepMount] = []
            # Locks are taken in one order by all: two steps never wait for each other.
            for planned in sorted(self._planned, key=_cache_id):
                made.extend(await self._make(stack, planned))
            if script is not None:
                made.append(await self._script(stack, *script))
            variables = await self._secrets(stack, made)
            yield Mounted(mounts=tuple(made), env=variables)

    @property
    def destinations(self) -> tuple[str, ...]:
        """Where something is mounted."""
        return tuple(planned.destination for planned in self._planned if planned.destination)

    async def _make(
        self, stack: contextlib.AsyncExitStack, planned: _Planned
    ) -> tuple[StepMount, ...]:
        mount = planned.mount
        if mount.kind == "tmpfs":
            return (StepMount(target=planned.destination, size_bytes=mount.size_bytes),)
        if mount.kind == "secret":
            return ()
        if mount.kind == "ssh":
            return (await self._agent(stack, planned),)
        if mount.kind == "cache":
            source = await self._cache(stack, planned)
        elif isinstance(planned.origin, Tree):
            source = await self._context(stack, planned.origin, mount.source)
        else:
            source = await self._layer(stack, planned.origin, mount)
        return (StepMount(target=planned.destination, source=source, read_only=mount.read_only),)

    async def _agent(self, stack: contextlib.AsyncExitStack, planned: _Planned) -> StepMount:
        client = self._services.request.client
        assert client is not None
        folder = self._services.layers.new_secret_folder()
        source = await stack.enter_async_context(agent_socket(client, planned.mount, folder))
        return StepMount(target=planned.destination, source=source)

    async def _layer(self, stack: contextlib.AsyncExitStack, top: str, mount: RunMount) -> Path:
        """A stage or image; writes go to a layer that is thrown away."""
        layers = self._services.layers
        if mount.read_only and top:
            root = await stack.enter_async_context(layers.snapshots.view(top))
        else:
            root = await stack.enter_async_context(layers.scratch_root(top))
        return await in_thread(_inside, root, mount.source)

    async def _context(self, stack: contextlib.AsyncExitStack, tree: Tree, path: str) -> Path:
        """A copy of a build context: a command must not see what is left out, nor change the rest."""
        root = await stack.enter_async_context(self._services.layers.scratch_root(""))
        node = _node(tree, path)
        name = "context"
        await in_thread(_copy, tree, node, root, name)
        return root / name

    async def _cache(self, stack: contextlib.AsyncExitStack, planned: _Planned) -> Path:
        mount = planned.mount
        namespace = self._services.request.args.get("BUILDKIT_CACHE_MOUNT_NS") or ""
        name = _cache_id(planned)

        async def seed(folder: Path) -> None:
            async with contextlib.AsyncExitStack() as open_tree:
                tree = planned.origin
                if not isinstance(tree, Tree):
                    layers = self._services.layers
                    tree = await open_tree.enter_async_context(layers.tree(tree))
                node = _node(tree, mount.source)
                await in_thread(_copy, tree, node, folder.parent, folder.name)

        return await stack.enter_async_context(
            self._services.cache_mounts.hold(
                mount,
                f"{namespace}/{name}" if namespace else name,
                seed=seed if mount.source_from else None,
                fresh=not self._services.uses_cache(self._index),
            )
        )

    async def _script(self, stack: contextlib.AsyncExitStack, name: str, text: str) -> StepMount:
        root = await stack.enter_async_context(self._services.layers.scratch_root(""))
        path = root / posixpath.basename(name)
        await in_thread(_write_program, path, text)
        return StepMount(target=f"{_SCRIPT_FOLDER}/{name}", source=path, read_only=True)

    async def _secrets(
        self, stack: contextlib.AsyncExitStack, made: list[StepMount]
    ) -> dict[str, str]:
        """Mount the secrets that are files; return those that are variables."""
        wanted = [planned for planned in self._planned if planned.mount.kind == "secret"]
        files = [planned for planned in wanted if planned.destination]
        if files:
            folder = self._services.layers.new_secret_folder()
            paths = await stack.enter_async_context(
                secret_files(folder, [(p.mount, p.secret) for p in files])
            )
            made.extend(
                StepMount(target=planned.destination, source=path, read_only=True)
                for planned, path in zip(files, paths, strict=True)
            )
        agents = [each.destination for each in self._planned if each.mount.kind == "ssh"]
        variables = {"SSH_AUTH_SOCK": agents[0]} if agents else {}
        return variables | {
            planned.mount.env: planned.secret.decode("utf-8", "surrogateescape")
            for planned in wanted
            if planned.mount.env
        }


def _cache_id(planned: _Planned) -> str:
    return planned.mount.id or planned.destination


def script_path(name: str) -> str:
    """Where an inline document that is a program appears."""
    return f"{_SCRIPT_FOLDER}/{name}"


async def _has_agent(client: BuildClient | None, mount: RunMount) -> bool:
    """Whether the client lends the agent; one that need not is none."""
    if client is None:
        raise MountError(
            "RUN --mount=type=ssh needs docker's BuildKit client; give the key as a secret"
        )
    name = mount.id or DEFAULT_ID
    if await client.has_agent(name):
        return True
    if mount.required:
        raise MountError(f'no SSH key "{name}" forwarded from the client')
    return False


def _digest(tree: Tree, path: str) -> str:
    source = Source(name="", node=_node(tree, path))
    selection = Selection(sources=(source,), many=False)
    return selection_digest(
        tree, selection, keep_owner=False, check=trio.from_thread.check_cancelled
    )


def _node(tree: Tree, path: str) -> Node:
    node = tree.lookup(path)
    if node is None:
        raise TransferError(f'"/{path.strip("/")}": not found')
    return node


def _copy(tree: Tree, node: Node, root: Path, name: str) -> None:
    """Copy a file or a directory to ``root/name``."""
    target = Target(root, trio.from_thread.check_cancelled)
    try:
        source = Source(name=name, node=node)
        Copier(tree, target, CopyOptions(dest=f"/{name}", keep_owner=False)).copy(
            Selection(sources=(source,), many=False), "RUN"
        )
    finally:
        target.close()


def _inside(root: Path, path: str) -> Path:
    """A path of a root, links followed inside it."""
    target = Target(root, trio.from_thread.check_cancelled)
    try:
        parts = target.resolve(path)
        if target.lstat(parts) is None:
            raise TransferError(f'"/{path.strip("/")}": not found')
    finally:
        target.close()
    return root.joinpath(*parts)


def _write_program(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o755)
