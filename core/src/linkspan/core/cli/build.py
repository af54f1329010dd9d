"""``linkspan build``: sends the context, shows the steps (API: POST /build)."""

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from linkspan.core.cli import words
from linkspan.core.cli.command import Size, command
from linkspan.core.cli.common import key_values
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.image import stream_failure
from linkspan.core.cli.progress import Display
from linkspan.core.cli.session import Session
from linkspan.core.cli.terminal import paint
from linkspan.core.client.errors import ApiError
from linkspan.core.client.short import Answer
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.glob import PatternError

_CHUNK: Final = 256 * 1024
_OUTSIDE_NAME: Final = ".dockerfile.outside-the-context"


@command(
    "build",
    "Build an image from a Dockerfile and a folder.",
    examples=[
        "linkspan build -t web .",
        "linkspan build -t web -f deploy/Dockerfile --build-arg VERSION=2 --target app .",
    ],
    more=["linkspan push", "linkspan images"],
)
@click.argument("context")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="Its name")
@click.option("-f", "--file", "dockerfile", metavar="FILE", help="Instead of CONTEXT/Dockerfile")
@click.option("--build-arg", "arguments", multiple=True, metavar="NAME[=VALUE]", help="For ARG")
@click.option("--target", default="", metavar="STAGE", help="Stop at this stage")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label")
@click.option("--no-cache", is_flag=True, help="Run every step")
@click.option("--pull", is_flag=True, help="Ask the registry for newer base images")
@click.option("--network", default="", metavar="NAME", help="For RUN")
@click.option("--platform", default="", metavar="OS/ARCH", help="Of the image")
@click.option("--add-host", "hosts", multiple=True, metavar="NAME:IP", help="A line for /etc/hosts")
@click.option("-m", "--memory", type=Size(), metavar="BYTES", help="Memory limit for RUN")
@click.option("--shm-size", type=Size(), metavar="BYTES", help="Size of /dev/shm for RUN")
@click.option("--iidfile", metavar="FILE", help="Write the image's id there")
def build(
    session: Session,
    context: str,
    tags: tuple[str, ...],
    dockerfile: str | None,
    arguments: tuple[str, ...],
    labels: tuple[str, ...],
    hosts: tuple[str, ...],
    iidfile: str | None,
    **options: Any,
) -> None:
    """Build an image."""
    root = Path(context)
    if not root.is_dir():
        raise Failure(f"the build context '{context}' is not a folder", id="LS0004", status=USAGE)
    name, extra = _dockerfile(root, dockerfile)
    query = {
        "t": list(tags),
        "dockerfile": name,
        "buildargs": json.dumps(_build_arguments(arguments)),
        "labels": json.dumps(key_values(labels, "--label")),
        "target": options["target"] or None,
        "nocache": options["no_cache"] or None,
        "pull": options["pull"] or None,
        "networkmode": options["network"] or None,
        "platform": options["platform"] or None,
        "extrahosts": list(hosts),
        "memory": options["memory"],
        "shmsize": options["shm_size"],
        "rm": True,
        "version": "1",
    }
    steps = _Steps(tags[0] if tags else str(root))
    with Display(session, steps.lines, f"build of {steps.what}") as display:
        with _begin(session, query, root, name, extra) as answer:
            for record in answer.json_lines():
                display.event(record)
                if record.get("errorDetail") or record.get("error"):
                    for line in steps.unsaid(display.mode):
                        display.say(line)
                    raise stream_failure(record.get("errorDetail") or record["error"])
                for line in steps.take(record):
                    if display.mode == "plain":
                        display.say(line)
                display.update()
        terminal = session.terminal
        named = f"{', '.join(tags)}  " if tags else ""
        summary = (
            f"{terminal.painted_sign('done', on_err=False)} {named}"
            f"{words.short_digest(steps.image)}  {steps.summary}  {display.elapsed}"
        )
    if iidfile:
        Path(iidfile).write_text(steps.image)
    terminal.print(steps.image if session.quiet else summary)


def _begin(
    session: Session, query: dict[str, Any], root: Path, name: str, extra: bytes | None
) -> Answer:
    """Name the folder to a daemon that sees it, too; otherwise send it."""
    if extra is None:
        place = root.resolve()
        info = place.stat()
        named = {"folder": str(place), "folderid": f"{info.st_dev}:{info.st_ino}"}
        try:
            return session.api.open(
                "POST", "/linkspan/v1/build", {**query, **named}, silence_s=None
            )
        except ApiError as error:
            # Another daemon than ours, or one that lives in another file system.
            if error.status != 404:
                raise
    return session.api.open(
        "POST",
        "/build",
        query,
        headers={"Content-Type": "application/x-tar"},
        upload=context_tar(root, name, extra),
        silence_s=None,
    )


