"""Blocks of commands in guides: which a test runs, and which are marked as not to be run.

A block is run unless the line before its fence is ``<!-- not run: WHY -->``, which the built page does not show. A
command stands behind ``$`` or ``#``; what it prints follows and is not compared, but for the sign of a failure.
"""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import pytest

from daemon_harness.daemon import ROOT

GUIDES: Final = [*sorted(ROOT.glob("docs/tutorial/*.md")), *sorted(ROOT.glob("docs/how-to/*.md"))]
_BLOCK: Final = re.compile(
    r"^(?:<!-- not run: (?P<why>[^>]+) -->\n)?```(?:console|sh|bash)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FAILED: Final = re.compile(r"^✗ ", re.MULTILINE)
_TIMEOUT_S: Final = 150


@attrs.frozen
class Command:
    """One command of a page.

    Attributes:
        text: For a shell; a line that ends with a backslash goes on.
        fails: The page shows that it fails.
    """

    text: str
    fails: bool


@attrs.frozen
class Block:
    """A block of a page; ``why`` says why it is not run, if it is not."""

    page: Path
    text: str
    why: str

    def commands(self) -> Iterator[Command]:
        """Its commands, in their order."""
        for part in re.split(r"^[$#] ", self.text, flags=re.MULTILINE)[1:]:
            lines = part.splitlines(keepends=True)
            count = next((n for n, line in enumerate(lines, 1) if not line.endswith("\\\n")), 0)
            shown = "".join(lines[count:])
            yield Command("".join(lines[:count]), _FAILED.search(shown) is not None)


def blocks(page: Path) -> list[Block]:
    """All blocks of commands of a page."""
    found = _BLOCK.finditer(page.read_text())
    return [Block(page, match["text"], match["why"] or "") for match in found]


def run_page(
    page: Path,
    environment: Mapping[str, str],
    folder: Path,
    as_here: Callable[[str, str], str],
) -> str:
    """Run what a page says, block after block; all that was said.

    Args:
        folder: The working directory.
        as_here: Makes a page's command one for this machine; it gets what was said before, too.
    """
    said = ""
    for block in blocks(page):
        if block.why:
            continue
        for command in block.commands():
            text = as_here(command.text, said)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=dict(environment),
                cwd=folder,
                timeout=_TIMEOUT_S,
                check=False,
            )
            told = f"{page.name}: `{text.strip()}`\n{done.stdout}{done.stderr}"
            if (done.returncode != 0) != command.fails:
                pytest.fail(f"ended with {done.returncode}: {told}")
            said += told
    return said
