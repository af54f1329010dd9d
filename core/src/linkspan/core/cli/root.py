"""``linkspan`` as a tree of click commands, and what click finds wrong in our words."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
from click.exceptions import Abort, Exit, NoArgsIsHelpError

from linkspan.core.cli.command import EVERYWHERE, Command, Group, Row, keep, lazily, session_of
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import COMPLETE_VARIABLE, Session
from linkspan.core.cli.table import ROWS

_PROGRAM: Final = "linkspan"


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
            known = nouns.setdefault(noun, []) if verb else []
            word = verb.partition(" ")[0]  # of `workflow secret set`, its own group says the rest
            if word not in known:
                known.append(word)
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


def _first_words(rows: Iterable[Row]) -> list[str]:
    return [row.words.split()[0] for row in rows]


def _of_usage(exc: click.ClickException, words: list[str]) -> Failure:
    line = " ".join([_PROGRAM, *words])
    path = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else _PROGRAM
    help_line = f"{path} --help"
    command = exc.ctx.command if isinstance(exc, click.UsageError) and exc.ctx else None
    status = command.usage_status if isinstance(command, Command) else USAGE
    if isinstance(exc, click.NoSuchOption):
        choices = _options(exc.ctx)
        hint = _nearest(exc.option_name, choices)
        return Failure(
            f"`{path}` has no option {exc.option_name}",
            id="LS0003",
            status=status,
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
        status=status,
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


def _keep_tls(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        session_of(ctx).tls[str(param.name).removeprefix("_")] = str(value)


def _as_docker() -> list[click.Option]:
    """Options that Docker's command line has in front of its commands."""

    def option(*names: str, **settings: Any) -> click.Option:
        return click.Option(list(names), expose_value=False, hidden=True, **settings)

    files = {"--tlscacert": "_ca", "--tlscert": "_cert", "--tlskey": "_key"}
    return [
        option("-v", "--version", is_flag=True, is_eager=True, callback=_print_version),
        option(
            "-c",
            "--context",
            "_context",
            callback=keep("context"),
            metavar="NAME",
            shell_complete=lazily("context"),
        ),
        option("-D", "--debug", "--verbose", "_verbose", is_flag=True, callback=keep("verbose")),
        option("--tls", "_tls", is_flag=True, callback=_keep_tls),
        option("--tlsverify", "_verify", is_flag=True, callback=_keep_tls),
        *(option(name, to, callback=_keep_tls, metavar="FILE") for name, to in files.items()),
    ]


cli = Root()
cli.params.extend(_as_docker())


def invoke(words: Sequence[str], session: Session) -> int:
    """Run a command line.

    Returns:
        The exit status.

    Raises:
        Failure: The words are wrong, or the command failed.
        LinkspanError: The command failed.
    """
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    try:
        with cli.make_context(_PROGRAM, list(words), obj=session) as ctx:
            result = cli.invoke(ctx)
    except Exit as exc:
        return exc.exit_code
    except Abort as exc:
        raise KeyboardInterrupt from exc
    except NoArgsIsHelpError as exc:
        click.echo(exc.ctx.get_help())
        return 0 if not words else USAGE
    except click.ClickException as exc:
        raise _of_usage(exc, list(words)) from exc
    return result if isinstance(result, int) else 0


def complete(instruction: str) -> int:
    """Answer a shell that asks what may follow; see ``linkspan completion``."""
    from click.shell_completion import shell_complete

    return shell_complete(cli, {}, _PROGRAM, COMPLETE_VARIABLE, instruction)
