"""RUN: its command line, what the cache knows it by, and the process."""

import posixpath
from collections.abc import Callable
from pathlib import Path

import attrs

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.cache import StepRecord, step_key
from linkspan.plugins.dockerfile_builder.emulation import runs_here
from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.image_config import ImageState
from linkspan.plugins.dockerfile_builder.layers import in_thread
from linkspan.plugins.dockerfile_builder.mount_points import watch_mount_points
from linkspan.plugins.dockerfile_builder.mounting import StepMounts, script_path
from linkspan.plugins.dockerfile_builder.parser import Heredoc, heredoc_mark
from linkspan.plugins.dockerfile_builder.services import Services
from linkspan.plugins.dockerfile_builder.stream import OutputDecoder, StageStream
from linkspan.plugins.dockerfile_builder.variables import StageScope, expanded
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.host import Engine, StepRun
from linkspan.sdk.model.image import Platform
from linkspan.sdk.platform import host_platform, normalize_platform


@attrs.frozen(kw_only=True)
class RunStep:
    """One RUN that is being done.

    Attributes:
        top: The layer below.
        index: Of the stage.
    """

    services: Services
    stream: StageStream
    instruction: ins.Run
    state: ImageState
    scope: StageScope
    top: str
    index: int

    @property
    def script(self) -> tuple[str, str] | None:
        """Name and text of an inline document that is a program of its own (``#!``)."""
        document = self._single_document
        if document is None or not document.data.startswith("#!"):
            return None
        return posixpath.basename(document.name), document.text

    @property
    def _single_document(self) -> Heredoc | None:
        """The document when the instruction is nothing but it."""
        line = self.instruction.line
        if line.heredocs and heredoc_mark(self.instruction.command.words[0]) is not None:
            return line.heredocs[0]
        return None

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command line."""
        command = self.instruction.command
        if not command.words:
            raise self.instruction.line.error("RUN requires at least one argument")
        if not command.shell_form:
            return command.words
        text = command.words[0]
        document = self._single_document
        if self.script is not None:
            text = script_path(self.script[0])
        elif document is not None:
            text = document.text
        else:
            for below in self.instruction.line.heredocs:
                text += f"\n{below.data}{below.name}"
        return (*self.state.shell, text)

    async def run(self) -> tuple[StepRecord, bool, str]:
        """Do it, or find it in the cache; return the result, whether it was cached, and its history."""
        request = self.services.request
        argv = self.argv
        own = self.instruction.network
        network = own if own != "default" else request.network_mode
        mounts = await StepMounts.plan(
            self.services,
            self.instruction,
            index=self.index,
            working_dir=self.state.working_dir,
            expand=lambda word: expanded(self.instruction, word, self.scope.values).text,
        )
        more = {"mounts": mounts.facts} if mounts.facts else {}
        if self.script is not None:
            more["script"] = [self.script[1]]
        key = step_key(
            op="run",
            parent=self.top,
            argv=argv,
            env=sorted(self.scope.values.items()),
            user=self.state.user,
            cwd=self.state.working_dir,
            network=network,
            hosts=request.extra_hosts,
            **more,
        )
        args = [f"{name}={value}" for name, value in self.scope.args.items()]
        prefix = f"|{len(args)} {' '.join(args)} " if args else ""
        history = f"RUN {prefix}{' '.join(argv)}"
        record, cached = await self.services.once(
            key,
            lambda: self._execute(argv, network, mounts),
            index=self.index,
            step=history,
        )
        return record, cached, history

    async def _execute(self, argv: tuple[str, ...], network: str, mounts: StepMounts) -> StepRecord:
        layers, request = self.services.layers, self.services.request
        engine: Engine = self.services.host.engine
        async with layers.snapshot(self.top) as key:
            short = key.removeprefix("build-")[:12]
            self.stream.say(f" ---> Running in {short}\n")
            decoder = OutputDecoder(self.stream.log)

            def watch(root: Path) -> Callable[[], None]:
                return watch_mount_points(root, mounts.destinations)

            async with mounts.enter(self.script) as mounted:
                environment = {
                    **self.scope.values,
                    **self.scope.run_environment(),
                    **mounted.env,
                }
                step = StepRun(
                    snapshot=key,
                    args=argv,
                    env=tuple(f"{name}={value}" for name, value in environment.items()),
                    cwd=self.state.working_dir,
                    user=self.state.user,
                    network_mode=network,
                    extra_hosts=request.extra_hosts,
                    resources=request.resources,
                    shm_size_bytes=request.shm_size_bytes,
                    mounts=mounted.mounts,
                    watch_root=watch,
                )
                try:
                    code = await engine.run_in_snapshot(step, decoder.feed)
                except LinkspanError as error:
                    await self._check_platform(error)
                    raise
            decoder.finish()
            if code != 0:
                failed = self._failed(argv, code)
                await self._check_platform(failed)
                raise failed
            self.stream.say(f" ---> Removed intermediate container {short}\n")
            return await layers.commit(key, self.top)

    async def _check_platform(self, error: LinkspanError) -> None:
        """Say of what failed whether this machine runs the image's programs at all."""
        platform = self.state.platform
        if platform is not None and not await in_thread(runs_here, platform):
            raise no_emulator(self.instruction, platform) from error

    def _failed(self, argv: tuple[str, ...], code: int) -> LinkspanError:
        line = self.instruction.line
        return LinkspanError(
            f"The command '{' '.join(argv)}' returned a non-zero code: {code}",
            code="build_failed",
            details={
                "exit_code": code,
                "command": " ".join(argv),
                "file": line.file,
                "line": line.first_line,
            },
            help=f"see the output above; the step stands at {line.file}:{line.first_line}",
        )


def no_emulator(instruction: ins.Instruction, platform: Platform) -> DockerfileError:
    """What is said of a command that this machine cannot run."""
    host = normalize_platform(host_platform())
    return instruction.line.error(
        f"this machine ({host}) has no emulator for commands of {platform}",
        framed=False,
        help="install one (qemu-user-static with binfmt-support), or run the command in a stage that is built "
        "FROM --platform=$BUILDPLATFORM and COPY its result",
    )
