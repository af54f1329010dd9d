"""``login`` and ``logout``."""

import sys

import click

from linkspan.core.cli import credentials
from linkspan.core.cli.command import command
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError


@command(
    "login",
    "Log in to a registry; Docker Hub if none is named. The daemon checks it.",
    examples=[
        "linkspan login registry.example.test:5000",
        "linkspan login -u ana --password-stdin registry.example.test < password",
    ],
    more=["linkspan logout", "linkspan push"],
)
@click.argument("server", default="")
@click.option("-u", "--username", default="", metavar="NAME", help="Asked for if not given")
@click.option("-p", "--password", default="", metavar="TEXT", help="Others see it; better the next")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin")
def login(
    session: Session, server: str, username: str, password: str, password_stdin: bool
) -> None:
    """Log in to a registry."""
    name = credentials.server_name(server)
    if password and password_stdin:
        raise _wrong("--password and --password-stdin contradict each other")
    if password_stdin and not username:
        raise _wrong("--password-stdin needs --username")
    if password:
        session.terminal.note(
            "a password in the command line can be seen by others on this machine"
        )
    if password_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    if not username and not password and _is_good(session, credentials.lookup(name)):
        session.terminal.print(f"Login Succeeded, as before: {name}")
        return
    username, password = _ask(username, password, given=password_stdin)
    wanted = {"username": username, "password": password, "serveraddress": name}
    with session.api.open("POST", "/auth", None, wanted, silence_s=None) as answer:
        said = answer.json() or {}
    if said.get("IdentityToken"):
        wanted = {"identitytoken": said["IdentityToken"], "serveraddress": name}
    place = credentials.keep(name, wanted)
    if place == str(credentials.config_file()):
        session.terminal.note(f"the password is kept readable in {place}, mode 0600")
    session.terminal.print(said.get("Status") or "Login Succeeded")


def _is_good(session: Session, known: dict[str, str]) -> bool:
    """Whether a login that is kept already still holds."""
    if not known:
        return False
    try:
        with session.api.open("POST", "/auth", None, known, silence_s=None):
            return True
    except ApiError as exc:
        session.terminal.note(f"the login that is kept does not hold any more: {exc.message}")
        return False


def _ask(username: str, password: str, *, given: bool) -> tuple[str, str]:
    if given and not password:
        raise _wrong("the password on stdin is empty")
    if username and password:
        return username, password
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise _wrong("nobody can be asked for the password: stdin is no terminal")
    username = username or click.prompt("Username", err=True)
    return username, password or click.prompt("Password", hide_input=True, err=True)


def _wrong(reason: str) -> Failure:
    helps = ["linkspan login -u NAME --password-stdin SERVER < FILE"]
    return Failure(reason, id="LS0004", status=USAGE, helps=helps)


@command(
    "logout",
    "Forget the login to a registry; Docker Hub's if none is named.",
    examples=["linkspan logout registry.example.test:5000"],
    more=["linkspan login"],
)
@click.argument("server", default="")
def logout(session: Session, server: str) -> None:
    """Forget a login."""
    name = credentials.server_name(server)
    if credentials.forget(name):
        session.terminal.print(f"Removed the login to {name}")
    else:
        session.terminal.note(f"there was no login to {name}")
