"""``linkspan explain``: what an error means, an example of it, and how to mend it. Offline."""

import re
from importlib import resources
from typing import Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.sdk.diagnostic_ids import IDS

_FILE: Final = "explanations.md"
_HEADING: Final = re.compile(r"^## (LS\d{4})$", re.MULTILINE)
_ID: Final = re.compile(r"(?:LS)?(\d{1,4})", re.IGNORECASE)


def explanations() -> dict[str, str]:
    """The text of each id, without its heading."""
    text = resources.files("linkspan.core.cli").joinpath(_FILE).read_text("utf-8")
    parts = _HEADING.split(text)[1:]
    return {id_: body.strip() for id_, body in zip(parts[::2], parts[1::2], strict=True)}


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [id_ for id_ in IDS if id_.startswith(incomplete.upper())]


@command(
    "explain",
    "Say what an error means, with an example and its mending; without an id, list all.",
    examples=["linkspan explain LS1202", "linkspan explain 1202", "linkspan explain"],
    more=["linkspan workflow lint", "linkspan config check"],
)
@click.argument("id_", metavar="[ID]", required=False, shell_complete=_complete)
def explain(session: Session, id_: str | None) -> int:
    """Explain an error."""
    if id_ is None:
        rows = [{"id": each, "meaning": meaning} for each, meaning in IDS.items()]
        session.rows(
            rows,
            lambda row: {"ID": row["id"], "Meaning": row["meaning"]},
            lambda row: [row["id"], row["meaning"]],
            ["ID", "MEANING"],
        )
        return 0
    found = _known(id_)
    text = explanations()[found]
    record = {"id": found, "meaning": IDS[found], "text": text}
    if not session.document(record, default="table"):
        session.terminal.print(f"{found}: {IDS[found]}\n")
        for line in _plain(text):
            session.terminal.print(line)
    return 0


def _known(id_: str) -> str:
    match = _ID.fullmatch(id_.strip())
    found = f"LS{int(match[1]):04d}" if match else ""
    if found in IDS:
        return found
    # Ids are told apart by numbers, and a mistyped one is seldom near in letters.
    family = [each for each in IDS if each[:4] == found[:4]]
    listed = ", ".join(family) if family else "linkspan explain    lists all"
    raise Failure(f"there is no error '{id_}'", id="LS0004", status=USAGE, helps=[listed])


def _plain(text: str) -> list[str]:
    """The text for a terminal: code blocks are indented, their fences left out."""
    lines: list[str] = []
    in_code = False
    for line in text.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        else:
            lines.append(f"    {line}".rstrip() if in_code else line)
    return lines
