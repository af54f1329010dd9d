"""One build: which stages it needs, in which order they may run, and what they share."""

from collections.abc import Awaitable, Callable, Iterator, Mapping

import attrs
import trio

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.cache import StepRecord
from linkspan.plugins.dockerfile_builder.cache_exchange import CarriedStage
from linkspan.plugins.dockerfile_builder.cache_mounts import CacheMounts
from linkspan.plugins.dockerfile_builder.cache_sources import CacheSources
from linkspan.plugins.dockerfile_builder.client import login_of
from linkspan.plugins.dockerfile_builder.image_config import ImageState, rfc3339
from linkspan.plugins.dockerfile_builder.instruction_parser import parse_trigger
from linkspan.plugins.dockerfile_builder.layers import LayerMaker, bare_errors
from linkspan.plugins.dockerfile_builder.stages import Dockerfile, Stage
from linkspan.plugins.dockerfile_builder.step_names import StepNames
from linkspan.plugins.dockerfile_builder.steps import StageResult, StageRun
from linkspan.plugins.dockerfile_builder.stream import BuildStream, StageStream
from linkspan.plugins.dockerfile_builder.tree import Tree
from linkspan.plugins.dockerfile_builder.variables import (
    GlobalScope,
    StageScope,
    expanded,
    platform_args,
)
from linkspan.sdk.drivers.builder import BaseImage, BuildRequest
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.image_config import digest_of
from linkspan.sdk.model.image import Image, Platform
from linkspan.sdk.platform import host_platform, normalize_platform, parse_platform
from linkspan.sdk.progress import Progress
from linkspan.sdk.reference import parse_reference

SCRATCH = "scratch"


@attrs.define
class _StageTask:
    """A stage that runs or has run."""

    done: trio.Event = attrs.field(factory=trio.Event)
    result: StageResult | None = None


