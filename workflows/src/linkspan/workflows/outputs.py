"""What a step gives to others: what its script writes to ``$LINKSPAN_OUTPUT``, or what its plugin returns.

A script writes one output a line, ``name=value``; or, for text of several lines::

    notes<<END
    first
    second
    END
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from linkspan.sdk.errors import InvalidArgument, TooLarge
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.reader import NAME

MAX_BYTES: Final = 1024 * 1024


def read_outputs(path: Path) -> dict[str, str]:
    """The outputs in a file; none if it is not there. Blocks.

    Raises:
        TooLarge: More than 1 MiB.
        InvalidArgument: A line has neither form, or a name is not valid; code ``output``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    if len(data) > MAX_BYTES:
        raise TooLarge(
            f"the step wrote more than {MAX_BYTES} bytes of outputs",
            code="output",
            help="write large results to a file in the workspace",
        )
    return parse_outputs(data.decode("utf-8", "replace"))


def parse_outputs(text: str) -> dict[str, str]:
    """The outputs in a text; see the module.

    Raises:
        InvalidArgument: Code ``output``.
    """
    outputs: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if not line.strip():
            continue
        name, separator, value = line.partition("=")
        here, document, mark = line.partition("<<")
        if document and (not separator or len(here) < len(name)):
            outputs[_checked(here.strip(), number)] = _document(lines, mark.strip(), number)
        elif separator:
            outputs[_checked(name.strip(), number)] = value
        else:
            raise InvalidArgument(
                f"line {number} of $LINKSPAN_OUTPUT is neither name=value nor name<<END",
                code="output",
            )
    return outputs


def _checked(name: str, number: int) -> str:
    if NAME.fullmatch(name) is None:
        raise InvalidArgument(
            f"line {number} of $LINKSPAN_OUTPUT: '{name}' is not a name for an output",
            code="output",
            help="use letters, digits, '_' and '-', not beginning with a digit or '-'",
        )
    return name


def _document(lines: Iterator[tuple[int, str]], mark: str, number: int) -> str:
    found: list[str] = []
    for _, line in lines:
        if line == mark:
            return "\n".join(found)
        found.append(line)
    raise InvalidArgument(
        f"line {number} of $LINKSPAN_OUTPUT begins a text that does not end with '{mark}'",
        code="output",
    )


def plain_outputs(outputs: Mapping[str, Json], declared: Collection[str]) -> dict[str, Json]:
    """Outputs of a plugin as its manifest promises them, and as the journal can keep them.

    Raises:
        InvalidArgument: It gave one that its manifest does not name, or that is no JSON value; code
            ``output``.
        TooLarge: More than 1 MiB.
    """
    unknown = [name for name in outputs if name not in declared]
    if unknown:
        raise InvalidArgument(
            f"the plugin gave an output '{unknown[0]}' that its manifest does not name",
            code="output",
        )
    for name, value in outputs.items():
        check_recordable(value, f"the output '{name}'")
    return dict(outputs)


def check_recordable(value: Json, what: str) -> None:
    """Refuse what a plugin gives if the journal could not keep it.

    Args:
        value: What it is.
        what: For the message: ``the output 'id'``.

    Raises:
        InvalidArgument: It is no JSON value; code ``output``.
        TooLarge: More than 1 MiB as JSON.
    """
    try:
        size = len(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"the plugin gave something as {what} that is no JSON value: {error}", code="output"
        ) from error
    if size > MAX_BYTES:
        raise TooLarge(
            f"the plugin gave {size} bytes as {what}; {MAX_BYTES} are kept",
            code="output",
            help="a result of this size belongs in a file of the workspace",
        )
