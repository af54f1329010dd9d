"""``linkspan workflow secret set|ls|rm``: what pipelines may be granted."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment

BASE: Final = "/linkspan/v1/secrets"
_MORE: Final = 1 << 20
"""Read at most so much: the daemon says what is too long."""


def _complete_keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from linkspan.core.cli.common import complete

    return complete(BASE, lambda row: [row["key"]])(ctx, param, incomplete)


_key = click.argument("key", metavar="NAME", shell_complete=_complete_keys)
_driver = click.option("--driver", default="", metavar="NAME", help="Another than the chosen one")


@command(
    "secret set",
    "Keep a secret for pipelines; its value is read from a prompt, a pipe or a file.",
    examples=[
        "linkspan workflow secret set DB_PASSWORD",
        "pass show db | linkspan workflow secret set DB_PASSWORD",
        "linkspan workflow secret set DEPLOY_KEY --from-file id_ed25519",
    ],
    more=["linkspan workflow secret ls"],
)
@_key
@click.option("--from-file", metavar="FILE", help="Read the value from a file, as it is")
@_driver
def set_secret(session: Session, key: str, from_file: str | None, driver: str) -> int:
    """Keep a secret."""
    value = _from_file(from_file) if from_file else _asked(session, key)
    query = {"driver": driver or None}
    with session.api.open("PUT", f"{BASE}/{segment(key)}", query, {"value": value}):
        pass
    if not session.quiet:
        keepers = [row["driver"] for row in session.api.get(BASE) if row["key"] == key]
        place = driver or next(iter(keepers), "NAME")
        how = f"secrets: {{{key}: {{from: {place}}}}}"
        session.terminal.note(f"{key} is kept; a pipeline gets it by `{how}`")
    return 0


def _from_file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return file.read(_MORE).decode()
    except OSError as error:
        raise Failure(f"cannot read {name}: {error.strerror}", status=USAGE) from error
    except UnicodeDecodeError as error:
        raise Failure(
            f"{name} is not UTF-8 text",
            status=USAGE,
            helps=["base64 it, and decode it in the step"],
        ) from error


def _asked(session: Session, key: str) -> str:
    if sys.stdin.isatty():
        import getpass

        try:
            return getpass.getpass(f"Value of {key} (not shown): ")
        except EOFError:
            raise Failure("no value was given", status=USAGE) from None
    try:
        # What echo and editors add is not meant.
        return sys.stdin.buffer.read(_MORE).decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise Failure("what was piped in is not UTF-8 text", status=USAGE) from error


@command(
    "secret ls",
    "List secrets, without their values.",
    examples=["linkspan workflow secret ls", "linkspan workflow secret ls -q"],
    more=["linkspan workflow secret set"],
)
def ls_secrets(session: Session) -> int:
    """List secrets."""
    from linkspan.core.cli.words import age_of

    def columns(row: Mapping[str, Any]) -> list[str]:
        age = age_of(row["updated_at"], session.now) if row["updated_at"] else ""
        return [row["key"], row["driver"], age]

    def fields(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"Name": row["key"], "Driver": row["driver"], "UpdatedAt": row["updated_at"]}

    session.rows(session.api.get(BASE), fields, columns, ["NAME", "DRIVER", "AGE"], ids="Name")
    return 0


@command(
    "secret rm",
    "Forget secrets.",
    examples=["linkspan workflow secret rm DB_PASSWORD"],
    more=["linkspan workflow secret ls"],
)
@click.argument("keys", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete_keys)
@_driver
def rm_secrets(session: Session, keys: tuple[str, ...], driver: str) -> int:
    """Forget secrets."""
    for key in keys:
        session.api.delete(f"{BASE}/{segment(key)}", {"driver": driver or None})
        session.terminal.print(key)
    return 0
