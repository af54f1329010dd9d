"""Options of ``linkspan build`` that need reading: secrets, contexts, build arguments."""

from __future__ import annotations

import os

from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.client import quick_json

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes longer than a short command may
    from collections.abc import Iterator, Sequence
    from typing import Any, Final

    from linkspan.core.cli.build_stdin import Archive

_OUTSIDE_NAME: Final = ".dockerfile.outside-the-context"
PARCEL_TYPE = "application/vnd.linkspan.build"
_MAX_SECRET_BYTES = 512_000


class Request:
    """What is sent.

    Attributes:
        query: Parameters of Docker's ``/build``.
        extras: What that cannot carry.
        folder: None for a context that the daemon fetches itself, or that came by stdin.
        dockerfile: Its name in the folder.
        outside: Its text if it lies elsewhere.
        archive: Makes the context of stdin.
    """

    def __init__(
        self,
        query: dict[str, Any],
        extras: dict[str, Any],
        folder: str | None,
        context: str,
        dockerfile: str,
        outside: bytes | None,
        archive: Archive | None = None,
    ) -> None:
        self.query = query
        self.extras = extras
        self.folder = folder
        self.context = context
        self.dockerfile = dockerfile
        self.outside = outside
        self.archive = archive

    def changed(self, query: dict[str, Any], extras: dict[str, Any] | None = None) -> Request:
        """The same with other parameters, and with other extras if they are given."""
        extras = self.extras if extras is None else extras
        where = self.folder, self.context, self.dockerfile, self.outside, self.archive
        return Request(query, extras, *where)


def parcel(extras: dict[str, Any]) -> bytes:
    """What Docker's ``/build`` has no parameter for, as the daemon's own endpoint takes it."""
    document = quick_json.dumps(extras).encode()
    return b"%d\n%s" % (len(document), document)


def build_arguments(pairs: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE``; a bare name takes the value of this environment, if it has one."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and name in os.environ:
            value, equals = os.environ[name], "="
        if equals:
            found[name] = value
    return found


def fields(text: str, option: str, allowed: Sequence[str]) -> dict[str, str]:
    """``key=value,key=value``; quotes hold commas.

    Raises:
        Failure: A field has no value, or a key that the option does not know.
    """
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as exc:
        raise wrong_option(f"'{text}' cannot be read: {exc}", option) from exc
    found = {}
    for field in rows[0] if rows else ():
        key, equals, value = field.partition("=")
        if not equals or key not in allowed:
            raise wrong_option(
                f"'{field}' is none of {', '.join(f'{k}=…' for k in allowed)}", option
            )
        found[key] = value
    return found


def read_secrets(texts: Sequence[str]) -> dict[str, str]:
    """``id=ID[,src=FILE][,env=VARIABLE]``, each; id → value in base64.

    Without ``src`` and ``env`` it is the variable of that name, else the file.
    """
    found = {}
    for text in texts:
        given = fields(text, "--secret", ("id", "src", "source", "env", "type"))
        name = given.get("id", "")
        if not name:
            raise wrong_option(f"'{text}' has no id", "--secret")
        path = given.get("src", given.get("source", ""))
        variable = given.get("env", "")
        if not path and not variable:
            if name in os.environ and given.get("type") != "file":
                variable = name
            else:
                path = name
        data = _of_environment(variable) if variable else _of_file(path)
        if len(data) > _MAX_SECRET_BYTES:
            raise wrong_option(
                f"the secret '{name}' is larger than {_MAX_SECRET_BYTES} bytes", "--secret"
            )
        import base64

        found[name] = base64.b64encode(data).decode()
    return found


def _of_environment(variable: str) -> bytes:
    if variable not in os.environ:
        raise wrong_option(f"the environment has no variable '{variable}'", "--secret")
    return os.fsencode(os.environ[variable])


def _of_file(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            return stream.read()
    except OSError as exc:
        raise wrong_option(f"cannot read the secret '{path}': {exc.strerror}", "--secret") from exc


def named_contexts(pairs: Sequence[str]) -> Iterator[dict[str, str]]:
    """``NAME=FOLDER`` or ``NAME=docker-image://IMAGE``, each, as the daemon takes it."""
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals or not value:
            raise wrong_option(f"'{pair}' is not of the form name=folder", "--build-context")
        scheme, separator, rest = value.partition("://")
        if separator and scheme != "docker-image":
            raise wrong_option(f"'{value}' is no folder and no docker-image://…", "--build-context")
        if separator:
            yield {"name": name, "image": rest}
            continue
        if not os.path.isdir(value):  # noqa: PTH112
            raise wrong_option(f"the build context '{value}' is not a folder", "--build-context")
        yield {"name": name, **folder_here(value)}


# os.path here and below: pathlib takes longer to import than a cached build may.


def folder_here(folder: str) -> dict[str, str]:
    """A folder by name and identity: a daemon that sees the same one reads it itself."""
    place = os.path.realpath(folder)
    info = os.stat(place)  # noqa: PTH116
    return {"folder": place, "folderid": f"{info.st_dev}:{info.st_ino}"}


def wrong_option(message: str, option: str) -> Failure:
    """A value of an option that cannot be used."""
    return Failure(f"{option}: {message}", id="LS0004", status=USAGE)


def find_dockerfile(root: str, named: str | None) -> tuple[str, bytes | None]:
    """Name of the Dockerfile inside the context, and its text if it lies outside."""
    if named is None:
        if not os.path.isfile(os.path.join(root, "Dockerfile")):  # noqa: PTH113, PTH118
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
    from pathlib import Path

    path = Path(named)
    try:
        inside = path.resolve().relative_to(Path(root).resolve())
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
