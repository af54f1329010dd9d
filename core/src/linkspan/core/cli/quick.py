"""Plain calls of the most frequent commands, without click: importing it takes longer than they do.

An option of such a command is declared once, as a ``Setting``. click's options are made from it
(``command.settings``), and ``find`` reads it here. Whatever is not plain (help, a typo, an option not
declared so, an abbreviation) is left to click, so that there is one place where words are wrong.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Callable, Sequence
    from typing import Any, Final, Literal

    from linkspan.core.cli.session import Session

    Kind = Literal["flag", "text", "number", "many"]

QUICK: Final = {
    ("ps",): "linkspan.core.cli.container_list",
    ("container", "ls"): "linkspan.core.cli.container_list",
    ("images",): "linkspan.core.cli.image_list",
    ("image", "ls"): "linkspan.core.cli.image_list",
    ("build",): "linkspan.core.cli.build_run",
    ("image", "build"): "linkspan.core.cli.build_run",
    ("daemon", "run"): "linkspan.core.cli.daemon_flags",
}
"""Words → the module with its ``SETTINGS`` and ``show``, and the name of its ``ARGUMENT`` if it takes one."""


class Setting:
    """One option of a command.

    Attributes:
        dest: The name of the argument that gets it.
        names: ``-a``, ``--all``.
        help: One line.
        kind: A flag (bool), a text (str), a number (int), or texts given any number of times (tuple).
        metavar: What stands for the value in the help.
        default: Without the option; for texts that may be given often, always an empty tuple.
        choices: The texts that it may be; none for any.
        complete: What a shell proposes: ``filter:container``, or the name of a function of ``completing``.
    """

    def __init__(
        self,
        dest: str,
        names: tuple[str, ...],
        help: str,  # noqa: A002 - click's name of it
        kind: Kind = "flag",
        metavar: str = "",
        default: Any = None,
        choices: tuple[str, ...] = (),
        complete: str = "",
    ) -> None:
        self.dest = dest
        self.names = names
        self.help = help
        self.kind = kind
        self.metavar = metavar
        self.default = default
        self.choices = choices
        self.complete = complete


_EVERYWHERE: Final = (
    Setting("quiet", ("-q", "--quiet"), ""),
    Setting("format", ("--format",), "", "text"),
    Setting("host", ("-H", "--host"), "", "text"),
    Setting("context", ("--context",), "", "text"),
    Setting("config", ("--config",), "", "text"),
)


def find(words: Sequence[str], session: Session) -> Callable[[], int] | None:
    """The call that these words mean, if it is a plain one; what is meant everywhere goes to the session.

    Args:
        words: What stands behind ``linkspan``.
        session: Of the call; left as it is if the answer is None.
    """
    start = _options_before(words)
    end = start + (1 if tuple(words[start : start + 1]) in QUICK else 2)
    target = QUICK.get(tuple(words[start:end]))
    if target is None:
        return None
    from importlib import import_module

    module = import_module(target)
    settings: tuple[Setting, ...] = module.SETTINGS
    argument = getattr(module, "ARGUMENT", "")
    # The command's own come last: its ``-H`` is not the one that is meant everywhere.
    found = read([*words[:start], *words[end:]], (*_EVERYWHERE, *settings), argument)
    if found is None:
        return None
    for setting in _EVERYWHERE:
        value = found.pop(setting.dest)
        if value:
            setattr(session, setting.dest, value)

    def call() -> int:
        return module.show(session, **found) or 0

    return call


def _options_before(words: Sequence[str]) -> int:
    """How many words stand before the command: ``--host URL ps``."""
    by_name = {name: setting for setting in _EVERYWHERE for name in setting.names}
    count = 0
    while count < len(words) and words[count].startswith("-"):
        name, equals, _ = words[count].partition("=")
        setting = by_name.get(name)
        count += 2 if setting is not None and setting.kind == "text" and not equals else 1
    return count


def read(
    words: Sequence[str], settings: Sequence[Setting], argument: str = ""
) -> dict[str, Any] | None:
    """The values of plain options, and of the one argument, if there is to be one.

    None as soon as a word is anything else.
    """
    by_name = {name: setting for setting in settings for name in setting.names}
    found: dict[str, Any] = {setting.dest: initial(setting) for setting in settings}
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        name, equals, value = word.partition("=")
        setting = by_name.get(name)
        if setting is None and argument and argument not in found and word[:1] not in ("-", ""):
            found[argument] = word
        elif setting is None:
            flags = [by_name.get(f"-{letter}") for letter in word[1:]]
            if word[:1] != "-" or word[:2] == "--" or not flags:
                return None
            for flag in flags:
                if flag is None or flag.kind != "flag":
                    return None
                found[flag.dest] = True
        elif setting.kind == "flag":
            if equals:
                return None
            found[setting.dest] = True
        else:
            if equals and not name.startswith("--"):
                return None
            if not equals:
                if not rest:
                    return None
                value = rest.pop()
            if setting.choices and value not in setting.choices:
                return None
            if setting.kind == "number":
                if not value.isdigit():
                    return None
                found[setting.dest] = int(value)
            elif setting.kind == "many":
                found[setting.dest] = (*found[setting.dest], value)
            else:
                found[setting.dest] = value
    return found if not argument or argument in found else None


def initial(setting: Setting) -> Any:
    """What an option is when it is not given."""
    match setting.kind:
        case "flag":
            return False
        case "many":
            return ()
        case _:
            return setting.default
