"""What runs in a container, told by the host's ``ps`` (as Docker does, moby daemon/top_unix.go)."""

import shlex

from linkspan.sdk.errors import Internal, InvalidArgument, Unsupported
from linkspan.sdk.programs import run_program


async def list_processes(arguments: str, pids: frozenset[int]) -> tuple[list[str], list[list[str]]]:
    """Run ``ps`` and keep the rows of some processes.

    Returns:
        Titles and rows.

    Raises:
        InvalidArgument: ``ps`` does not understand the arguments, or prints no PID column.
        Unsupported: There is no ``ps``.
    """
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise InvalidArgument(f"invalid ps arguments: {error}") from error
    try:
        done = await run_program(["ps", *words])
    except FileNotFoundError as error:
        raise Unsupported("there is no program 'ps'", help="apt-get install procps") from error
    if done.status:
        said = done.errors.decode(errors="replace").strip() or "no reason given"
        raise InvalidArgument(f"ps: {said.splitlines()[0]}")
    return parse_ps(done.output.decode(errors="replace"), pids)


def parse_ps(output: str, pids: frozenset[int]) -> tuple[list[str], list[list[str]]]:
    """Split the table that ``ps`` prints; the last column keeps its blanks."""
    lines = output.splitlines()
    if not lines:
        raise Internal("ps printed nothing")
    titles = lines[0].split()
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    at = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > at and fields[at].isdecimal() and int(fields[at]) in pids:
            rows.append(fields)
    return titles, rows
