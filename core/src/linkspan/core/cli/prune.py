"""``prune``: removes what nothing needs, after asking."""

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from linkspan.core.cli.command import Command, command
from linkspan.core.cli.common import bad_value, filters
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError
from linkspan.sdk.units import format_size

_force = click.option("-f", "--force", "-y", "--yes", "force", is_flag=True, help="Do not ask")
_filter = click.option(
    "--filter", "filter_", multiple=True, metavar="KEY=VALUE", help="Only these: until=24h, label=…"
)


def confirm(session: Session, warning: str, *, force: bool) -> None:
    """Ask whether to lose something; where nobody can be asked, it takes ``--force``.

    Raises:
        Failure: Nobody can be asked, or the answer is no.
    """
    if force:
        return
    if not (sys.stdin.isatty() and session.terminal.err_is_tty) or os.environ.get("CI"):
        raise Failure(
            f"{warning[:1].lower()}{warning[1:]}: this has to be confirmed",
            id="LS0004",
            status=USAGE,
            helps=["add --force"],
        )
    session.terminal.note(f"{session.terminal.painted_sign('warned')} {warning}")
    if not click.confirm("Go on?", default=False, err=True):
        raise Failure("nothing was removed")


def _prune(session: Session, path: str, asked: Any) -> dict[str, Any]:
    with session.api.open("POST", path, {"filters": asked}, silence_s=None) as answer:
        found: dict[str, Any] = answer.json() or {}
        return found


def _names(found: dict[str, Any]) -> list[str]:
    """What was removed, from the answer of any kind of prune."""
    names: list[str] = []
    for key in ("ContainersDeleted", "NetworksDeleted", "VolumesDeleted", "CachesDeleted"):
        names.extend(found.get(key) or ())
    for item in found.get("ImagesDeleted") or ():
        names.extend(f"{verb.lower()}: {name}" for verb, name in item.items() if name)
    return names


def _report(session: Session, results: Sequence[tuple[str, dict[str, Any]]]) -> None:
    if session.format:
        session.document(
            [
                {"Kind": kind, "Deleted": _names(found), "SpaceReclaimed": _space(found)}
                for kind, found in results
            ]
        )
        return
    for _, found in results:
        for name in _names(found):
            session.terminal.print(name)
    total = sum(_space(found) for _, found in results)
    if any(kind != "networks" for kind, _ in results):
        session.terminal.note(f"{format_size(total)} freed")


def _space(found: dict[str, Any]) -> int:
    return int(found.get("SpaceReclaimed") or 0)


def _of_kind(kind: str, noun: str, warning: str) -> Command:
    @command(
        "prune",
        f"Remove {warning}.",
        examples=[
            f"linkspan {noun} prune --force",
            f"linkspan {noun} prune --filter label=stage=test",
        ],
        more=["linkspan system prune", "linkspan system df"],
    )
    @_filter
    @_force
    def prune(session: Session, filter_: tuple[str, ...], force: bool) -> None:
        """Remove what nothing needs."""
        asked = filters(filter_)
        confirm(session, f"This removes {warning}", force=force)
        _report(session, [(kind, _prune(session, f"/{kind}/prune", asked))])

    return prune


container = _of_kind("containers", "container", "all containers that do not run")
network = _of_kind("networks", "network", "all networks that no container uses")


@command(
    "prune",
    "Remove untagged images; with --all, every image that no container has.",
    examples=["linkspan image prune --force", "linkspan image prune --all --filter until=240h"],
    more=["linkspan system prune", "linkspan rmi"],
)
@click.option("-a", "--all", "every", is_flag=True, help="Tagged ones that no container has, too")
@_filter
@_force
def image(session: Session, every: bool, filter_: tuple[str, ...], force: bool) -> None:
    """Remove images."""
    asked = {**(filters(filter_) or {}), "dangling": ["false" if every else "true"]}
    what = "all images that no container has" if every else "all untagged images"
    confirm(session, f"This removes {what}", force=force)
    _report(session, [("images", _prune(session, "/images/prune", asked))])


