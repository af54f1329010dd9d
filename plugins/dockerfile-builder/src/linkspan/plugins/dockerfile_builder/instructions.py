"""The instructions of a Dockerfile as values, before variables are expanded.

One class each; :func:`~.instruction_parser.parse_instruction` makes them.
"""

from collections.abc import Iterator

import attrs

from linkspan.plugins.dockerfile_builder.mount_option import reads_context, source_of
from linkspan.plugins.dockerfile_builder.parser import (
    Heredoc,
    Line,
)


@attrs.frozen(kw_only=True)
class Instruction:
    """What all instructions share: where they stand."""

    line: Line = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Pair:
    """``name=value`` as written; ``legacy`` for the form ``name rest of the line``."""

    key: str
    value: str
    legacy: bool = False


@attrs.frozen(kw_only=True)
class Command:
    """Words of RUN, CMD, ENTRYPOINT or HEALTHCHECK.

    Attributes:
        words: argv in exec form; in shell form one text, or none when nothing was written.
    """

    words: tuple[str, ...]
    shell_form: bool


@attrs.frozen(kw_only=True)
class From(Instruction):
    """``FROM [--platform=P] base [AS name]``; ``name`` in lower case, empty if not given."""

    base: str
    name: str = ""
    platform: str = ""
    written_as: str = ""
    written_name: str = ""


@attrs.frozen(kw_only=True)
class Run(Instruction):
    """``RUN``; ``network`` is ``default``, ``none`` or ``host``.

    Attributes:
        mounts: Texts of ``--mount``, not expanded.
    """

    command: Command
    network: str = "default"
    mounts: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Cmd(Instruction):
    """``CMD``."""

    command: Command


@attrs.frozen(kw_only=True)
class Entrypoint(Instruction):
    """``ENTRYPOINT``."""

    command: Command


@attrs.frozen(kw_only=True)
class Label(Instruction):
    """``LABEL``."""

    pairs: tuple[Pair, ...]


@attrs.frozen(kw_only=True)
class Env(Instruction):
    """``ENV``."""

    pairs: tuple[Pair, ...]


@attrs.frozen(kw_only=True)
class Maintainer(Instruction):
    """``MAINTAINER``."""

    value: str


@attrs.frozen(kw_only=True)
class Expose(Instruction):
    """``EXPOSE``; the words sorted, still to be expanded."""

    ports: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Transfer(Instruction):
    """What COPY and ADD share.

    Attributes:
        inline: Documents that stand in the Dockerfile itself; they are sources too.
        chown: ``user[:group]``; empty if not given.
        chmod: Octal or symbolic; empty if not given.
        parents: Keep the source path below the destination.
        exclude: Patterns in the manner of ``.dockerignore``.
        link: Accepted; the files are copied the ordinary way, see docs/reference/dockerfile.md.
    """

    sources: tuple[str, ...]
    dest: str
    inline: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    parents: bool = False
    link: bool = False
    exclude: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Copy(Transfer):
    """``COPY``; ``source`` is the value of ``--from``, empty for the build context."""

    source: str = ""


@attrs.frozen(kw_only=True)
class Add(Transfer):
    """``ADD``; ``unpack`` is None when not given, which unpacks local archives."""

    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@attrs.frozen(kw_only=True)
class Volume(Instruction):
    """``VOLUME``."""

    paths: tuple[str, ...]


@attrs.frozen(kw_only=True)
class User(Instruction):
    """``USER``."""

    value: str


@attrs.frozen(kw_only=True)
class Workdir(Instruction):
    """``WORKDIR``."""

    path: str


@attrs.frozen(kw_only=True)
class Arg(Instruction):
    """``ARG``; a value of None means that none was written."""

    args: tuple[tuple[str, str | None], ...]


@attrs.frozen(kw_only=True)
class Onbuild(Instruction):
    """``ONBUILD``; ``expression`` is the instruction without the keyword."""

    expression: str


@attrs.frozen(kw_only=True)
class StopSignal(Instruction):
    """``STOPSIGNAL``."""

    value: str


@attrs.frozen(kw_only=True)
class Healthcheck(Instruction):
    """``HEALTHCHECK``; ``test`` as in the image config, durations in ns with 0 for "inherit"."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@attrs.frozen(kw_only=True)
class Shell(Instruction):
    """``SHELL``."""

    shell: tuple[str, ...]


def may_read_context(instruction: Instruction) -> bool:
    """Whether an instruction may need the build context."""
    match instruction:
        case Copy():
            return not instruction.source and bool(instruction.sources)
        case Add():
            return bool(instruction.sources)
        case Run():
            return any(reads_context(mount) for mount in instruction.mounts)
        case _:
            return False


def source_names(instruction: Instruction) -> Iterator[str]:
    """Stages, contexts or images that an instruction reads from."""
    if isinstance(instruction, Copy) and instruction.source:
        yield instruction.source
    if isinstance(instruction, Run):
        yield from filter(None, map(source_of, instruction.mounts))
