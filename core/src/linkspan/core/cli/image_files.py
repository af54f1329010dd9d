"""``save``, ``load``, ``import``, ``export``, ``commit``: images and file systems as archives."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from linkspan.core.cli import completing
from linkspan.core.cli.command import Platform, command
from linkspan.core.cli.common import complete_container, complete_image
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.image import split_reference, stream_failure
from linkspan.core.cli.output_file import is_stream, output_file
from linkspan.core.cli.progress import Display, Transfer, bar
from linkspan.core.cli.session import Session
from linkspan.core.client.short import Answer, segment
from linkspan.sdk.units import format_size

_READ: Final = 256 * 1024
_TAR: Final = {"Content-Type": "application/x-tar"}


def _no_terminal(what: str, option: str) -> Failure:
    return Failure(
        f"{what} is a terminal; an archive does not go there",
        id="LS0004",
        status=USAGE,
        helps=[f"name a file with {option}, or use a pipe"],
    )


def receive(session: Session, answer: Answer, output: str, what: str) -> None:
    """Write an answer to a file, which appears when it is whole, to a pipe or a device, or to stdout."""
    if not output:
        for piece in answer.pieces():
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    target = output_file(output)
    stream = is_stream(target)
    partial = target if stream else target.with_name(f".{target.name}.partial")
    count = 0
    try:
        with (
            Display(session, lambda: [f"{what}  {format_size(count)}"], what) as display,
            partial.open("wb") as file,
        ):
            for piece in answer.pieces():
                file.write(piece)
                count += len(piece)
                display.update()
        if not stream:
            partial.replace(target)
    except OSError as exc:
        raise Failure(f"cannot write '{output}': {exc.strerror}") from exc
    finally:
        if not stream:
            partial.unlink(missing_ok=True)


def _check_output(output: str) -> None:
    """Fail before the daemon works for nothing."""
    if not output and sys.stdout.isatty():
        raise _no_terminal("stdout", "-o FILE")
    if output:
        output_file(output)


@command(
    "save",
    "Write images with their layers and names as a tar archive.",
    examples=["linkspan save -o shop.tar shop/web:1 shop/db:1", "linkspan save web > web.tar"],
    more=["linkspan load", "linkspan export"],
)
@click.argument("images", nargs=-1, required=True, shell_complete=complete_image)
@click.option(
    "-o",
    "--output",
    default="",
    metavar="FILE",
    shell_complete=completing.files,
    help="Instead of stdout",
)
@click.option("--platform", type=Platform(), metavar="OS/ARCH", help="Only this one of each")
def save(session: Session, images: tuple[str, ...], output: str, platform: Any) -> None:
    """Write images."""
    _check_output(output)
    query = {"names": list(images), "platform": platform}
    with session.api.open("GET", "/images/get", query, silence_s=None) as answer:
        receive(session, answer, output, f"save of {', '.join(images)}")


@command(
    "export",
    "Write the file system of a container as a tar archive.",
    examples=["linkspan export -o web.tar web", "linkspan export web | tar t"],
    more=["linkspan import", "linkspan cp"],
)
@click.argument("container", shell_complete=complete_container)
@click.option(
    "-o",
    "--output",
    default="",
    metavar="FILE",
    shell_complete=completing.files,
    help="Instead of stdout",
)
def export(session: Session, container: str, output: str) -> None:
    """Write a container's file system."""
    _check_output(output)
    path = f"/containers/{segment(container)}/export"
    with session.api.open("GET", path, silence_s=None) as answer:
        receive(session, answer, output, f"export of {container}")


class _Upload:
    """A file or stdin in pieces, with how far it is."""

    def __init__(self, session: Session, name: str) -> None:
        self._display: Display | None = None
        self._session = session
        self.name = name or "stdin"
        self.sent = 0
        self.stream: BinaryIO = self._open(name)
        self.total = Path(name).stat().st_size if name else 0

    @staticmethod
    def _open(name: str) -> BinaryIO:
        if not name:
            if sys.stdin.isatty():
                raise _no_terminal("stdin", "-i FILE")
            return sys.stdin.buffer
        try:
            return Path(name).open("rb")
        except OSError as exc:
            raise Failure(
                f"cannot read '{name}': {exc.strerror}", id="LS0004", status=USAGE
            ) from exc

    def lines(self) -> list[str]:
        """The live view."""
        if not self.total:
            return [f"{self.name}  {format_size(self.sent)}"]
        share = 100 * self.sent // self.total
        moved = f"{format_size(self.sent)}/{format_size(self.total)}"
        return [f"{self.name}  {bar(self.sent, self.total)}  {share} %  {moved}"]

    def pieces(self, display: Display) -> Iterator[bytes]:
        """The content; the view moves with it."""
        while data := self.stream.read(_READ):
            self.sent += len(data)
            yield data
            display.update()


