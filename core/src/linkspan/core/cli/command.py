"""click commands in our own words: help with examples first, global options everywhere."""

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import click

from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.quick import Setting, initial
from linkspan.core.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])
EVERYWHERE: Final = (
    "--host --context --config --format -q/--quiet --color --progress --verbose --timeout -h/--help"
)


class Row(NamedTuple):
    """One command of the table.

    Attributes:
        words: ``container ls``.
        run: ``module:attribute`` of a click command; imported when it is called.
        summary: One line for listings.
        section: Heading in ``linkspan --help``; empty for words that are listed under their noun only.
    """

    words: str
    run: str
    summary: str
    section: str = ""


def load(target: str) -> click.Command:
    """Import the click command of a row."""
    module, _, attribute = target.partition(":")
    found: click.Command = getattr(importlib.import_module(module), attribute)
    return found


def session_of(ctx: click.Context) -> Session:
    """The session of this call; made at the root."""
    return ctx.ensure_object(Session)


pass_session = click.make_pass_decorator(Session, ensure=True)


def keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """The callback of an option that stores itself in the session."""

    def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value is not None and value is not False and not ctx.resilient_parsing:
            setattr(session_of(ctx), name, value)

    return callback


class Seconds(click.ParamType[float]):
    """A duration: ``30s``, ``1m30s``; a bare number means seconds, as in Docker."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        from linkspan.sdk.errors import InvalidArgument
        from linkspan.sdk.units import parse_duration

        text = str(value)
        try:
            return float(text)
        except ValueError:
            pass
        try:
            return parse_duration(text)
        except InvalidArgument as exc:
            self.fail(f"{exc.message} ({exc.help})", param, ctx)


class Size(click.ParamType[int]):
    """A number of bytes: ``64m``, ``2g``."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        from linkspan.sdk.errors import InvalidArgument
        from linkspan.sdk.units import parse_size

        try:
            return int(value) if str(value) == "-1" else parse_size(str(value))
        except InvalidArgument as exc:
            self.fail(f"{exc.message} ({exc.help})", param, ctx)


class Platform(click.ParamType[dict[str, str]]):
    """A platform as the API wants it: ``linux/arm64/v8``."""

    name = "platform"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, str]:
        """Its parts."""
        if isinstance(value, dict):
            return value
        texts = str(value).split("/")
        if not 2 <= len(texts) <= 3 or not all(texts):
            self.fail(f"'{value}' is not of the form OS/ARCH[/VARIANT]", param, ctx)
        return dict(zip(("os", "architecture", "variant"), texts, strict=False))


