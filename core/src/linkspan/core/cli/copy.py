"""``linkspan cp``: files between a container and this machine (API: /containers/{id}/archive)."""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from linkspan.core.cli import archive, completing
from linkspan.core.cli.command import command
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError
from linkspan.core.client.short import segment
from linkspan.sdk.units import format_size

_READ: Final = 256 * 1024
_GO_DIR: Final = 1 << 31  # Go's os.ModeDir
_GO_SYMLINK: Final = 1 << 27


@command(
    "cp",
    "Copy files between a container and this machine; - is a tar archive on stdin or stdout.",
    examples=[
        "linkspan cp web:/etc/nginx/nginx.conf .",
        "linkspan cp ./site/. web:/usr/share/nginx/html",
        "linkspan cp web:/var/log - > log.tar",
    ],
    more=["linkspan diff", "linkspan export"],
)
@click.argument("source", shell_complete=completing.copied)
@click.argument("target", shell_complete=completing.copied)
@click.option("-a", "--archive", "owner", is_flag=True, help="Keep the numbers of the owners")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what SOURCE points to")
def cp(session: Session, source: str, target: str, owner: bool, follow_link: bool) -> None:
    """Copy files."""
    outside, inside = split(source), split(target)
    if outside.container and inside.container:
        raise _wrong("copying from one container to another is not possible directly")
    if outside.container:
        _from_container(session, outside, target, owner=owner, follow=follow_link)
    elif inside.container:
        _to_container(session, source, inside, owner=owner, follow=follow_link)
    else:
        raise _wrong("one of the two is written CONTAINER:PATH")


class Place(NamedTuple):
    """A side of the copy.

    Attributes:
        container: Name or id; empty for this machine.
        path: As it was written.
    """

    container: str
    path: str


def split(text: str) -> Place:
    """``web:/etc`` is in a container; ``./a:b``, ``/a:b`` and ``-`` are here (as in Docker)."""
    name, colon, path = text.partition(":")
    if not colon or not name or name.startswith((".", "/")):
        return Place("", text)
    if not path:
        raise _wrong(f"'{text}' has no path behind the container")
    return Place(name, path)


def _wrong(reason: str) -> Failure:
    return Failure(reason, id="LS0004", status=USAGE, helps=["linkspan cp --help"])


class Entry(NamedTuple):
    """What stands at a path of a container.

    Attributes:
        folder: It is one.
        link: Where it points to, absolute, if it is a symbolic link.
    """

    folder: bool
    link: str


def _look(session: Session, place: Place) -> Entry | None:
    """What is at a path; None if nothing is."""
    path = f"/containers/{segment(place.container)}/archive"
    try:
        with session.api.open("HEAD", path, {"path": place.path}) as answer:
            found = _entry(answer.headers)
    except ApiError as exc:
        if exc.status != 404:
            raise
        session.api.get(
            f"/containers/{segment(place.container)}/json"
        )  # or that is what is missing
        return None
    return found


def _entry(headers: Any) -> Entry:
    text = headers.get("x-docker-container-path-stat", "")
    try:
        found = json.loads(base64.b64decode(text))
    except ValueError as exc:
        raise Failure("the daemon did not say what stands at the path") from exc
    mode = int(found.get("mode", 0))
    link = str(found.get("linkTarget") or "") if mode & _GO_SYMLINK else ""
    return Entry(bool(mode & _GO_DIR), link)


def _from_container(
    session: Session, source: Place, target: str, *, owner: bool, follow: bool
) -> None:
    if follow:
        found = _look(session, source)
        if found is not None and found.link:
            source = Place(source.container, found.link)
    path = f"/containers/{segment(source.container)}/archive"
    with session.api.open("GET", path, {"path": source.path}, silence_s=None) as answer:
        if target == "-":
            _to_stdout(answer.pieces())
            return
        folder = _entry(answer.headers).folder
        counted = _Counted(answer.pieces())
        place = _local_place(source.path, folder, target)
        archive.unpack(iter(counted), place, owner=owner)
    _done(session, counted.count, f"{source.container}:{source.path}", str(place))


