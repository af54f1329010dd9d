"""Flags with a value, ``--rm=false``: Docker's command line takes them, click's does not."""

from collections.abc import Sequence
from typing import Final

import click

_ON: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_OFF: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def plain_flags(
    params: Sequence[click.Parameter], args: Sequence[str], ctx: click.Context
) -> list[str]:
    """The words with each flag's value put in click's way.

    ``--rm=true`` is ``--rm``; ``--sig-proxy=false`` is ``--no-sig-proxy``; ``--rm=false`` goes.

    Args:
        params: Of the command.
        args: What stands behind it.
        ctx: Of the call.

    Raises:
        click.BadParameter: The value is neither true nor false.
    """
    options = {
        name: param
        for param in params
        if isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts)
    }
    left = list(reversed(args))
    found: list[str] = []
    while left:
        word = left.pop()
        if word == "--" or (word[:1] != "-" and not ctx.allow_interspersed_args):
            return [*found, word, *reversed(left)]
        name, equals, value = word.partition("=")
        option = options.get(name)
        if equals and option is not None and option.is_flag:
            found.extend(_plain(option, name, value, ctx))
            continue
        found.append(word)
        if left and _takes_next(word, options):
            found.append(left.pop())
    return found


def _plain(option: click.Option, name: str, value: str, ctx: click.Context) -> list[str]:
    if value not in _ON | _OFF:
        raise click.BadParameter(
            f"'{value}' is neither true nor false", ctx, option, param_hint=f"'{name}'"
        )
    on = (value in _ON) != (name in option.secondary_opts)
    if on:
        return [option.opts[0]]
    return [option.secondary_opts[0]] if option.secondary_opts else []


def _takes_next(word: str, options: dict[str, click.Option]) -> bool:
    """Whether the value of an option is the next word: ``--name``, ``-p``, ``-itp``."""
    if word.startswith("--"):
        option = options.get(word)
        return option is not None and not option.is_flag and not option.count
    if word[:1] != "-":
        return False
    for place, letter in enumerate(word[1:], 2):
        option = options.get(f"-{letter}")
        if option is None:
            return False
        if not option.is_flag and not option.count:
            return place == len(word)
    return False
