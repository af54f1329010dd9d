"""Runs the instructions of one stage, one after the other."""

import contextlib
import posixpath
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import attrs

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.cache import StepRecord, step_key
from linkspan.plugins.dockerfile_builder.fault import quote
from linkspan.plugins.dockerfile_builder.image_config import ImageState, parse_ports
from linkspan.plugins.dockerfile_builder.layers import LayerMaker, in_thread
from linkspan.plugins.dockerfile_builder.ownership import Mode, parse_owner
from linkspan.plugins.dockerfile_builder.remote import fetch, is_git, is_url
from linkspan.plugins.dockerfile_builder.selection import (
    Selection,
    Selector,
    TransferError,
    selection_digest,
)
from linkspan.plugins.dockerfile_builder.stream import OutputDecoder, StageStream
from linkspan.plugins.dockerfile_builder.target import CopyOptions, Target
from linkspan.plugins.dockerfile_builder.tree import Tree
from linkspan.plugins.dockerfile_builder.variables import StageScope, expanded
from linkspan.sdk.drivers.builder import BuildRequest
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.host import Engine, Host, StepRun
from linkspan.sdk.image_config import digest_of

_SIGNALS = {name for name in dir(signal) if name.startswith("SIG") and "_" not in name}


@attrs.frozen(kw_only=True)
class StageResult:
    """A finished stage.

    Attributes:
        chain: Names of its layers, bottom first.
    """

    state: ImageState
    chain: tuple[str, ...]
    scope: StageScope

    @property
    def top(self) -> str:
        """Its uppermost layer; empty if it has none."""
        return self.chain[-1] if self.chain else ""


class Services(Protocol):
    """What a stage needs of the build that it belongs to."""

    @property
    def request(self) -> BuildRequest:
        """What was asked."""

    @property
    def host(self) -> Host:
        """Lent by the core."""

    @property
    def layers(self) -> LayerMaker:
        """Makes and remembers layers."""

    @property
    def lease(self) -> set[str]:
        """Layers that must not be pruned while the build runs."""

    @property
    def context(self) -> Tree:
        """The build context."""

    @property
    def max_archive_bytes(self) -> int:
        """Limit of what ADD fetches or unpacks."""

    async def source_layer(self, copy: ins.Copy, stage_index: int) -> str:
        """The top layer of what ``--from`` names."""

    def count_step(self, *, cached: bool) -> None:
        """One more step is done."""