def _local_place(source: str, folder: bool, target: str) -> Path:
    """What the first entry of the archive becomes here (Docker's rules of ``cp``)."""
    path = Path(target)
    if path.is_symlink():
        path = path.resolve()  # as Docker: what it points to is written, and the link stays
    contents = source.endswith("/.")
    if archive.is_folder(path):
        name = source.rstrip("/").rpartition("/")[2]
        return path if (contents and folder) or name in ("", ".", "..") else path / name
    if path.exists():
        if not path.is_file():
            raise Failure(f"'{target}' is neither a folder nor a file, and is not replaced")
        if folder:
            raise Failure(f"cannot copy a folder over the file '{target}'")
        if target.endswith("/"):
            raise Failure(f"'{target}' is not a folder")
    elif target.endswith("/") and not folder:
        raise Failure(f"there is no folder '{target}'", helps=[f"mkdir -p {target}"])
    if not archive.is_folder(path.absolute().parent):
        raise Failure(
            f"there is no folder '{path.absolute().parent}'",
            helps=[f"mkdir -p {path.absolute().parent}"],
        )
    return path


def _to_container(
    session: Session, source: str, target: Place, *, owner: bool, follow: bool
) -> None:
    if source == "-":
        found = _look(session, target)
        if found is None or not (found.folder or found.link):
            raise Failure(f"'{target.container}:{target.path}' is not a folder")
        counted = _Counted(_stdin())
        _upload(session, target.container, target.path, counted, owner=owner)
        _done(session, counted.count, "stdin", f"{target.container}:{target.path}")
        return
    path = Path(source)
    if not (path.exists() or path.is_symlink()):
        raise Failure(f"there is no file or folder '{source}'", id="LS0004", status=USAGE)
    folder = archive.is_folder(path) and (follow or source.endswith("/") or not path.is_symlink())
    into, name = _remote_place(session, source, folder, target)
    resolve = follow or source.endswith(("/", "/."))
    counted = _Counted(archive.pack(path, name, owner=owner, follow=resolve))
    _upload(session, target.container, into, counted, owner=owner)
    _done(session, counted.count, source, f"{target.container}:{target.path}")


def _remote_place(session: Session, source: str, folder: bool, target: Place) -> tuple[str, str]:
    """The folder to unpack in, and the archive's name for what is sent (Docker's rules of ``cp``)."""
    found = _look(session, target)
    if found is not None and found.link:
        target = Place(target.container, found.link)
        found = _look(session, target)
    if found is not None and found.folder:
        contents = folder and (source == "." or source.endswith("/."))
        return target.path, "." if contents else Path(source).absolute().name or "."
    if found is not None and folder:
        raise Failure(f"cannot copy a folder over the file '{target.container}:{target.path}'")
    if found is None and target.path.endswith("/") and not folder:
        raise Failure(f"there is no folder '{target.container}:{target.path}'")
    if found is not None and target.path.endswith("/"):
        raise Failure(f"'{target.container}:{target.path}' is not a folder")
    parent, _, name = target.path.rstrip("/").rpartition("/")
    return parent or "/", name


def _upload(
    session: Session, container: str, into: str, pieces: "_Counted", *, owner: bool
) -> None:
    # As Docker: a folder is not replaced by a file, nor a file by a folder.
    query = {"path": into, "noOverwriteDirNonDir": True, "copyUIDGID": owner or None}
    with session.api.open(
        "PUT",
        f"/containers/{segment(container)}/archive",
        query,
        headers={"Content-Type": "application/x-tar"},
        upload=pieces,
        silence_s=None,
    ):
        pass


class _Counted:
    """Pieces, and how many bytes they were."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.count += len(piece)
            yield piece


def _stdin() -> Iterator[bytes]:
    if sys.stdin.isatty():
        raise _wrong("stdin is a terminal; an archive is read from a pipe or a file")
    while data := sys.stdin.buffer.read(_READ):
        yield data


def _to_stdout(pieces: Iterator[bytes]) -> None:
    if sys.stdout.isatty():
        raise _wrong("stdout is a terminal; send the archive to a pipe or a file")
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _done(session: Session, count: int, source: str, target: str) -> None:
    if session.terminal.err_is_tty:
        session.terminal.note(f"copied {format_size(count)} from {source} to {target}")
