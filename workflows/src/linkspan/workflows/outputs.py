"""What a script writes to ``$LINKSPAN_OUTPUT``.

One output a line, ``name=value``; or, for text of several lines::

    notes<<END
    first
    second
    END
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from linkspan.sdk.errors import InvalidArgument, TooLarge
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