@attrs.define(kw_only=True)
class Build:
    """One build. Make it, then :meth:`run` it once."""

    request: BuildRequest
    dockerfile: Dockerfile
    context: Tree
    contexts: Mapping[str, Tree | str]
    host: Host
    layers: LayerMaker
    cache_mounts: CacheMounts
    lease: set[str]
    stream: BuildStream
    max_archive_bytes: int
    cache_sources: CacheSources = CacheSources()
    steps: int = 0
    cached_steps: int = 0
    used: dict[str, StepRecord] = attrs.field(factory=dict)
    _tasks: dict[int, _StageTask] = attrs.field(factory=dict)
    _images: dict[tuple[str, str], Image] = attrs.field(factory=dict)
    _image_lock: trio.Lock = attrs.field(factory=trio.Lock)
    _numbers: dict[int, int] = attrs.field(factory=dict)
    _total: int = 0
    _nursery: trio.Nursery | None = None
    _scope: GlobalScope = attrs.field(init=False)
    _target_platform: Platform = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._target_platform = _target_platform(self.request)
        self._scope = global_scope(self.request, self.dockerfile)

    async def run(self) -> StageResult:
        """Build the target stage and all that it needs.

        Raises:
            LinkspanError: What the first failing step raised.
        If cancelled: running steps are ended, their snapshots removed.
        """
        target = self.dockerfile.target(self.request.target)
        self._count(target)
        self._show_global_args()
        with bare_errors():
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for index in sorted(self._numbers):
                    self.stream.stage(index)
                for index in sorted(self._numbers):
                    self._start(self.dockerfile.stages[index])
                result = await self._finished(target)
                nursery.cancel_scope.cancel()
        self._warn_unconsumed()
        return result

    # Which stages

    def _base_name(self, stage: Stage) -> str:
        name = expanded(stage.source, stage.source.base, self._scope.values).text
        if not name:
            raise stage.source.line.error(
                f"base name ({stage.source.base}) should not be blank", framed=False
            )
        return name

    def _base_stage(self, stage: Stage) -> Stage | None:
        """The stage that this one stands on; None if it is an image."""
        name = self._base_name(stage)
        if name.lower() in self.contexts:
            return None
        return self.dockerfile.stage_named(name, stage.index)

    def _needs(self, stage: Stage) -> Iterator[Stage]:
        """Stages that this one stands on or copies from, as far as the text says."""
        base = self._base_stage(stage)
        if base is not None:
            yield base
        for instruction in stage.instructions:
            for name in ins.source_names(instruction):
                if name.lower() in self.contexts:
                    continue
                found = self._source_stage(name, instruction, stage.index)
                if found is not None:
                    yield found

    def _source_stage(self, name: str, copy: ins.Instruction, index: int) -> Stage | None:
        """The stage that ``--from`` names; None if it is an image."""
        if "$" in name:
            raise copy.line.error(
                "variable expansion is not supported for --from, define a new stage with FROM using"
                " ARG from global scope as a workaround",
                framed=False,
            )
        stages = self.dockerfile.stages
        if name.isdecimal():
            if int(name) >= len(stages):
                raise copy.line.error(f"invalid stage index {name}", framed=False)
            found: Stage | None = stages[int(name)]
        else:
            found = self.dockerfile.stage_named(name, index) or self.dockerfile.stage_named(name)
        if found is None:
            return None
        if found.index == index:
            raise copy.line.error(
                f"circular dependency detected on stage: {found.title}", framed=False
            )
        if found.index > index:
            raise copy.line.error(
                f'cannot copy from stage "{name}", it needs to be defined before current stage'
                f' "{stages[index].title}"',
                framed=False,
            )
        return found

    def _count(self, target: Stage) -> None:
        """Find the needed stages and give their steps numbers, in the order of the file."""
        needed: set[int] = set()
        pending = [target]
        while pending:
            stage = pending.pop()
            if stage.index not in needed:
                needed.add(stage.index)
                pending.extend(self._needs(stage))
        self._total = len(self.dockerfile.global_args)
        for index in sorted(needed):
            self._number(self.dockerfile.stages[index])

    def _number(self, stage: Stage) -> None:
        self._numbers[stage.index] = self._total
        self._total += 1 + len(stage.instructions)

    def _show_global_args(self) -> None:
        for number, arg in enumerate(self.dockerfile.global_args, 1):
            self.stream.say(f"Step {number}/{self._total} : {arg.line.text}")
            self.stream.say("\n")
            self.count_step(cached=False)

    def _warn_unconsumed(self) -> None:
        declared = {
            name
            for arg in (
                *self.dockerfile.global_args,
                *(i for s in self.dockerfile.stages for i in s.instructions),
            )
            if isinstance(arg, ins.Arg)
            for name, _ in arg.args
        }
        left = self._scope.unconsumed(declared)
        if left:
            self.stream.say(
                f"[Warning] One or more build-args [{' '.join(left)}] were not consumed\n"
            )

    def commands(self) -> Iterator[tuple[ins.Run, Platform]]:
        """Every RUN of the stages that are needed, with the platform on which it runs; nothing is run."""
        self._count(self.dockerfile.target(self.request.target))
        for index in sorted(self._numbers):
            first = stage = self.dockerfile.stages[index]
            while (base := self._base_stage(first)) is not None:
                first = base
            platform = self._platform(first) or normalize_platform(host_platform())
            for instruction in stage.instructions:
                if isinstance(instruction, ins.Run):
                    yield instruction, platform

    # Stages running

    def _start(self, stage: Stage) -> _StageTask:
        task = self._tasks.get(stage.index)
        if task is None:
            assert self._nursery is not None
            task = self._tasks[stage.index] = _StageTask()
            self._nursery.start_soon(self._run_stage, stage, task)
        return task

    async def _finished(self, stage: Stage) -> StageResult:
        """Wait for a stage, starting it if an ONBUILD trigger was the first to name it."""
        if stage.index not in self._numbers:
            self._number(stage)
        task = self._start(stage)
        await task.done.wait()
        assert task.result is not None
        return task.result

    async def _run_stage(self, stage: Stage, task: _StageTask) -> None:
        stream = self.stream.stage(stage.index)
        try:
            await self._run_steps(stage, stream)
        except Exception as error:
            stream.step_failed(error)
            raise
        stream.end()
        task.done.set()

    async def _run_steps(self, stage: Stage, stream: StageStream) -> None:
        image = self._base_image(stage)
        names = StepNames(stage, stages=len(self.dockerfile.stages), on_image=bool(image))
        number = self._numbers[stage.index] + 1
        name = names.base(_full_name(image)) if image else ""
        stream.step(number, self._total, stage.source.line.text, name)
        run = await self._begin(stage)
        self.count_step(cached=False)
        stream.step_done(cached=False)
        triggers = run.state.take_triggers()
        if triggers:
            noun = "trigger" if len(triggers) == 1 else "triggers"
            stream.say(f"# Executing {len(triggers)} build {noun}")
            stream.say("\n")
        run.show_image()
        for expression in triggers:
            await run.run(parse_trigger(expression, stage.source.line))
        for offset, instruction in enumerate(stage.instructions, 1):
            name = names.step(instruction, run.scope.values)
            stream.step(number + offset, self._total, instruction.line.text, name)
            await run.run(instruction)
        is_target = stage.index == self.dockerfile.target(self.request.target).index
        if is_target and self.request.labels:
            run.state.set_labels(self.request.labels)
        stream.send(Progress(aux={"ID": digest_of(run.state.serialize())}))
        self._tasks[stage.index].result = run.result()

    def _base_image(self, stage: Stage) -> str:
        """The image that a stage stands on; empty if it is none."""
        name = self._base_name(stage)
        context = self.contexts.get(name.lower(), name)
        if self._base_stage(stage) is not None or isinstance(context, Tree) or context == SCRATCH:
            return ""
        return context

    async def _begin(self, stage: Stage) -> StageRun:
        """The state that FROM gives."""
        name = self._base_name(stage)
        base = self._base_stage(stage)
        context = self.contexts.get(name.lower(), name)
        if isinstance(context, Tree):
            raise stage.source.line.error(
                f"the build context '{name}' is a folder, which cannot be a base image",
                framed=False,
                help=f"FROM scratch, then COPY --from={name} / /",
            )
        args: dict[str, str] = {}
        if base is not None:
            result = await self._finished(base)
            state, chain = result.state.child(), list(result.chain)
            args = dict(result.scope.args)
        elif context == SCRATCH:
            platform = self._platform(stage) or self._target_platform
            state = ImageState.scratch(platform.os, platform.architecture, platform.variant)
            chain = []
        else:
            image = await self._image(context, self._platform(stage), stage.source)
            state, chain = ImageState.from_document(image.config.raw), list(image.chain_ids)
        state.epoch = self._epoch()
        return StageRun(
            services=self,
            stream=self.stream.stage(stage.index),
            index=stage.index,
            state=state,
            scope=StageScope(self._scope, {**args, **state.environment()}, args),
            chain=chain,
        )

    def _epoch(self) -> str:
        text = self._scope.given.get("SOURCE_DATE_EPOCH", "")
        if not text:
            return ""
        try:
            return rfc3339(int(text))
        except ValueError as error:
            raise InvalidArgument(
                f"SOURCE_DATE_EPOCH is no number of seconds: '{text}'", code="dockerfile"
            ) from error

    def _platform(self, stage: Stage) -> Platform | None:
        """Of the base image; None if nothing was asked."""
        text = expanded(stage.source, stage.source.platform, self._scope.values).text
        if not text:
            return self._target_platform if self.request.platform else None
        try:
            return normalize_platform(parse_platform(text))
        except InvalidArgument as error:
            raise stage.source.line.error(
                f"failed to parse platform {text}: {error.message}", framed=False
            ) from error

    async def origin(self, name: str, instruction: ins.Instruction, stage_index: int) -> Tree | str:
        """What ``from`` names: a named context, or the top layer of a stage (built if need be) or image."""
        context = self.contexts.get(name.lower())
        if isinstance(context, Tree):
            return context
        stage = self._source_stage(name, instruction, stage_index) if context is None else None
        if stage is not None:
            return (await self._finished(stage)).top
        image = await self._image(context or name, None, instruction)
        return image.chain_ids[-1] if image.chain_ids else ""

    async def once(
        self, key: str, make: Callable[[], Awaitable[StepRecord]], *, index: int, step: str
    ) -> tuple[StepRecord, bool]:
        """A step of a stage: its result, and whether that came from the cache."""
        record, cached = await self.layers.once(
            key,
            make,
            use_cache=self.uses_cache(index),
            sources=self.cache_sources,
            step=step,
        )
        self.note(key, record)
        return record, cached

    def note(self, key: str, record: StepRecord) -> None:
        """This build has used a record."""
        self.used[key] = record
        if record.also:
            self.used[record.also] = attrs.evolve(record, also="")

    def finished_stages(self) -> list[CarriedStage]:
        """The stages that were built and have layers, the target last."""
        target = self.dockerfile.target(self.request.target).index
        order = sorted(self._tasks, key=lambda index: (index == target, index))
        results = [result for index in order if (result := self._tasks[index].result) is not None]
        return [
            CarriedStage(state=result.state, chain=result.chain)
            for result in results
            if result.chain or result is results[-1]
        ]

    def uses_cache(self, stage_index: int) -> bool:
        """Whether the steps of a stage may be taken from the cache."""
        if self.request.no_cache:
            return False
        name = self.dockerfile.stages[stage_index].source.name
        return not name or name not in {stage.lower() for stage in self.request.no_cache_stages}

    # Images

    async def _image(
        self, name: str, platform: Platform | None, instruction: ins.Instruction
    ) -> Image:
        """An image of this machine; pulled when missing, or when asked."""
        key = (name, str(platform or ""))
        # One at a time: two stages on one base must not pull it twice.
        async with self._image_lock:
            if key not in self._images:
                self._images[key] = await self._find_image(name, platform, instruction)
            return self._images[key]

    async def _find_image(
        self, name: str, platform: Platform | None, instruction: ins.Instruction
    ) -> Image:
        with self.stream.work(f"[internal] load metadata for {_full_name(name)}"):
            return await self._found_image(name, platform, instruction)

    async def _found_image(
        self, name: str, platform: Platform | None, instruction: ins.Instruction
    ) -> Image:
        images = self.host.engine.images
        if not self.request.pull:
            try:
                image = images.inspect(name)
            except NotFound:
                pass
            else:
                if platform is None or normalize_platform(image.config.platform) == platform:
                    return image
        try:
            reference = parse_reference(name).with_default_tag()
        except InvalidArgument as error:
            raise instruction.line.error(
                f"failed to parse {name}: {error.message}", framed=False
            ) from error
        return await images.pull(
            str(reference),
            credentials=await login_of(self.request, reference.domain),
            platform=str(platform or ""),
            progress=self.stream.send,
        )

    def bases(self) -> tuple[BaseImage, ...]:
        """The images that went into it, as far as they were needed."""
        return tuple(
            BaseImage(
                name=name,
                image_id=image.id,
                digest=_manifest_digest(name, image),
                platform=image.config.platform,
            )
            for (name, _), image in self._images.items()
        )

    def count_step(self, *, cached: bool) -> None:
        """One more step is done."""
        self.steps += 1
        self.cached_steps += cached


def _full_name(name: str) -> str:
    """With domain and tag."""
    try:
        return str(parse_reference(name).with_default_tag())
    except InvalidArgument:
        return name  # it is named by its id, or wrong


def _manifest_digest(name: str, image: Image) -> str:
    """That under which a registry has an image; empty if it never was in one."""
    found = {text.partition("@")[0]: text.partition("@")[2] for text in image.repo_digests}
    try:
        named = found.get(parse_reference(name).familiar_name, "")
    except InvalidArgument:
        named = ""  # it is named by its id
    return named or next(iter(found.values()), "")


def global_scope(request: BuildRequest, dockerfile: Dockerfile) -> GlobalScope:
    """The arguments of a build.

    Raises:
        DockerfileError: A default cannot be expanded.
    """
    given = {name: value for name, value in request.args.items() if value is not None}
    host = normalize_platform(host_platform())
    predefined = platform_args(_target_platform(request), host, request.target)
    return GlobalScope(given, predefined, dockerfile.global_args)


def _target_platform(request: BuildRequest) -> Platform:
    host = normalize_platform(host_platform())
    if not request.platform:
        return host
    return normalize_platform(parse_platform(request.platform, host=host))