@attrs.define
class StageRun:
    """The state of a stage while its instructions run.

    Attributes:
        index: Of the stage.
        chain: Names of the layers so far.
    """

    services: Services
    stream: StageStream
    index: int
    state: ImageState
    scope: StageScope
    chain: list[str]

    @property
    def top(self) -> str:
        """The uppermost layer; empty if there is none."""
        return self.chain[-1] if self.chain else ""

    def result(self) -> StageResult:
        """What the stage is now."""
        return StageResult(state=self.state, chain=tuple(self.chain), scope=self.scope)

    def image_id(self) -> str:
        """Of the image as it stands; empty while there is nothing in it."""
        if self.chain or self.state.history:
            return digest_of(self.state.serialize())
        return ""

    def show_image(self) -> None:
        """The line with the image's id."""
        self.stream.image(self.image_id())

    async def run(self, instruction: ins.Instruction) -> None:
        """Run one instruction and show the image that it gives.

        Raises:
            DockerfileError: It cannot be done.
            LinkspanError: code ``build_failed``: a command failed.
        """
        match instruction:
            case ins.Run():
                await self._run(instruction)
            case ins.Copy() | ins.Add():
                await self._transfer(instruction)
            case ins.Workdir():
                await self._workdir(instruction)
            case _:
                self._metadata(instruction)
                self.services.count_step(cached=False)
        self.show_image()

    # Instructions that only change the config

    def _metadata(self, instruction: ins.Instruction) -> None:
        state = self.state
        match instruction:
            case ins.Env() | ins.Label():
                self._pairs(instruction)
            case ins.Arg():
                self.scope.declare(instruction)
                shown = (k if v is None else f"{k}={v}" for k, v in instruction.args)
                state.add_history(f"ARG {' '.join(shown)}")
            case ins.Cmd():
                words = self._argv(instruction.command)
                state.set_command(words)
                state.add_history(f"CMD {_quoted(words)}")
            case ins.Entrypoint():
                words = self._argv(instruction.command)
                state.set_entrypoint(words)
                state.add_history(f"ENTRYPOINT {_quoted(words)}")
            case ins.Shell():
                state.config["Shell"] = list(instruction.shell)
                state.add_history(f"SHELL [{' '.join(instruction.shell)}]")
            case ins.Maintainer():
                state.document["author"] = instruction.value
                state.add_history(f"MAINTAINER {instruction.value}")
            case ins.Onbuild():
                state.add_trigger(instruction.expression)
            case ins.Healthcheck():
                if state.set_healthcheck(instruction):
                    self.stream.say("Note: overriding previous HEALTHCHECK\n")
                state.add_history(f"HEALTHCHECK {_quoted(instruction.test)}")
            case _:
                self._expanded_metadata(instruction)

    def _expanded_metadata(self, instruction: ins.Instruction) -> None:
        state = self.state
        match instruction:
            case ins.User():
                state.config["User"] = self._expand(instruction, instruction.value)
                state.add_history(f"USER {state.user}")
            case ins.Volume():
                paths = tuple(self._expand(instruction, path) for path in instruction.paths)
                if "" in paths:
                    raise instruction.line.error("VOLUME specified can not be an empty string")
                state.add_to_set("Volumes", paths)
                state.add_history(f"VOLUME [{' '.join(paths)}]")
            case ins.Expose():
                ports = self._ports(instruction)
                state.add_to_set("ExposedPorts", ports)
                state.add_history(f"EXPOSE [{' '.join(ports)}]")
            case ins.StopSignal():
                value = self._expand(instruction, instruction.value)
                if not _is_signal(value):
                    raise instruction.line.error(f"invalid signal: {value}", framed=False)
                state.config["StopSignal"] = value
                state.add_history(f"STOPSIGNAL {value}")
            case _:
                raise AssertionError(instruction)

    def _expand(self, instruction: ins.Instruction, word: str) -> str:
        return expanded(instruction, word, self.scope.values).text

    def _pairs(self, instruction: ins.Env | ins.Label) -> None:
        # One instruction sees the environment as it was before it.
        before = dict(self.scope.values)
        pairs = {
            expanded(instruction, pair.key, before).text: expanded(
                instruction, pair.value, before
            ).text
            for pair in instruction.pairs
        }
        keyword = instruction.line.keyword
        shown = " ".join(f"{name}={value}" for name, value in pairs.items())
        if isinstance(instruction, ins.Label):
            self.state.set_labels(pairs)
        else:
            for name, value in pairs.items():
                self.state.set_env(name, value)
            self.scope.values.update(pairs)
        self.state.add_history(f"{keyword} {shown}")

    def _argv(self, command: ins.Command) -> tuple[str, ...]:
        """CMD and ENTRYPOINT; a bare keyword gives the shell an empty text, as in BuildKit."""
        if not command.shell_form:
            return command.words
        return (*self.state.shell, *(command.words or ("",)))

    def _ports(self, instruction: ins.Expose) -> tuple[str, ...]:
        words = [
            word
            for port in instruction.ports
            for word in expanded(instruction, port, self.scope.values).words
        ]
        try:
            return tuple(sorted(set(parse_ports(tuple(words)))))
        except ValueError as error:
            raise instruction.line.error(str(error), framed=False) from error

    # Instructions that make layers

    def _take(self, record: StepRecord, cached: bool, history: str) -> None:
        """Put a step's result on top."""
        if cached:
            self.stream.say(" ---> Using cache\n")
        self.services.count_step(cached=cached)
        if record.layer:
            self.chain.append(record.layer)
            self.services.lease.add(record.layer)
        self.state.add_history(history, diff_id=record.diff_id, created=record.created)

    async def _run(self, instruction: ins.Run) -> None:
        command = instruction.command
        if not command.words:
            raise instruction.line.error("RUN requires at least one argument")
        argv = (*self.state.shell, *command.words) if command.shell_form else command.words
        request = self.services.request
        network = instruction.network if instruction.network != "default" else request.network_mode
        key = step_key(
            op="run",
            parent=self.top,
            argv=argv,
            env=sorted(self.scope.values.items()),
            user=self.state.user,
            cwd=self.state.working_dir,
            network=network,
            hosts=request.extra_hosts,
        )
        record, cached = await self.services.layers.once(
            key, lambda: self._execute(instruction, argv, network), use_cache=not request.no_cache
        )
        args = [f"{name}={value}" for name, value in self.scope.args.items()]
        prefix = f"|{len(args)} {' '.join(args)} " if args else ""
        self._take(record, cached, f"RUN {prefix}{' '.join(argv)}")

    async def _execute(
        self, instruction: ins.Run, argv: tuple[str, ...], network: str
    ) -> StepRecord:
        layers, request = self.services.layers, self.services.request
        engine: Engine = self.services.host.engine
        environment = {**self.scope.values, **self.scope.run_environment()}
        async with layers.snapshot(self.top) as key:
            short = key.removeprefix("build-")[:12]
            self.stream.say(f" ---> Running in {short}\n")
            decoder = OutputDecoder(self.stream.say)
            code = await engine.run_in_snapshot(
                StepRun(
                    snapshot=key,
                    args=argv,
                    env=tuple(f"{name}={value}" for name, value in environment.items()),
                    cwd=self.state.working_dir,
                    user=self.state.user,
                    network_mode=network,
                    extra_hosts=request.extra_hosts,
                    memory_bytes=request.memory_bytes,
                    shm_size_bytes=request.shm_size_bytes,
                ),
                decoder.feed,
            )
            decoder.finish()
            if code != 0:
                raise _failed(instruction, argv, code)
            self.stream.say(f"Removing intermediate container {short}\n")
            return await layers.commit(key, self.top)

    async def _workdir(self, instruction: ins.Workdir) -> None:
        written = self._expand(instruction, instruction.path)
        joined = posixpath.join(self.state.working_dir, written) if written else "/"
        path = "/" + posixpath.normpath(joined).lstrip("/")
        self.state.config["WorkingDir"] = path
        if path == "/":
            self.services.count_step(cached=False)
            self.state.add_history("WORKDIR /")
            return
        user = self.state.user

        def work(target: Target) -> None:
            owner = parse_owner(user, target.read_text) if user else None
            target.make_directories(target.resolve(path), owner)

        with _located(instruction):
            record, cached = await self.services.layers.once(
                step_key(op="workdir", parent=self.top, path=path, user=user),
                lambda: self.services.layers.write(self.top, work),
                use_cache=not self.services.request.no_cache,
            )
        self._take(record, cached, f"WORKDIR {path}")

    # COPY and ADD

    async def _transfer(self, instruction: ins.Copy | ins.Add) -> None:
        with _located(instruction):
            order = self._order(instruction)
            if order.source:
                record, cached = await self._copy_from(order)
            else:
                record, cached = await self._copy_context(order)
        self._take(record, cached, order.history)

    def _order(self, instruction: ins.Copy | ins.Add) -> "_Order":
        """The instruction with its variables expanded and its contradictions refused."""
        line = instruction.line
        sources = tuple(self._expand(instruction, source) for source in instruction.sources)
        dest = self._expand(instruction, instruction.dest)
        chmod = self._expand(instruction, instruction.chmod)
        unpack = False
        if isinstance(instruction, ins.Add):
            unpack = instruction.unpack is not False
            git = [source for source in sources if is_git(source)]
            if git:
                raise line.error(
                    f"ADD from a git repository is not supported yet: {git[0]}",
                    framed=False,
                    code="dockerfile_unsupported",
                    diagnostic_id="LS0204",
                    help="clone it into the build context, or RUN git clone",
                )
            if instruction.checksum and not all(map(is_url, sources)):
                raise line.error("checksum requires HTTP(S) or Git sources", framed=False)
            if instruction.checksum and len(sources) > 1:
                raise line.error("checksum can't be specified for multiple sources", framed=False)
        elif any(is_url(source) or source.startswith("git@") for source in sources):
            raise line.error("source can't be a URL for COPY", framed=False)
        return _Order(
            instruction=instruction,
            sources=sources,
            dest=dest if dest.startswith("/") else posixpath.join(self.state.working_dir, dest),
            chown=self._expand(instruction, instruction.chown),
            mode=Mode.parse(chmod) if chmod else None,
            chmod=chmod,
            exclude=tuple(self._expand(instruction, word) for word in instruction.exclude),
            unpack=unpack,
            source=instruction.source if isinstance(instruction, ins.Copy) else "",
            history=" ".join((line.keyword, *line.flags, *sources, dest)),
        )

    def _key(self, order: "_Order", **facts: object) -> str:
        return step_key(
            op="copy",
            parent=self.top,
            dest=order.dest,
            chown=order.chown,
            chmod=order.chmod,
            unpack=order.unpack,
            link=order.instruction.link,
            **facts,
        )

    async def _copy_from(self, order: "_Order") -> tuple[StepRecord, bool]:
        """From a stage or image. Looked up by what it names first; then by what that holds."""
        assert isinstance(order.instruction, ins.Copy)
        layers = self.services.layers
        use_cache = not self.services.request.no_cache
        top = await self.services.source_layer(order.instruction, self.index)
        named = self._key(
            order,
            source=top,
            paths=order.sources,
            exclude=order.exclude,
            parents=order.instruction.parents,
        )
        if use_cache and (record := await layers.lookup(named)) is not None:
            return record, True
        async with layers.tree(top) as tree:
            selection, digest = await in_thread(self._select, tree, order)
            record, cached = await layers.once(
                self._key(order, content=[digest], kept_owner=True),
                lambda: self._write(order, [(tree, selection)]),
                use_cache=use_cache,
            )
        await layers.remember(named, record)
        return record, cached

    async def _copy_context(self, order: "_Order") -> tuple[StepRecord, bool]:
        async with self._context_parts(order) as parts:
            digests = [digest for _, _, digest in parts]
            return await self.services.layers.once(
                self._key(order, content=digests, kept_owner=False),
                lambda: self._write(order, [(tree, selection) for tree, selection, _ in parts]),
                use_cache=not self.services.request.no_cache,
            )

    @contextlib.asynccontextmanager
    async def _context_parts(
        self, order: "_Order"
    ) -> AsyncIterator[list[tuple[Tree, Selection, str]]]:
        """What is copied from the context, and what is fetched, each with its digest."""
        parts: list[tuple[Tree, Selection, str]] = []
        local = tuple(source for source in order.sources if not is_url(source))
        with contextlib.ExitStack() as stack:
            if local:
                context = self.services.context
                selection, digest = await in_thread(
                    self._select, context, attrs.evolve(order, sources=local)
                )
                parts.append((context, selection, digest))
            for url in order.sources:
                if is_url(url):
                    assert isinstance(order.instruction, ins.Add)
                    tree, selection = await fetch(
                        url,
                        self.services.host.state_dir,
                        checksum=order.instruction.checksum,
                        limit_bytes=self.services.max_archive_bytes,
                    )
                    stack.callback(tree.close)
                    node = selection.sources[0].node
                    digest = f"{url} {node.digest!r} {node.mtime_ns}"
                    parts.append((tree, selection, digest))
            yield parts

    def _select(self, tree: Tree, order: "_Order") -> tuple[Selection, str]:
        """Blocking."""
        instruction = order.instruction
        selector = Selector(
            keyword=instruction.line.keyword,
            from_context=not order.source,
            exclude=order.exclude,
            parents=instruction.parents,
        )
        selection = selector.select(tree, order.sources)
        digest = selection_digest(
            tree, selection, keep_owner=bool(order.source), check=lambda: None
        )
        return selection, digest

    async def _write(self, order: "_Order", parts: list[tuple[Tree, Selection]]) -> StepRecord:
        many = sum(len(selection.sources) for _, selection in parts) > 1

        def work(target: Target) -> None:
            owner = parse_owner(order.chown, target.read_text) if order.chown else None
            for tree, selection in parts:
                remote = tree is not self.services.context and not order.source
                unpack = order.unpack and (not remote or order.unpacks_remote)
                options = CopyOptions(
                    dest=order.dest,
                    owner=owner,
                    keep_owner=bool(order.source),
                    mode=order.mode,
                    unpack=unpack,
                    unpack_limit_bytes=self.services.max_archive_bytes,
                )
                wide = attrs.evolve(selection, many=selection.many or (many and len(parts) > 1))
                target.copy(tree, wide, options, order.instruction.line.keyword)

        return await self.services.layers.write(self.top, work, apart=order.instruction.link)


