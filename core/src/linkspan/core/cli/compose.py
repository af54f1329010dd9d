"""``linkspan compose``: hands over to the installed Compose, with the daemon that would be ours."""

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import click

from linkspan.core.cli.command import command
from linkspan.core.cli.failure import NO_COMMAND, Failure
from linkspan.core.cli.session import Session

_PLUGIN: Final = "docker-compose"
_FOLDERS: Final = (
    "~/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


@command(
    "compose",
    "Hand over to the installed Compose, with this daemon.",
    examples=["linkspan compose up -d", "linkspan --context build compose ps"],
    more=["linkspan stack deploy"],
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARG]...")
def compose(session: Session, arguments: tuple[str, ...]) -> NoReturn:
    """Become Compose."""
    program = _find()
    address = session.address
    if address.autostart:
        with session.api.open("GET", "/_ping"):  # Compose cannot start the daemon
            pass
    environ = {k: v for k, v in os.environ.items() if k != "DOCKER_CONTEXT"}
    if address.context:
        environ["DOCKER_CONTEXT"] = address.context  # Docker's own, so the keys are found, too
        environ.pop("DOCKER_HOST", None)
    else:
        environ["DOCKER_HOST"] = address.url
    os.execve(program, [program, *arguments], environ)  # noqa: S606 - no shell is wanted


def _find() -> str:
    for folder in _FOLDERS:
        path = Path(folder).expanduser() / _PLUGIN
        if os.access(path, os.X_OK):
            return str(path)
    found = shutil.which(_PLUGIN)
    if found is None:
        raise Failure(
            "Compose is not installed",
            status=NO_COMMAND,
            helps=["apt-get install docker-compose", "linkspan stack deploy -c compose.yaml NAME"],
        )
    return found