def _complete_format(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """What every list can be shown as, and what this command can be besides."""
    own = ctx.command.formats if isinstance(ctx.command, Command) else ()
    return [
        each
        for each in ("table", "wide", "json", "jsonl", "yaml", *own)
        if each.startswith(incomplete)
    ]


def lazily(name: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """A completion of ``completing``, which is imported when it is asked for."""

    def finish(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        from linkspan.core.cli import completing

        return getattr(completing, name)(ctx, param, incomplete)

    return finish


def global_options() -> list[click.Option]:
    """The options that every command takes; each stores itself in the session."""

    def option(*names: str, store: str, **settings: Any) -> click.Option:
        return click.Option(
            [*names, f"_{store}"],
            expose_value=False,
            hidden=True,
            callback=keep(store),
            **settings,
        )

    progress = ["auto", "live", "plain", "json", "none"]
    return [
        option("-H", "--host", store="host", metavar="URL", help="unix:///…, tcp://…, ssh://…"),
        option(
            "--context",
            store="context",
            metavar="NAME",
            help="The daemon of this context",
            shell_complete=lazily("context"),
        ),
        option(
            "--config",
            store="config",
            metavar="FILE",
            help="Config file instead of the usual",
            shell_complete=lazily("files"),
        ),
        option(
            "--format",
            store="format",
            help="table, wide, docker, json, jsonl, yaml or a template",
            shell_complete=_complete_format,
        ),
        option("-q", "--quiet", store="quiet", is_flag=True, help="Ids only, no remarks"),
        option(
            "--color", store="color", type=click.Choice(["auto", "always", "never"]), help="Colours"
        ),
        option("--progress", store="progress", type=click.Choice(progress), help="How to show it"),
        option("--verbose", store="verbose", is_flag=True, help="Show details and tracebacks"),
        option("--timeout", store="timeout_s", type=Seconds(), help="For the daemon's first word"),
    ]


class Command(click.Command):
    """A command with examples and the global options.

    Attributes:
        examples: Command lines, without the prompt; shown before the options.
        formats: What ``--format`` may be here and nowhere else.
        usage_status: The exit status of wrong usage; 125 where any other may be that of a program.
    """

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str] = (),
        more: Sequence[str] = (),
        formats: Sequence[str] = (),
        usage_status: int = USAGE,
        context_settings: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        settings = {"help_option_names": ["-h", "--help"], **(context_settings or {})}
        kwargs["context_settings"] = settings
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.more = tuple(more)
        self.formats = tuple(formats)
        self.usage_status = usage_status
        self._all: list[click.Parameter] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its own parameters, help, and each global option whose name is free."""
        if self._all is None:
            own = super().get_params(ctx)
            taken = {name for param in own for name in param.opts}
            self._all = [*own, *_free(global_options(), taken)]
        return self._all

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``--rm=true`` and ``-d=false`` are flags, too, as in Docker."""
        from linkspan.core.cli.booleans import plain_flags

        return super().parse_args(ctx, plain_flags(self.get_params(ctx), args, ctx))

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what it finds wrong with its words has the status of wrong usage."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            if failure.status == USAGE:
                failure.status = self.usage_status
            raise

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Usage, summary, examples, options, one line for the rest."""
        formatter.write_usage(ctx.command_path, " ".join(self.collect_usage_pieces(ctx)))
        formatter.write_paragraph()
        formatter.write_text((self.help or self.short_help or "").strip())
        _write_lines(formatter, "Examples", self.examples)
        rows = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None and "--help" not in param.opts:
                rows.append(record)
        if rows:
            with formatter.section("Options"):
                formatter.write_dl(rows, col_max=28)
        formatter.write_paragraph()
        formatter.write_text(f"And everywhere: {EVERYWHERE}")
        if self.more:
            formatter.write_paragraph()
            formatter.write_text(f"See also: {', '.join(self.more)}")


def _free(options: Iterable[click.Option], taken: set[str]) -> list[click.Option]:
    free = []
    for option in options:
        option.opts = [name for name in option.opts if name not in taken]
        if any(name.startswith("--") for name in option.opts):
            free.append(option)
    return free


def _write_lines(formatter: click.HelpFormatter, title: str, lines: Sequence[str]) -> None:
    if lines:
        with formatter.section(title):
            for line in lines:
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def command(
    name: str,
    summary: str,
    *,
    examples: Sequence[str] = (),
    more: Sequence[str] = (),
    **kwargs: Any,
) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command; it gets the session first.

    Args:
        name: The last word.
        summary: One sentence.
        examples: Command lines.
        more: Related commands.
        kwargs: For click.
    """

    def decorate(function: Callable[..., Any]) -> Command:
        made: Command = click.command(
            name, cls=Command, help=summary, examples=examples, more=more, **kwargs
        )(pass_session(function))
        return made

    return decorate


def settings(declared: Sequence[Setting]) -> Callable[[F], F]:
    """Options of a command that has a short path too (``quick``)."""

    def decorate(function: F) -> F:
        for setting in reversed(declared):
            function = click.option(
                *setting.names,
                setting.dest,
                help=setting.help,
                is_flag=setting.kind == "flag",
                multiple=setting.kind == "many",
                type=_type_of(setting),
                metavar=setting.metavar or None,
                default=initial(setting),
                shell_complete=_completion_of(setting),
            )(function)
        return function

    return decorate


def _completion_of(setting: Setting) -> Callable[..., Any] | None:
    if not setting.complete:
        return None
    from linkspan.core.cli import completing

    name, _, kind = setting.complete.partition(":")
    found: Callable[..., Any] = completing.filter_of(kind) if kind else getattr(completing, name)
    return found


def _type_of(setting: Setting) -> Any:
    if setting.choices:
        return click.Choice(setting.choices)
    return int if setting.kind == "number" else None


_ALIASES: Final = {"list": "ls", "ps": "ls", "remove": "rm", "up": "deploy", "down": "rm"}
"""Docker's other words for the verbs of a noun; they are understood, and not listed."""


class Group(click.Group):
    """A noun, or the root: finds its commands in a table and imports only the one that is called."""

    def __init__(
        self,
        name: str | None,
        prefix: tuple[str, ...],
        rows: Callable[[], Sequence[Row]],
        help: str,  # noqa: A002
    ) -> None:
        super().__init__(
            name,
            help=help,
            no_args_is_help=True,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self._prefix = prefix
        self._rows = rows

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The global options may stand before the command too."""
        own = super().get_params(ctx)
        return [*own, *_free(global_options(), {name for param in own for name in param.opts})]

    def below(self) -> dict[str, list[Row]]:
        """First word below this group → its rows."""
        found: dict[str, list[Row]] = {}
        depth = len(self._prefix)
        for row in self._rows():
            words = row.words.split()
            if tuple(words[:depth]) == self._prefix and len(words) > depth:
                found.setdefault(words[depth], []).append(row)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The words that may follow."""
        return list(self.below())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or make the group of a noun."""
        known = self.below()
        alias = _ALIASES.get(cmd_name, "") if self._prefix else ""
        if cmd_name not in known and alias in known:
            cmd_name = alias
        rows = known.get(cmd_name)
        if not rows:
            return None
        path = (*self._prefix, cmd_name)
        if rows[0].words.split() == list(path):
            return load(rows[0].run)
        return Group(cmd_name, path, self._rows, f"Commands for {cmd_name}")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Usage and the words that may follow; nothing is imported for it."""
        formatter.write_usage(ctx.command_path, "COMMAND …")
        lines = []
        for word, rows in self.below().items():
            leaf = rows[0].words.split() == [*self._prefix, word]
            verbs = " ".join(row.words.split()[-1] for row in rows)
            lines.append((word, rows[0].summary if leaf else verbs))
        with formatter.section("Commands"):
            formatter.write_dl(lines)
        formatter.write_paragraph()
        formatter.write_text(f"{ctx.command_path} COMMAND --help shows examples and options.")
