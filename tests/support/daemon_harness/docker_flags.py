"""The flags of the stock docker CLI: which there are, from its own help, and which a line for a shell uses."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

_COMMAND: Final = re.compile(r"^  ([a-z][\w-]*)\*? {2,}\S", re.MULTILINE)
_FLAG: Final = re.compile(r"^ {2,6}(?:(-\w), )?(--[\w-]+)(?: (\S+))?(?: {2,}|$)", re.MULTILINE)
_ALIASES: Final = re.compile(r"^Aliases:\n((?:  .*\n)+)", re.MULTILINE)

_HELP: Final = "--help"

_NO_DAEMON: Final = {"DOCKER_HOST": "unix:///nosuch.sock", "DOCKER_CONFIG": "/nosuch"}
"""The client hides what the daemon it asks does not know; a client without one hides nothing."""

_PUNCTUATION: Final = frozenset(";&|()<>`$")

_ENDS_AT_FIRST_ARGUMENT: Final = frozenset(
    {"container run", "container create", "container exec", "service create"}
)
"""What follows their first argument are the words of a program in the container."""


@attrs.frozen(kw_only=True)
class Command:
    """A command of the CLI, named as under its noun (``container run``); ``""`` is the CLI itself."""

    name: str
    aliases: tuple[str, ...] = ()
    """Its other names, each without ``docker``."""

    flags: Mapping[str, bool] = attrs.field(factory=dict)
    """Long names, and whether a value follows."""

    short: Mapping[str, str] = attrs.field(factory=dict)
    """Letters with their dash, and the long names they stand for."""


def ask() -> Iterator[Command]:
    """Every command of the ``docker`` in the PATH. Asks it some two hundred times for help."""
    waiting = [""]
    seen: set[str] = set()
    while waiting:
        words = waiting.pop()
        text = _help(words)
        waiting += [f"{words} {name}".strip() for name in _subcommands(text)]
        command = _read(words, text)
        if command.name not in seen:
            seen.add(command.name)
            yield command


def _help(words: str) -> str:
    done = subprocess.run(
        ["docker", *words.split(), _HELP],
        env={**os.environ, **_NO_DAEMON},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _subcommands(text: str) -> list[str]:
    sections = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    return [
        name
        for section in sections
        if re.match(r"[\w ]*Commands:\n", section)
        for name in _COMMAND.findall(section)
    ]


def _read(words: str, text: str) -> Command:
    aliases = _ALIASES.search(text)
    listed = aliases[1].replace("\n", "").split(",") if aliases else [words]
    # The first is the one under the noun of the thing itself: "container ls", not "ps".
    name, *others = (each.strip().removeprefix("docker ") for each in listed)
    options = text[text.find("Options:") :] if "Options:" in text else ""
    found = _FLAG.findall(options)
    return Command(
        name=name,
        aliases=tuple(others),
        flags={long: bool(kind) for _, long, kind in found if long != _HELP},
        short={short: long for short, long, _ in found if short},
    )


def write(commands: list[Command], client: str, path: Path) -> None:
    """Keep the commands, one a line; ``client`` is the version of the CLI that was asked."""
    rows = [json.dumps(attrs.asdict(each)) for each in sorted(commands, key=lambda each: each.name)]
    path.write_text(f'{{"client": "{client}", "commands": [\n' + ",\n".join(rows) + "\n]}\n")


def read(path: Path) -> list[Command]:
    """The commands that were kept."""
    kept: dict[str, Any] = json.loads(path.read_text())
    return [Command(**{**row, "aliases": tuple(row["aliases"])}) for row in kept["commands"]]


class Usage:
    """Finds the flags that lines for a shell use."""

    def __init__(self, commands: list[Command]) -> None:
        """Take the commands there are."""
        self._by_name = {name: each for each in commands for name in (each.name, *each.aliases)}
        self._root = self._by_name[""]

    def of(self, line: str) -> Iterator[tuple[str, str]]:
        """Command and long flag, for every flag that the line gives to a ``docker`` in it."""
        words = _words(line)
        for position, word in enumerate(words):
            if word == "docker":
                yield from self._one(words[position + 1 :])

    def _one(self, words: list[str]) -> Iterator[tuple[str, str]]:
        command, name = self._root, ""
        rest = iter(words)
        for word in rest:
            if set(word) <= _PUNCTUATION:
                if "(" not in word:
                    return
                _skip_group(rest)
            elif word.startswith("-") and word != "-":
                for flag, takes_value in _flags(command, word):
                    yield command.name, flag
                    if takes_value:
                        next(rest, None)
            elif inner := self._by_name.get(f"{name} {word}".strip()):
                command, name = inner, f"{name} {word}".strip()
            elif command.name in _ENDS_AT_FIRST_ARGUMENT:
                return


def _skip_group(words: Iterator[str]) -> None:
    """Over the words of another command in brackets, to the one that ends it."""
    depth = 1
    for word in words:
        if set(word) <= _PUNCTUATION:
            depth += word.count("(") - word.count(")")
        if depth <= 0:
            return


def _words(line: str) -> list[str]:
    """The words of a line; what a shell gives a meaning is a word of its own. Commands in quotes are read, too."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(_PUNCTUATION))
    lexer.whitespace_split = True
    words = list(lexer)
    inner = [word for word in words if "docker " in word and word != line]
    return words + [each for word in inner for each in (";", *_words(word))]


def _flags(command: Command, word: str) -> Iterator[tuple[str, bool]]:
    """The long names in a word, and whether the next word is the value of the last of them."""
    if word.startswith("--"):
        long, is_whole, _ = word.partition("=")
        if long in command.flags:
            yield long, command.flags[long] and not is_whole
        return
    letters = word[1:]
    for place, letter in enumerate(letters):
        long = command.short.get(f"-{letter}", "")
        if not long:
            return
        if command.flags[long]:
            yield long, place == len(letters) - 1
            return
        yield long, False