@command(
    "prune",
    "Remove anonymous volumes that no container has; with --all, named ones too.",
    examples=["linkspan volume prune --force", "linkspan volume prune --all"],
    more=["linkspan volume rm", "linkspan system prune"],
)
@click.option("-a", "--all", "every", is_flag=True, help="Named ones, too")
@_filter
@_force
def volume(session: Session, every: bool, filter_: tuple[str, ...], force: bool) -> None:
    """Remove volumes."""
    asked = filters(filter_) or {}
    if every:
        asked["all"] = ["true"]
    what = "all volumes" if every else "all anonymous volumes"
    confirm(session, f"This removes {what} that no container has, with their data", force=force)
    _report(session, [("volumes", _prune(session, "/volumes/prune", asked or None))])


@command(
    "prune",
    "Remove what the builder keeps to be faster next time.",
    examples=["linkspan builder prune --force", "linkspan builder prune --keep-storage 2g"],
    more=["linkspan system df"],
)
@click.option("-a", "--all", "every", is_flag=True, help="What is in use by images, too")
@click.option("--keep-storage", default="", metavar="BYTES", help="Stop when so much is left")
@_filter
@_force
def builder(
    session: Session, every: bool, keep_storage: str, filter_: tuple[str, ...], force: bool
) -> None:
    """Remove the builder's cache."""
    keep = _bytes(keep_storage) if keep_storage else None
    confirm(session, "This removes the builder's cache", force=force)
    query = {
        "all": every or None,
        "keep-storage": keep,
        "reserved-space": keep,
        "filters": filters(filter_),
    }
    with session.api.open("POST", "/build/prune", query, silence_s=None) as answer:
        _report(session, [("build cache", answer.json() or {})])


def _bytes(text: str) -> int:
    from linkspan.sdk.errors import InvalidArgument
    from linkspan.sdk.units import parse_size

    try:
        return parse_size(text)
    except InvalidArgument as exc:
        raise bad_value(exc.message, "--keep-storage") from exc


_NOT_THERE: Final = (404, 501)


@command(
    "prune",
    "Remove stopped containers, unused networks, untagged images and the builder's cache.",
    examples=["linkspan system prune --force", "linkspan system prune --all --volumes"],
    more=["linkspan system df"],
)
@click.option("-a", "--all", "every", is_flag=True, help="All images that no container has")
@click.option("--volumes", is_flag=True, help="Anonymous volumes, too")
@_filter
@_force
def system(
    session: Session, every: bool, volumes: bool, filter_: tuple[str, ...], force: bool
) -> None:
    """Remove everything that nothing needs."""
    asked = filters(filter_)
    if volumes and asked and "until" in asked:
        raise bad_value("'until' says nothing about volumes; leave out --volumes", "--filter")
    things = ["stopped containers", "unused networks"]
    things += ["anonymous volumes that no container has"] if volumes else []
    things += ["images that no container has" if every else "untagged images", "the build cache"]
    confirm(session, f"This removes all {', '.join(things)}", force=force)
    results = [("containers", _prune(session, "/containers/prune", asked))]
    results.append(("networks", _prune(session, "/networks/prune", asked)))
    if volumes:
        results.append(("volumes", _prune(session, "/volumes/prune", asked)))
    of_images = {**(asked or {}), "dangling": ["false" if every else "true"]}
    results.append(("images", _prune(session, "/images/prune", of_images)))
    query = {"all": every or None, "filters": asked}
    try:
        with session.api.open("POST", "/build/prune", query, silence_s=None) as answer:
            results.append(("build cache", answer.json() or {}))
    except ApiError as exc:
        if exc.status not in _NOT_THERE:  # this daemon's builder keeps nothing of its own
            raise
    _report(session, results)