@command(
    "load",
    "Read images from an archive that save, or another engine, has written.",
    examples=["linkspan load -i shop.tar", "linkspan load < shop.tar"],
    more=["linkspan save", "linkspan import"],
)
@click.option(
    "-i",
    "--input",
    "file",
    default="",
    metavar="FILE",
    shell_complete=completing.files,
    help="Instead of stdin",
)
@click.option("--platform", type=Platform(), metavar="OS/ARCH", help="Only this one of each")
def load(session: Session, file: str, platform: Any) -> None:
    """Read images."""
    upload = _Upload(session, file)
    query = {"quiet": session.quiet, "platform": platform}
    said: list[str] = []
    transfer = Transfer(upload.name)
    sending = True

    def lines() -> list[str]:
        return upload.lines() if sending else transfer.lines()

    with (
        Display(session, lines, f"load of {upload.name}") as display,
        upload.stream,
        session.api.open(
            "POST",
            "/images/load",
            query,
            headers=_TAR,
            upload=upload.pieces(display),
            silence_s=None,
        ) as answer,
    ):
        sending = False
        for record in display.follow(answer):
            _raise_problem(record)
            if record.get("stream"):
                said.extend(record["stream"].splitlines())
            else:
                transfer.take(record)
    for line in filter(None, said):
        session.terminal.print(line.rpartition(": ")[2] if session.quiet else line)


def _raise_problem(record: Any) -> None:
    problem = record.get("errorDetail") or record.get("error")
    if problem:
        raise stream_failure(problem)


@command(
    "import",
    "Make an image of one layer from a tar archive of a file system: FILE, URL or - (stdin).",
    examples=[
        "linkspan import rootfs.tar base:1",
        "linkspan import --change 'CMD [\"/bin/sh\"]' --message first - base < rootfs.tar",
    ],
    more=["linkspan export", "linkspan load"],
)
@click.argument("source", shell_complete=completing.files)
@click.argument("reference", default="", metavar="[NAME[:TAG]]")
@click.option("-c", "--change", multiple=True, metavar="INSTRUCTION", help="As in a Dockerfile")
@click.option("-m", "--message", default="", metavar="TEXT", help="For its history")
@click.option("--platform", default="", metavar="OS/ARCH", help="Instead of the daemon's")
def import_(
    session: Session,
    source: str,
    reference: str,
    change: tuple[str, ...],
    message: str,
    platform: str,
) -> None:
    """Make an image of an archive."""
    remote = source.startswith(("http://", "https://"))
    name, tag = split_reference(reference) if reference else ("", "")
    query = {
        "fromSrc": source if remote else "-",
        "repo": name or None,
        "tag": tag or None,
        "changes": list(change),
        "message": message or None,
        "platform": platform or None,
    }
    if remote:
        with session.api.open("POST", "/images/create", query, silence_s=None) as answer:
            identifier = _last_status(answer, None)
    else:
        upload = _Upload(session, "" if source == "-" else source)
        with (
            Display(session, upload.lines, f"import of {source}") as display,
            upload.stream,
            session.api.open(
                "POST",
                "/images/create",
                query,
                headers=_TAR,
                upload=upload.pieces(display),
                silence_s=None,
            ) as answer,
        ):
            identifier = _last_status(answer, display)
    session.terminal.print(identifier)


def _last_status(answer: Answer, display: Display | None) -> str:
    found = ""
    records = answer.json_lines() if display is None else display.follow(answer)
    for record in records:
        _raise_problem(record)
        found = str(record.get("status") or found)
    return found


@command(
    "commit",
    "Make an image of what a container has changed, and print its id.",
    examples=[
        "linkspan commit web shop/web:patched",
        "linkspan commit --change 'ENV DEBUG=1' --message 'with debug' web",
    ],
    more=["linkspan diff", "linkspan export"],
)
@click.argument("container", shell_complete=complete_container)
@click.argument("reference", default="", metavar="[NAME[:TAG]]")
@click.option("-a", "--author", default="", metavar="TEXT", help="Who made it")
@click.option("-c", "--change", multiple=True, metavar="INSTRUCTION", help="As in a Dockerfile")
@click.option("-m", "--message", default="", metavar="TEXT", help="For its history")
@click.option(
    "-p", "--pause/--no-pause", default=True, help="Hold the container meanwhile (default)"
)
def commit(
    session: Session,
    container: str,
    reference: str,
    author: str,
    change: tuple[str, ...],
    message: str,
    pause: bool,
) -> None:
    """Make an image of a container."""
    name, tag = split_reference(reference) if reference else ("", "")
    query = {
        "container": container,
        "repo": name or None,
        "tag": tag or None,
        "author": author or None,
        "comment": message or None,
        "changes": list(change),
        "pause": pause,
    }
    with session.api.open("POST", "/commit", query, {}, silence_s=None) as answer:
        session.terminal.print(str(answer.json()["Id"]))
