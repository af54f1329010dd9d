"""Runs the instructions of one stage, one after the other."""

import posixpath
import signal

import attrs

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.cache import StepRecord, step_key
from linkspan.plugins.dockerfile_builder.fault import quote
from linkspan.plugins.dockerfile_builder.image_config import ImageState, parse_ports
from linkspan.plugins.dockerfile_builder.ownership import parse_owner
from linkspan.plugins.dockerfile_builder.run_step import RunStep
from linkspan.plugins.dockerfile_builder.services import Services
from linkspan.plugins.dockerfile_builder.stream import StageStream
from linkspan.plugins.dockerfile_builder.target import Target
from linkspan.plugins.dockerfile_builder.transfer import Transfer, expand_order, located
from linkspan.plugins.dockerfile_builder.variables import StageScope, expanded
from linkspan.sdk.image_config import digest_of

_USING_CACHE = " ---> Using cache\n"
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
                await self._copy(instruction)
            case ins.Workdir():
                await self._workdir(instruction)
            case _:
                self._metadata(instruction)
                if self._is_known() and self.services.uses_cache(self.index):
                    self.stream.say(_USING_CACHE)
                self._count(cached=False)
        self.show_image()

    def _is_known(self) -> bool:
        """Whether the image as it stands is one that was built before."""
        again = self.services.layers.seen_again(self.image_id())
        sources = self.services.cache_sources
        if sources.images is None:
            return again
        return sources.begin_with(self.state.history, self.chain)

    def _count(self, *, cached: bool) -> None:
        self.services.count_step(cached=cached)
        self.stream.step_done(cached=cached)

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
                if had := state.set_healthcheck(instruction):
                    self.stream.say(f"Note: overriding previous HEALTHCHECK: [{' '.join(had)}]\n")
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
            self.stream.say(_USING_CACHE)
        self._count(cached=cached)
        if record.layer:
            self.chain.append(record.layer)
            self.services.lease.add(record.layer)
        self.state.add_history(history, diff_id=record.diff_id, created=record.created)

    async def _run(self, instruction: ins.Run) -> None:
        step = RunStep(
            services=self.services,
            stream=self.stream,
            instruction=instruction,
            state=self.state,
            scope=self.scope,
            top=self.top,
            index=self.index,
        )
        with located(instruction):
            record, cached, history = await step.run()
        self._take(record, cached, history)

    async def _workdir(self, instruction: ins.Workdir) -> None:
        written = self._expand(instruction, instruction.path)
        joined = posixpath.join(self.state.working_dir, written) if written else "/"
        path = "/" + posixpath.normpath(joined).lstrip("/")
        self.state.config["WorkingDir"] = path
        if path == "/":
            self._count(cached=False)
            self.state.add_history("WORKDIR /")
            return
        user = self.state.user

        def work(target: Target) -> None:
            owner = parse_owner(user, target.read_text) if user else None
            target.make_directories(target.resolve(path), owner)

        with located(instruction):
            record, cached = await self.services.once(
                step_key(op="workdir", parent=self.top, path=path, user=user),
                lambda: self.services.layers.write(self.top, work),
                index=self.index,
                step=f"WORKDIR {path}",
            )
        self._take(record, cached, f"WORKDIR {path}")

    async def _copy(self, instruction: ins.Copy | ins.Add) -> None:
        with located(instruction):
            order = expand_order(instruction, self.scope.values, self.state.working_dir)
            transfer = Transfer(self.services, order, parent=self.top, index=self.index)
            record, cached = await transfer.run()
        self._take(record, cached, order.history)


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
