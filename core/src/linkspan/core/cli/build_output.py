"""``linkspan build --output``: where the result goes besides the daemon's images."""

import itertools
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from linkspan.core.cli.build_options import fields, wrong_option
from linkspan.core.cli.credentials import registry_auth
from linkspan.core.cli.image import split_reference, stream_failure
from linkspan.core.cli.image_files import receive
from linkspan.core.cli.output_file import output_file
from linkspan.core.cli.session import Session
from linkspan.core.client.short import Answer, segment

_OPTION: Final = "--output"
_KEYS: Final = ("type", "dest", "name", "push")
_TYPES: Final = ("local", "tar", "docker", "oci", "image", "registry")


@attrs.frozen(kw_only=True)
class Output:
    """One ``--output``.

    Attributes:
        kind: ``local`` (a folder), ``tar`` (of the files), ``docker``, ``oci`` (an image archive), ``image``.
        dest: A folder or file; ``-`` for stdout; empty for the daemon's images.
        push: Send the image to its registry.
    """

    kind: str
    dest: str = ""
    names: tuple[str, ...] = ()
    push: bool = False

    @property
    def is_stdout(self) -> bool:
        """Whether it is written to stdout, where nothing else may go then."""
        return self.dest == "-"

    @property
    def keeps_image(self) -> bool:
        """Whether the image stays with the daemon."""
        return not self.dest


def read_outputs(texts: Sequence[str]) -> list[Output]:
    """``-o FOLDER``, ``-o -`` or ``-o type=…,dest=…``, each.

    Raises:
        Failure: One cannot be read.
    """
    outputs = [_read(text) for text in texts]
    if sum(output.is_stdout for output in outputs) > 1:
        raise wrong_option("only one can be written to stdout", _OPTION)
    return outputs


def _read(text: str) -> Output:
    if text == "-":
        return _checked(Output(kind="tar", dest="-"))
    if "=" not in text:
        return Output(kind="local", dest=text)
    given = fields(text, _OPTION, _KEYS)
    kind = given.get("type", "")
    if kind not in _TYPES:
        raise wrong_option(f"type '{kind}' is none of {', '.join(_TYPES)}", _OPTION)
    dest = given.get("dest", "")
    if kind in ("local", "tar", "oci") and not dest:
        raise wrong_option(f"'{text}' has no dest", _OPTION)
    if kind in ("image", "registry") and dest:
        raise wrong_option(f"type {kind} has no dest", _OPTION)
    push = kind == "registry" or given.get("push", "false").lower() in ("true", "1")
    names = tuple(name for name in given.get("name", "").split(",") if name)
    kind = "image" if kind == "registry" else kind
    return _checked(Output(kind=kind, dest=dest, names=names, push=push))


def _checked(output: Output) -> Output:
    if output.is_stdout:
        if output.kind == "local":
            raise wrong_option("a folder cannot be written to stdout", _OPTION)
        if sys.stdout.isatty():
            raise wrong_option("an archive is not written to a terminal", _OPTION)
    elif output.dest and output.kind != "local":
        output_file(output.dest)
    elif output.dest and not Path(output.dest).absolute().parent.is_dir():
        raise wrong_option(f"there is no folder '{Path(output.dest).absolute().parent}'", _OPTION)
    return output


def known_images(session: Session) -> set[str]:
    """Ids of the images that the daemon has."""
    return {image["Id"] for image in session.api.get("/images/json", {"all": True})}


def deliver(session: Session, outputs: Sequence[Output], image: str, tags: Sequence[str]) -> None:
    """Write or send the result wherever it was asked for.

    Raises:
        Failure: A file cannot be written, or a registry refuses.
    """
    for output in outputs:
        if output.push:
            for name in tags:
                _push(session, name)
        if output.kind in ("local", "tar"):
            with _file_system(session, image) as answer:
                if output.kind == "local":
                    _unpack(answer.pieces(), Path(output.dest).resolve())
                else:
                    _write(session, answer, output.dest)
        elif output.dest:
            names = list(tags) or [image]
            with session.api.open("GET", "/images/get", {"names": names}, silence_s=None) as answer:
                _write(session, answer, output.dest)


def forget(session: Session, image: str, known: set[str]) -> None:
    """Remove an image that was made only to be written elsewhere."""
    if image not in known and not session.api.get(f"/images/{segment(image)}/json")["RepoTags"]:
        session.api.delete(f"/images/{segment(image)}")


@contextmanager
def _file_system(session: Session, image: str) -> Iterator[Answer]:
    """The files of an image as a tar."""
    made = session.api.post("/containers/create", None, {"Image": image, "Cmd": ["-"]})["Id"]
    try:
        with session.api.open("GET", f"/containers/{made}/export", silence_s=None) as answer:
            yield answer
    finally:
        session.api.delete(f"/containers/{made}", {"force": True, "v": True})


def _unpack(pieces: Iterator[bytes], folder: Path) -> None:
    from linkspan.core.cli.archive import unpack

    # The archive has no entry for its root, which is what the folder becomes.
    root = tarfile.TarInfo(".")
    root.type, root.mode = tarfile.DIRTYPE, 0o755
    unpack(itertools.chain([root.tobuf(tarfile.PAX_FORMAT)], pieces), folder, owner=False)


def _write(session: Session, answer: Answer, dest: str) -> None:
    receive(session, answer, "" if dest == "-" else dest, f"output to {dest}")


def _push(session: Session, name: str) -> None:
    headers = {"X-Registry-Auth": registry_auth(name)}
    bare, tag = split_reference(name)
    path = f"/images/{segment(bare)}/push"
    with session.api.open("POST", path, {"tag": tag}, headers=headers, silence_s=None) as answer:
        for record in answer.json_lines():
            if record.get("errorDetail") or record.get("error"):
                raise stream_failure(record.get("errorDetail") or record["error"])
