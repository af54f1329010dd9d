"""``--change`` of commit and import: instructions that alter a config, without a build."""

import copy
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Final

from linkspan.plugins.dockerfile_builder import instructions as ins
from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.image_config import ImageState, parse_ports
from linkspan.plugins.dockerfile_builder.instruction_parser import parse_instruction
from linkspan.plugins.dockerfile_builder.parser import Line, parse_lines
from linkspan.plugins.dockerfile_builder.variables import expanded
from linkspan.sdk.errors import InvalidArgument

_ALLOWED: Final = (
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
)


def change_config(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A config section with instructions applied in order; variables are those of its ``Env``.

    Raises:
        InvalidArgument: Another instruction, or one that is wrong.
    """
    state = ImageState(document={"config": copy.deepcopy(dict(config))}, diff_ids=[], history=[])
    try:
        _change(state, changes)
    except DockerfileError as error:
        # There is no file whose lines could be named.
        raise InvalidArgument(
            error.text.partition("dockerfile parse error on line ")[2].partition(": ")[2]
            or error.text,
            code=error.code,
        ) from error
    return state.config


def _change(state: ImageState, changes: Sequence[str]) -> None:
    for line in _lines(changes):
        if line.keyword not in _ALLOWED:
            raise InvalidArgument(
                f"{line.keyword} is not a valid change command",
                code="bad_change",
                help=f"changes may be: {' '.join(_ALLOWED)}",
            )
        _apply(state, parse_instruction(line))


def _lines(changes: Sequence[str]) -> Sequence[Line]:
    if not any(change.strip() for change in changes):
        return ()
    return parse_lines("\n".join(changes), "change").lines


def _apply(state: ImageState, instruction: ins.Instruction) -> None:
    values = state.environment()

    def text(word: str) -> str:
        return expanded(instruction, word, values).text

    match instruction:
        case ins.Cmd():
            state.set_command(_argv(state, instruction.command))
        case ins.Entrypoint():
            state.set_entrypoint(_argv(state, instruction.command))
        case ins.Env():
            for pair in instruction.pairs:
                state.set_env(text(pair.key), text(pair.value))
        case ins.Label():
            state.set_labels({text(pair.key): text(pair.value) for pair in instruction.pairs})
        case ins.Expose():
            words = tuple(
                word
                for port in instruction.ports
                for word in expanded(instruction, port, values).words
            )
            try:
                state.add_to_set("ExposedPorts", parse_ports(words))
            except ValueError as error:
                raise instruction.line.error(str(error), framed=False) from error
        case ins.Healthcheck():
            state.set_healthcheck(instruction)
        case ins.Onbuild():
            state.add_trigger(instruction.expression)
        case ins.StopSignal():
            state.config["StopSignal"] = text(instruction.value)
        case ins.User():
            state.config["User"] = text(instruction.value)
        case ins.Volume():
            state.add_to_set("Volumes", tuple(map(text, instruction.paths)))
        case ins.Workdir():
            joined = posixpath.join(state.working_dir, text(instruction.path))
            state.config["WorkingDir"] = "/" + posixpath.normpath(joined).lstrip("/")
        case _:
            raise AssertionError(instruction)


def _argv(state: ImageState, command: ins.Command) -> tuple[str, ...]:
    if not command.shell_form:
        return command.words
    return (*state.shell, *(command.words or ("",)))
