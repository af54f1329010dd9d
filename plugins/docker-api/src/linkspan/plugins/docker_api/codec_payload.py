"""Secrets and configs, and references to them in services, between JSON and the model."""

import base64
import binascii
import posixpath
from collections.abc import Iterable
from typing import Any

from linkspan.plugins.docker_api.document import Document
from linkspan.plugins.docker_api.timestamps import or_never
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.service import FileReference, Payload, PayloadKind, PayloadSpec

# Where a relative target lies.
_FOLDERS: dict[PayloadKind, str] = {"secret": "/run/secrets", "config": "/"}
_WORDS: dict[PayloadKind, str] = {"secret": "Secret", "config": "Config"}


def decode_payload(kind: PayloadKind, body: Document) -> PayloadSpec:
    """A SecretSpec or ConfigSpec.

    Raises:
        InvalidArgument: The data is not base64.
        Unsupported: A driver, or another template language than Go's.
    """
    if body.document("Driver").text("Name"):
        raise Unsupported(
            f"drivers of {kind}s are not supported: '{body.document('Driver').text('Name')}'"
        )
    templating = body.document("Templating").text("Name")
    if templating not in ("", "golang"):
        raise Unsupported(f"templating driver '{templating}' is not supported; use golang")
    try:
        # Go's clients write both alphabets.
        text = body.text("Data").replace("-", "+").replace("_", "/")
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"{body.at('Data')} is not base64: {error}") from error
    return PayloadSpec(
        name=body.text("Name"),
        data=data,
        labels=body.text_map("Labels"),
        template=bool(templating),
    )


def encode_payload(payload: Payload) -> dict[str, Any]:
    """A Secret or Config; only a config that was asked for by name has data."""
    spec: dict[str, Any] = {"Name": payload.spec.name, "Labels": dict(payload.spec.labels)}
    if payload.kind == "config":
        spec["Data"] = base64.b64encode(payload.spec.data).decode()
    if payload.spec.template:
        spec["Templating"] = {"Name": "golang"}
    return {
        "ID": payload.id,
        "Version": {"Index": payload.version},
        "CreatedAt": or_never(payload.created_at),
        "UpdatedAt": or_never(payload.updated_at),
        "Spec": spec,
    }


def decode_files(container: Document) -> tuple[FileReference, ...]:
    """ContainerSpec.Secrets and .Configs.

    Raises:
        InvalidArgument: A reference is incomplete.
    """
    return (*_decode("secret", container), *_decode("config", container))


def _decode(kind: PayloadKind, container: Document) -> Iterable[FileReference]:
    word = _WORDS[kind]
    for body in container.documents(f"{word}s"):
        name, found = body.text(f"{word}Name"), body.text(f"{word}ID")
        if not name or not found:
            raise InvalidArgument(
                f"rpc error: code = InvalidArgument desc = malformed {kind} reference"
            )
        file = body.document("File")
        if not file:
            _refuse_without_file(kind, body)
        target = file.text("Name") or name
        yield FileReference(
            kind=kind,
            id=found,
            name=name,
            target=posixpath.normpath(posixpath.join(_FOLDERS[kind], target)),
            uid=_number(file, "UID"),
            gid=_number(file, "GID"),
            mode=file.number("Mode", 0o444) & 0o7777,
            said=file.text("Name"),
        )


def _refuse_without_file(kind: PayloadKind, body: Document) -> None:
    if kind == "secret":
        raise InvalidArgument(
            "rpc error: code = InvalidArgument desc = malformed secret reference, no target provided"
        )
    if "Runtime" in body:
        raise Unsupported("configs that are not files are not supported")
    raise InvalidArgument("invalid Config: either File or Runtime should be set")


def _number(file: Document, key: str) -> int:
    text = file.text(key) or "0"
    if not text.isdecimal() or len(text) > 10:
        raise InvalidArgument(f"{file.at(key)} must be a number, not '{text}'")
    return int(text)


def encode_files(files: Iterable[FileReference]) -> dict[str, Any]:
    """Both lists, each only if it has entries."""
    out: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        word = _WORDS[file.kind]
        folder = _FOLDERS[file.kind].rstrip("/") + "/"
        inside = file.kind == "secret" and file.target.startswith(folder)
        out.setdefault(f"{word}s", []).append(
            {
                "File": {
                    "Name": file.said
                    or (file.target.removeprefix(folder) if inside else file.target),
                    "UID": str(file.uid),
                    "GID": str(file.gid),
                    "Mode": file.mode,
                },
                f"{word}ID": file.id,
                f"{word}Name": file.name,
            }
        )
    return out
