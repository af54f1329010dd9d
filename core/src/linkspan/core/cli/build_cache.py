"""``linkspan build --cache-to`` and ``--cache-from``: caches in registries, folders and the image itself."""

import os
import shutil
import tarfile
import uuid
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

from linkspan.core.cli.archive import unpack
from linkspan.core.cli.build_context import context_tar
from linkspan.core.cli.build_options import fields, wrong_option
from linkspan.core.cli.image import stream_failure
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment

INLINE: Final = "BUILDKIT_INLINE_CACHE"
_LOCAL_NAME: Final = "linkspan-build-cache"


@attrs.define
class Caches:
    """What the options say.

    Attributes:
        sources: As the daemon takes them.
        targets: As the daemon takes them.
        inline: The image shall carry its own cache.
        folders_from: Folders that hold a cache.
        folders_to: Reference that the daemon makes → the folder that it is written to.
    """

    sources: list[dict[str, Any]] = attrs.field(factory=list)
    targets: list[dict[str, Any]] = attrs.field(factory=list)
    inline: bool = False
    folders_from: list[Path] = attrs.field(factory=list)
    folders_to: dict[str, Path] = attrs.field(factory=dict)


def read_caches(sources: Sequence[str], targets: Sequence[str]) -> Caches:
    """``REFERENCE`` or ``type=registry|local|inline,…``, each.

    Raises:
        Failure: One cannot be read.
    """
    caches = Caches()
    for text in sources:
        given = _given(text, "--cache-from", ("type", "ref", "src"))
        if given["type"] == "registry":
            caches.sources.append(
                {"reference": _needed(given, "ref", "--cache-from"), "fresh": True}
            )
        elif given["type"] == "local":
            caches.folders_from.append(Path(_needed(given, "src", "--cache-from")))
        else:
            raise wrong_option(f"type '{given['type']}' is not registry or local", "--cache-from")
    for text in targets:
        given = _given(text, "--cache-to", ("type", "ref", "dest", "mode"))
        every = given.get("mode", "min")
        if every not in ("min", "max"):
            raise wrong_option(f"mode '{every}' is not min or max", "--cache-to")
        target = {"every_stage": every == "max"}
        if given["type"] == "registry":
            reference = _needed(given, "ref", "--cache-to")
            caches.targets.append({**target, "reference": reference, "push": True})
        elif given["type"] == "local":
            folder = Path(_needed(given, "dest", "--cache-to"))
            if not folder.absolute().parent.is_dir():
                raise wrong_option(f"there is no folder '{folder.absolute().parent}'", "--cache-to")
            reference = f"{_LOCAL_NAME}:{uuid.uuid4().hex[:16]}"
            caches.targets.append({**target, "reference": reference, "push": False})
            caches.folders_to[reference] = folder
        elif given["type"] == "inline":
            caches.inline = True
        else:
            raise wrong_option(
                f"type '{given['type']}' is not registry, local or inline", "--cache-to"
            )
    return caches


def _given(text: str, option: str, keys: Sequence[str]) -> dict[str, str]:
    if "=" not in text:
        return {"type": "registry", "ref": text}
    return {"type": "registry", **fields(text, option, keys)}


def _needed(given: dict[str, str], key: str, option: str) -> str:
    if not given.get(key):
        raise wrong_option(f"type {given['type']} needs {key}=…", option)
    return given[key]


def send_folders(session: Session, caches: Caches) -> list[str]:
    """Give the caches of folders to the daemon; return the references to forget afterwards."""
    loaded: list[str] = []
    for folder in caches.folders_from:
        try:
            manifests = orjson.loads((folder / "manifest.json").read_bytes())
            names = [str(name) for entry in manifests for name in entry["RepoTags"]]
        except (OSError, ValueError, KeyError, TypeError):
            session.terminal.note(f"there is no build cache in '{folder}'; building without it")
            continue
        upload = context_tar(folder, "manifest.json", None)
        with session.api.open("POST", "/images/load", upload=upload, silence_s=None) as answer:
            for record in answer.json_lines():
                if record.get("errorDetail") or record.get("error"):
                    raise stream_failure(record.get("errorDetail") or record["error"])
        loaded += names
        # The first one names the others.
        caches.sources.append({"reference": names[0], "fresh": False})
    return loaded


def write_folders(session: Session, caches: Caches, made: Sequence[str]) -> None:
    """Write the caches that the daemon has made to their folders, and forget them there.

    Args:
        made: References that the daemon has told.
    """
    for reference, folder in caches.folders_to.items():
        names = [name for name in made if _is_of(name, reference)]
        with session.api.open("GET", "/images/get", {"names": names}, silence_s=None) as answer:
            fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
            root = tarfile.TarInfo(".")
            root.type, root.mode = tarfile.DIRTYPE, 0o755
            try:
                pieces = chain([root.tobuf(tarfile.PAX_FORMAT)], answer.pieces())
                unpack(pieces, fresh, owner=False)
                if folder.is_dir():
                    shutil.rmtree(folder)
                fresh.replace(folder)
            except OSError as exc:
                raise wrong_option(
                    f"cannot write '{folder}': {exc.strerror}", "--cache-to"
                ) from exc
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        forget_images(session, names)


def _is_of(name: str, reference: str) -> bool:
    """Whether a full reference is the short one, or one of its stages'."""
    tag = name.rpartition("/")[2]
    return tag == reference or tag.startswith(f"{reference}-")


def forget_images(session: Session, names: Sequence[str]) -> None:
    """Remove images that were here for the cache's sake."""
    for name in names:
        session.api.delete(f"/images/{segment(name)}", {"force": True})
