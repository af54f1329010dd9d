"""Options that lists share."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from linkspan.core.cli import completing

Function = TypeVar("Function", bound=Callable[..., Any])

no_trunc: Final = click.option("--no-trunc", is_flag=True, help="Shorten nothing")
no_resolve: Final = click.option("--no-resolve", is_flag=True, help="Ids instead of names")


def filter_option(kind: str) -> Callable[[Function], Function]:
    """``-f``, ``--filter KEY=VALUE``, given as ``filter_``; a shell proposes what a list of this kind knows."""
    return click.option(
        "-f",
        "--filter",
        "filter_",
        multiple=True,
        metavar="KEY=VALUE",
        help="Only these",
        shell_complete=completing.filter_of(kind),
    )
