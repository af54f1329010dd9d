"""``linkspan workflow lint``."""

import gc
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.common import key_values
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session, print_json
from linkspan.sdk.diagnostics import Diagnostic, render_all
from linkspan.sdk.files import replace_file
from linkspan.sdk.units import counted, format_duration
from linkspan.workflows.check import MAX_SHOWN
from linkspan.workflows.commands.completing import complete_pipelines
from linkspan.workflows.commands.reading import checked, find_all, installed, read
from linkspan.workflows.commands.shared import use_option
from linkspan.workflows.mending import mend
from linkspan.workflows.parse import ParseFailed, decode
from linkspan.workflows.reports import as_github, as_json, as_sarif
from linkspan.workflows.verbs import Verbs

_BOM: Final = b"\xef\xbb\xbf"


@command(
    "lint",
    "Say everything that is wrong with pipelines, running nothing.",
    examples=[
        "linkspan workflow lint",
        "linkspan workflow lint release.yaml --fix",
        "linkspan workflow lint --format github",
    ],
    formats=["github", "sarif"],
    more=["linkspan explain", "linkspan workflow plan", "linkspan workflow schema"],
)
@click.argument("files", nargs=-1, metavar="[FILE]...", shell_complete=complete_pipelines)
@click.option("--fix", is_flag=True, help="Mend what is safe; all else stays as it is")
@use_option
def lint(session: Session, files: tuple[str, ...], fix: bool, use: tuple[str, ...]) -> int:
    """Check pipelines."""
    began = time.monotonic()
    # All that is made here lives until the end: there is nothing to collect.
    gc.disable()
    paths = find_all(files)
    verbs = installed()
    chosen = key_values(use, "--use")
    found: list[Diagnostic] = []
    mended = 0
    for path in paths:
        data = read(path)
        if fix:
            count, left = _mended(path, data, verbs, chosen)
            mended += count
            found += left
        else:
            found += checked(path, data, verbs, chosen).diagnostics
    _print(session, found)
    if session.format in ("", "table"):
        took = format_duration(time.monotonic() - began)
        session.terminal.note(f"{_words(found, mended, len(paths), fix=fix)}  {took}")
    return USAGE if any(d.severity == "error" for d in found) else 0


def _print(session: Session, found: Sequence[Diagnostic]) -> None:
    terminal = session.terminal
    if session.format == "sarif":
        print_json(terminal, as_sarif(found, version("linkspan-workflows")))
    elif session.format == "github":
        for line in as_github(found):
            terminal.print(line)
    elif not session.document([as_json(d) for d in found], default="table"):
        for line in render_all(found[:MAX_SHOWN]).splitlines():
            terminal.print(line)


def _words(found: Sequence[Diagnostic], mended: int, files: int, *, fix: bool) -> str:
    errors = sum(d.severity == "error" for d in found)
    warnings = len(found) - errors
    parts = [f"{mended} mended"] if mended else []
    parts += [counted(errors, "error", none="no")] if errors or not warnings else []
    parts += [counted(warnings, "warning")] if warnings else []
    words = f"{', '.join(parts)} in {counted(files, 'file', none='no')}"
    if len(found) > MAX_SHOWN:
        words += f"; the first {MAX_SHOWN} are shown"
    able = sum(bool(d.edits) for d in found)
    if able and not fix:
        some = "can be mended" if able == len(found) else f"{able} can be mended"
        words += f"; {some}: linkspan workflow lint --fix"
    return words


def _mended(
    path: Path, data: bytes, verbs: Verbs, use: Mapping[str, str]
) -> tuple[int, Sequence[Diagnostic]]:
    """Mend a file; how many faults, and those that are left."""
    try:
        text = decode(data, str(path))
    except ParseFailed as failed:
        return 0, failed.diagnostics
    result = mend(text, str(path), lambda new: checked(path, new.encode(), verbs, use).diagnostics)
    if result.done:
        bom = _BOM if data.startswith(_BOM) else b""
        _replace(path, bom + result.text.encode())
    return len(result.done), result.left


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it is the old or the new one at any moment; a link stays a link."""
    target = path.resolve()
    try:
        mode = target.stat().st_mode & 0o7777
        replace_file(target, data, mode, durable=True)
    except OSError as error:
        raise Failure(f"'{path}' cannot be written: {error.strerror}") from error
