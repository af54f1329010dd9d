"""The entry point ``linkspan``.

Only what every command needs is imported here. attrs, cattrs, h11, trio, yaml, stevedore, rich and
importlib.metadata are not: a test watches over ``ps`` and ``--help``.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

import click
from click.exceptions import Abort, Exit, NoArgsIsHelpError

from linkspan.core.cli.command import EVERYWHERE, Group, Row, session_of
from linkspan.core.cli.failure import (
    FAILED,
    INTERRUPTED,
    READER_GONE,
    USAGE,
    Failure,
    of_error,
)
from linkspan.core.cli.session import Session
from linkspan.core.cli.table import ROWS
from linkspan.sdk.errors import LinkspanError

_PROGRAM: Final = "linkspan"
_COMPLETE_VARIABLE: Final = "_LINKSPAN_COMPLETE"


def _plugin_rows(ctx: click.Context) -> Sequence[Row]:
    """Commands from the manifests of plugins; read from a cache, nothing of a plugin is imported."""
    from linkspan.core.cli.manifests import plugin_commands

    return plugin_commands(session_of(ctx).config)


class Root(Group):
    """``linkspan`` itself: the static table first, plugins' commands where it has no answer."""

    def __init__(self) -> None:
        super().__init__(_PROGRAM, (), lambda: ROWS, "Containers and pipelines, from plugins.")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command of the table, else one of a plugin."""
        found = super().get_command(ctx, cmd_name)
        if found is not None or cmd_name.startswith("-"):
            return found
        rows = _plugin_rows(ctx)
        return Group(_PROGRAM, (), lambda: rows, "").get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All words that may follow."""
        return list(dict.fromkeys([*super().list_commands(ctx), *_first_words(_plugin_rows(ctx))]))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One screen: sections of words."""
        formatter.write_usage(_PROGRAM, "[OPTIONS] COMMAND …")
        sections: dict[str, list[str]] = {}
        for row in ROWS:
            words = row.words.split()
            if len(words) == 1 and row.section:
                sections.setdefault(row.section, []).append(row.words)
        nouns: dict[str, list[str]] = {}
        for row in [*ROWS, *_plugin_rows(ctx)]:
            noun, _, verb = row.words.partition(" ")
            if verb:
                nouns.setdefault(noun, []).append(verb)
        formatter.write_paragraph()
        formatter.write_dl([(name, " ".join(words)) for name, words in sections.items()])
        formatter.write_paragraph()
        formatter.write_dl([(noun, " ".join(verbs)) for noun, verbs in nouns.items()])
        formatter.write_paragraph()
        with formatter.section("Start here"):
            formatter.write_dl(
                [
                    ("linkspan doctor", "what this machine lacks"),
                    ("linkspan run --rm -it IMAGE sh", "a container with a terminal"),
                    ("linkspan COMMAND --help", "examples and options"),
                ]
            )
        formatter.write_paragraph()
        formatter.write_text(f"Options: {EVERYWHERE} --version")

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,
    ) -> NoReturn:
        """Run a command line and exit with its status."""
        words = list(sys.argv[1:] if args is None else args)
        if _COMPLETE_VARIABLE in os.environ:
            self._main_shell_completion(extra, _PROGRAM, _COMPLETE_VARIABLE)
        session = Session()
        status = self._run(words, session)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BrokenPipeError:
            status = _reader_gone()
        sys.exit(status)

    def _run(self, words: list[str], session: Session) -> int:
        try:
            with self.make_context(_PROGRAM, words.copy(), obj=session) as ctx:
                result = self.invoke(ctx)
        except Exit as exc:
            return exc.exit_code
        except (KeyboardInterrupt, Abort):
            return INTERRUPTED
        except BrokenPipeError:
            return _reader_gone()
        except NoArgsIsHelpError as exc:
            click.echo(exc.ctx.get_help())
            return 0 if not words else USAGE
        except click.ClickException as exc:
            return _report(_of_usage(exc, words), session, exc)
        except Failure as exc:
            return _report(exc, session, exc)
        except LinkspanError as exc:
            return _report(of_error(exc), session, exc)
        except Exception as exc:
            if session.verbose:
                raise
            return _report(_of_bug(exc), session, exc)
        return result if isinstance(result, int) else 0


def _first_words(rows: Iterable[Row]) -> list[str]:
    return [row.words.split()[0] for row in rows]


def _report(failure: Failure, session: Session, cause: BaseException) -> int:
    try:
        if session.verbose:
            import traceback

            traceback.print_exception(cause, file=sys.stderr)
        session.terminal.error(failure.render())
    except BrokenPipeError:
        return _reader_gone()
    return failure.status


def _reader_gone() -> int:
    """The reader of our output has left: be silent, and keep the interpreter from complaining."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return READER_GONE


def _of_bug(exc: Exception) -> Failure:
    return Failure(
        f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__,
        id="LS0001",
        status=FAILED,
        notes=[("note", "this is a fault of linkspan itself")],
        helps=["the same command with --verbose shows where"],
    )


def _of_usage(exc: click.ClickException, words: list[str]) -> Failure:
    line = " ".join([_PROGRAM, *words])
    path = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else _PROGRAM
    help_line = f"{path} --help"
    if isinstance(exc, click.NoSuchOption):
        choices = _options(exc.ctx)
        hint = _nearest(exc.option_name, choices)
        return Failure(
            f"`{path}` has no option {exc.option_name}",
            id="LS0003",
            status=USAGE,
            line=line,
            mark=_mark(line, exc.option_name),
            helps=[hint or help_line],
        )
    if isinstance(exc, click.exceptions.NoSuchCommand):
        word = exc.command_name
        group = exc.ctx.command if exc.ctx else None
        known = group.list_commands(exc.ctx) if isinstance(group, click.Group) and exc.ctx else []
        return Failure(
            f"`{path}` has no command {word}",
            id="LS0002",
            status=USAGE,
            line=line,
            mark=_mark(line, word),
            helps=[_nearest(word, known) or help_line],
        )
    message = exc.format_message()
    return Failure(
        f"{message[:1].lower()}{message[1:]}".rstrip("."),
        id="LS0004",
        status=USAGE,
        helps=[help_line],
    )


def _options(ctx: click.Context | None) -> list[str]:
    if ctx is None:
        return []
    return [name for param in ctx.command.get_params(ctx) for name in param.opts]


def _nearest(word: str, choices: Iterable[str]) -> str:
    from difflib import get_close_matches  # takes longer than a command that is right may

    found = get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"did you mean `{found[0]}`?" if found else ""


def _mark(line: str, word: str) -> tuple[int, int]:
    """Where a word stands in the command line."""
    at = 0
    for part in line.split(" "):
        if part == word or part.startswith(f"{word}="):
            return at, len(word)
        at += len(part) + 1
    return max(0, line.find(word)), len(word)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from linkspan.core.cli.system import client_version

        click.echo(f"linkspan {client_version()}")
        ctx.exit()


cli = Root()
cli.params.append(
    click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_print_version
    )
)


def main() -> NoReturn:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        cli.main()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        # All is written and closed; taking the interpreter down would be a tenth of a short command's time.
        os._exit(end.code)
