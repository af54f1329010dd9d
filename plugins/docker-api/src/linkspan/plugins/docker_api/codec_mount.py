"""Mounts between JSON (Mount, MountPoint) and the model."""

import posixpath
from typing import Any, Literal

from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import Container, Mount, MountPoint

MOUNT_TYPES: dict[str, Literal["bind", "volume", "tmpfs", "image"]] = {
    "bind": "bind",
    "volume": "volume",
    "tmpfs": "tmpfs",
    "image": "image",
}
_OPTIONS = {
    "bind": "BindOptions",
    "volume": "VolumeOptions",
    "tmpfs": "TmpfsOptions",
    "image": "ImageOptions",
}
_PROPAGATIONS = ("", "private", "rprivate", "shared", "rshared", "slave", "rslave")


def _invalid(kind: str, why: str) -> InvalidArgument:
    return InvalidArgument(f'invalid mount config for type "{kind}": {why}', code="invalid_mount")


def decode_mount(body: Document) -> Mount:
    """A Mount.

    Raises:
        InvalidArgument: With Docker's texts; code ``invalid_mount``.
    """
    kind, source, target = body.text("Type"), body.text("Source"), body.text("Target")
    if not target:
        raise _invalid(kind, "field Target must not be empty")
    known = MOUNT_TYPES.get(kind)
    if known is None:
        raise _invalid(kind, "mount type unknown")
    if not target.startswith("/"):
        raise _invalid(kind, f"invalid mount path: '{target}' mount path must be absolute")
    if posixpath.normpath(target) == "/":
        raise _invalid(kind, "invalid specification: destination can't be '/'")
    if known in ("bind", "image") and not source:
        raise _invalid(kind, "field Source must not be empty")
    if known == "bind" and not source.startswith("/"):
        raise _invalid(kind, f"invalid mount path: '{source}' mount path must be absolute")
    if known == "tmpfs" and source:
        raise _invalid(kind, "field Source must not be specified")
    bind, volume, tmpfs, image = (body.document(name) for name in _OPTIONS.values())
    for owner, name in _OPTIONS.items():
        if name in body and owner != known:
            raise InvalidArgument(f'{name} must not be specified on mount type "{kind}"')
    if bind.text("Propagation") not in _PROPAGATIONS:
        raise _invalid(kind, f"invalid propagation mode: {bind.text('Propagation')}")
    for options in (volume, image):
        if (part := options.text("Subpath")) and not _is_local(part):
            raise _invalid(kind, f"subpath must be a relative path within the {kind}")
    if known == "volume" and not source:
        if volume.text("Subpath"):
            raise _invalid(kind, "must not set Subpath when using anonymous volumes")
        if body.flag("ReadOnly"):
            raise _invalid(kind, "must not set ReadOnly mode when using anonymous volumes")
    below = _recursion(bind, read_only=body.flag("ReadOnly"))
    driver = volume.document("DriverConfig")
    return Mount(
        type=known,
        source=source,
        target=target,
        read_only=body.flag("ReadOnly"),
        propagation=bind.text("Propagation"),
        no_copy=volume.flag("NoCopy"),
        volume_subpath=volume.text("Subpath"),
        image_subpath=image.text("Subpath"),
        volume_driver=driver.text("Name"),
        volume_labels=volume.text_map("Labels"),
        volume_options=driver.text_map("Options"),
        size_bytes=tmpfs.number("SizeBytes"),
        mode=tmpfs.unsigned("Mode", 32) if "Mode" in tmpfs else None,
        options=_tmpfs_words(tmpfs),
        create_source=bind.flag("CreateMountpoint"),
        recursive=not bind.flag("NonRecursive"),
        read_only_recursive=below,
    )


def _is_local(path: str) -> bool:
    return not path.startswith("/") and posixpath.normpath(path).partition("/")[0] != ".."