@attrs.frozen(kw_only=True)
class _Order:
    """A COPY or ADD, expanded.

    Attributes:
        dest: Absolute, as written otherwise.
        source: ``--from``.
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
    history: str

    @property
    def unpacks_remote(self) -> bool:
        """Fetched archives are unpacked only when asked for."""
        return isinstance(self.instruction, ins.Add) and self.instruction.unpack is True


@contextlib.contextmanager
def _located(instruction: ins.Instruction) -> Iterator[None]:
    """Give the faults of file work their place in the Dockerfile."""
    try:
        yield
    except TransferError as error:
        raise instruction.line.error(str(error), framed=False, diagnostic_id="LS0203") from error


def _failed(instruction: ins.Run, argv: tuple[str, ...], code: int) -> LinkspanError:
    line = instruction.line
    return LinkspanError(
        f"The command '{' '.join(argv)}' returned a non-zero code: {code}",
        code="build_failed",
        details={"exit_code": code, "file": line.file, "line": line.first_line},
        help=f"see the output above; the step stands at {line.file}:{line.first_line}",
    )


def _quoted(words: tuple[str, ...]) -> str:
    return f"[{' '.join(map(quote, words))}]"


def _is_signal(text: str) -> bool:
    if text.isdecimal():
        return 0 < int(text[:4]) <= 64
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    if sign and not (base in ("RTMIN", "RTMAX") and offset.isdecimal()):
        return False
    return f"SIG{base}" in _SIGNALS
