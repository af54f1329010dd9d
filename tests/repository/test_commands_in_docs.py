"""Command lines in guides are ones that exist: each is parsed by the command line itself."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from daemon_harness.pages import GUIDES, blocks

from linkspan.core.cli.root import cli

FOLLOWED = {"first-voyage.md", "registry.md"}
"""By tests/system/test_guides_run.py, as they are written."""
LINE = re.compile(r"^(?: {4})?(?:\$ )?(?:.*\| )?((?:sudo )?linkspan .*)$", re.MULTILINE)


def lines() -> Iterator[tuple[str, str]]:
    """Page and command line, from fenced and indented blocks; what a shell adds is cut off."""
    for page in GUIDES:
        text = page.read_text()
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        blocks += re.findall(r"^(?: {4}\S.*\n)+", text, re.MULTILINE)
        for block in blocks:
            for match in LINE.finditer(block):
                words = re.split(r" [<>] | +# | && | {6}", match[1])[0]
                if "…" not in words:  # left open on purpose
                    yield page.name, words.removeprefix("sudo ").strip()


def parse(line: str) -> None:
    """Let the command line read it, as far as that is possible without doing it."""
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = cli.make_context("linkspan", words)
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group) and rest:
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context = found.make_context(name, rest, parent=context)
        command, rest = found, [*context._protected_args, *context.args]


def test_the_guides_have_command_lines() -> None:
    assert len(list(lines())) > 30


@pytest.mark.parametrize(("page", "line"), list(lines()), ids=lambda text: text[:60])
def test_a_command_line_of_a_guide_exists(page: str, line: str) -> None:
    try:
        parse(line)
    except click.exceptions.Exit:
        pass
    except click.ClickException as exc:
        pytest.fail(f"{page}: `{line}`: {exc.format_message()}")


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_each_block_of_a_guide_is_run_or_says_why_not(page: Path) -> None:
    to_run = [block for block in blocks(page) if not block.why]
    if page.name in FOLLOWED:
        assert any(list(block.commands()) for block in to_run)
    else:
        assert [block.text for block in to_run] == []
    assert page.read_text().count("<!-- not run:") == sum(bool(b.why) for b in blocks(page))