class _Steps:
    """What a build has said so far, from the classic builder's stream."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.image = ""
        self._step = ""
        self._steps = 0
        self._cached = 0
        self._tail: list[str] = []
        self._partial = ""

    @property
    def summary(self) -> str:
        return f"{self._steps} steps, {self._cached} cached"

    def take(self, record: dict[str, Any]) -> Iterator[str]:
        """Learn from one record; hand out whole lines to show."""
        aux = record.get("aux")
        if isinstance(aux, dict) and aux.get("ID"):
            self.image = str(aux["ID"])
        text = str(record.get("stream") or "")
        if not text and record.get("status") and not record.get("progressDetail"):
            identifier = f"{record['id']}: " if record.get("id") else ""
            text = f"{identifier}{record['status']}\n"
        self._partial += text
        *lines, self._partial = self._partial.split("\n")
        for line in lines:
            line = line.rstrip("\r")
            if line.startswith("Step "):
                self._step, self._steps, self._tail = line, self._steps + 1, []
            elif line.strip() == "---> Using cache":
                self._cached += 1
            elif line.startswith("Successfully built ") and not self.image:
                self.image = line.removeprefix("Successfully built ").strip()
            else:
                self._tail = [*self._tail, line][-20:]
            if line.strip():
                yield line

    def lines(self) -> list[str]:
        head = f"{self.what}  {self._step}" if self._step else f"{self.what}  sending the context"
        shown = [paint(f"  │ {line}", "dim", True) for line in self._tail[-4:] if line.strip()]
        return [head, *shown]

    def unsaid(self, mode: str) -> list[str]:
        """The end of the failing step's output, where it has not been shown as it came."""
        return [self._step, *self._tail] if mode == "live" and self._step else []


def _build_arguments(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and name in os.environ:
            value, equals = os.environ[name], "="
        if equals:
            found[name] = value
    return found


def _dockerfile(root: Path, named: str | None) -> tuple[str, bytes | None]:
    """Name of the Dockerfile inside the context, and its text if it lies outside."""
    if named is None:
        if not (root / "Dockerfile").is_file():
            raise Failure(
                f"there is no Dockerfile in '{root}'",
                id="LS0004",
                status=USAGE,
                helps=[f"linkspan build -f FILE {root}"],
            )
        return "Dockerfile", None
    if named == "-":
        import sys

        return _OUTSIDE_NAME, sys.stdin.buffer.read()
    path = Path(named)
    try:
        inside = path.resolve().relative_to(root.resolve())
        if path.is_file():
            return str(inside), None
    except ValueError:
        pass
    try:
        return _OUTSIDE_NAME, path.read_bytes()
    except OSError as exc:
        raise Failure(
            f"cannot read the Dockerfile '{named}': {exc.strerror}", id="LS0004", status=USAGE
        ) from exc


def context_tar(root: Path, dockerfile: str, extra: bytes | None) -> Iterator[bytes]:
    """The context as a tar archive, in pieces, while it is read.

    Args:
        root: The folder.
        dockerfile: Name in the archive; sent even if ``.dockerignore`` leaves it out.
        extra: The Dockerfile's text if it is not a file of the context.
    """
    ignore = _ignore_file(root, dockerfile)
    if extra is not None:
        info = tarfile.TarInfo(dockerfile)
        info.size = len(extra)
        yield _header(info) + extra + _padding(len(extra))
    # Nothing is written to this archive: it knows how to describe files, hard links among them.
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as describer:
        for path, name in _walk(root, ignore, {dockerfile, ".dockerignore"}):
            if path.is_socket():
                continue  # tar has no word for it
            try:
                info = describer.gettarinfo(path, name)
            except FileNotFoundError:
                continue  # it went away while we were reading
            info.uname = info.gname = ""
            yield _header(info)
            if info.isreg():
                yield from _content(path, info.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _content(path: Path, size: int) -> Iterator[bytes]:
    """So many bytes of a file, whatever becomes of it meanwhile: the header has promised them."""
    left = size
    with path.open("rb") as stream:
        while left and (data := stream.read(min(left, _CHUNK))):
            left -= len(data)
            yield data
    while left:
        zeros = bytes(min(left, _CHUNK))
        left -= len(zeros)
        yield zeros
    yield _padding(size)


def _ignore_file(root: Path, dockerfile: str) -> IgnorePatterns:
    """``Dockerfile.dockerignore`` beside the Dockerfile, else ``.dockerignore``."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            return IgnorePatterns.parse((root / name).read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PatternError as exc:
            raise Failure(str(exc), id="LS0004", status=USAGE) from exc
    return IgnorePatterns(())


def _walk(root: Path, ignore: IgnorePatterns, always: set[str]) -> Iterator[tuple[Path, str]]:
    """Paths to send, parents first, in a stable order."""
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        inside: list[tuple[Path, str]] = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                name = f"{prefix}{entry.name}"
                kept = name in always or not ignore.excludes(name)
                is_folder = entry.is_dir(follow_symlinks=False)
                if kept:
                    yield Path(entry.path), name
                holds_kept = any(path.startswith(f"{name}/") for path in always)
                if is_folder and (kept or ignore.has_negation or holds_kept):
                    inside.append((Path(entry.path), f"{name}/"))
        pending.extend(reversed(inside))