def _recursion(bind: Document, *, read_only: bool) -> Literal["try", "must", "never"]:
    never, must = bind.flag("ReadOnlyNonRecursive"), bind.flag("ReadOnlyForceRecursive")
    if (never or must) and not read_only:
        name = "ReadOnlyNonRecursive" if never else "ReadOnlyForceRecursive"
        raise _invalid("bind", f"mount must be configured as read-only to use {name}")
    if never and must:
        raise _invalid("bind", "ReadOnlyForceRecursive conflicts with ReadOnlyNonRecursive")
    if must and bind.flag("NonRecursive"):
        raise _invalid("bind", "ReadOnlyForceRecursive conflicts with NonRecursive")
    return "never" if never else "must" if must else "try"


def _tmpfs_words(tmpfs: Document) -> tuple[str, ...]:
    """``TmpfsOptions.Options``: ``[["noexec"], ["uid", "0"]]``."""
    words = []
    for pair in tmpfs.items("Options"):
        if not isinstance(pair, list) or not 1 <= len(pair) <= 2:
            raise _invalid(
                "tmpfs", "each of TmpfsOptions.Options must have a name, or name and value"
            )
        if not all(isinstance(word, str) and "," not in word for word in pair):
            raise _invalid("tmpfs", "TmpfsOptions.Options must be strings without commas")
        words.append("=".join(pair))
    return tuple(words)


def encode_mount(mount: Mount) -> dict[str, Any]:
    """A Mount, with the options that were given."""
    source = {"Source": mount.source} if mount.source else {}
    out: dict[str, Any] = {"Type": mount.type, **source, "Target": mount.target}
    if mount.read_only:
        out["ReadOnly"] = True
    if mount.type == "bind" and (options := _bind_options(mount)):
        out["BindOptions"] = options
    if mount.type == "volume":
        options = {}
        if mount.no_copy:
            options["NoCopy"] = True
        if mount.volume_subpath:
            options["Subpath"] = mount.volume_subpath
        if mount.volume_labels:
            options["Labels"] = dict(mount.volume_labels)
        if mount.volume_driver or mount.volume_options:
            options["DriverConfig"] = {
                "Name": mount.volume_driver,
                "Options": dict(mount.volume_options),
            }
        if options:
            out["VolumeOptions"] = options
    if mount.type == "image" and mount.image_subpath:
        out["ImageOptions"] = {"Subpath": mount.image_subpath}
    if mount.type == "tmpfs" and (mount.size_bytes or mount.options or mount.mode is not None):
        options = {"SizeBytes": mount.size_bytes} if mount.size_bytes else {}
        if mount.options:
            options["Options"] = [option.split("=", 1) for option in mount.options]
        if mount.mode is not None:
            options["Mode"] = mount.mode
        out["TmpfsOptions"] = options
    return out


def _bind_options(mount: Mount) -> dict[str, Any]:
    options: dict[str, Any] = {
        "Propagation": mount.propagation,
        "NonRecursive": not mount.recursive,
        "CreateMountpoint": mount.create_source,
        "ReadOnlyNonRecursive": mount.read_only_recursive == "never",
        "ReadOnlyForceRecursive": mount.read_only_recursive == "must",
    }
    return {name: value for name, value in options.items() if value}


def encode_mount_points(container: Container) -> list[dict[str, Any]]:
    """``Mounts`` of inspect and list: all but those of ``--tmpfs``, as Docker has it."""
    hidden = {posixpath.normpath(target) for target in container.spec.tmpfs}
    return [
        _encode_mount_point(point)
        for point in container.mounts
        if point.type != "tmpfs" or point.destination not in hidden
    ]


def _encode_mount_point(point: MountPoint) -> dict[str, Any]:
    out: dict[str, Any] = {"Type": point.type}
    if point.name:
        out["Name"] = point.name
    out["Source"] = point.source
    out["Destination"] = point.destination
    if point.driver:
        out["Driver"] = point.driver
    return {
        **out,
        "Mode": point.mode,
        "RW": not point.read_only,
        "Propagation": point.propagation,
    }
