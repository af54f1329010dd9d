"""From the lines of a Dockerfile to its stages, and which of them a build needs."""

import attrs

from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.instruction_parser import parse_instruction
from linkspan.plugins.dockerfile_builder.instructions import (
    Arg,
    From,
    Instruction,
)
from linkspan.plugins.dockerfile_builder.parser import parse_lines


@attrs.frozen(kw_only=True)
class Stage:
    """One FROM and what follows it.

    Attributes:
        index: Position among all stages, from 0.
    """

    index: int
    source: From
    instructions: tuple[Instruction, ...]

    @property
    def title(self) -> str:
        """The name, or ``stage-N``."""
        return self.source.name or f"stage-{self.index}"


@attrs.frozen(kw_only=True)
class Dockerfile:
    """A whole file, read but not expanded.

    Attributes:
        global_args: ARG before the first FROM.
        warnings: Sentences for the author.
    """

    file: str
    text: str = attrs.field(repr=False)
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str
    syntax: str
    check: str
    warnings: tuple[str, ...]
    empty_continuations: tuple[int, ...] = ()

    def stage_named(self, name: str, before: int | None = None) -> Stage | None:
        """The last stage of that name (case is ignored), among those before an index."""
        wanted = name.lower()
        for stage in reversed(self.stages[:before]):
            if stage.source.name == wanted:
                return stage
        return None

    def target(self, name: str) -> Stage:
        """The stage that a build ends with; the last one when no name is given.

        Raises:
            DockerfileError: There is no such stage.
        """
        if not name:
            return self.stages[-1]
        found = self.stage_named(name)
        if found is None and name.isdecimal() and int(name) < len(self.stages):
            found = self.stages[int(name)]
        if found is None:
            raise DockerfileError(f'target stage "{name}" could not be found', file=self.file)
        return found


def parse_dockerfile(text: str, file: str = "Dockerfile") -> Dockerfile:
    """Read a Dockerfile.

    Raises:
        DockerfileError: It cannot be read; the error names file and line.
    """
    lines = parse_lines(text, file)
    global_args: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in lines.lines:
        instruction = parse_instruction(line)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            raise line.error("no build stage in current context", framed=False)
    if not stages:
        raise DockerfileError("dockerfile contains no stages to build", file=file)
    return Dockerfile(
        file=file,
        text=text,
        global_args=tuple(global_args),
        stages=tuple(
            Stage(index=index, source=source, instructions=tuple(instructions))
            for index, (source, instructions) in enumerate(stages)
        ),
        escape=lines.escape,
        syntax=lines.syntax,
        check=lines.check,
        warnings=lines.warnings,
        empty_continuations=lines.empty_continuations,
    )
