"""Mounts between JSON (Mount, MountPoint) and the model."""

import posixpath
from typing import Any, Literal

from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.container import Mount, MountPoint

_TYPES: dict[str, Literal["bind", "volume", "tmpfs"]] = {
    "bind": "bind",
    "volume": "volume",
    "tmpfs": "tmpfs",
}
_PROPAGATIONS = ("", "private", "rprivate", "shared", "rshared", "slave", "rslave")


def _invalid(kind: str, why: str) -> InvalidArgument:
    return InvalidArgument(f'invalid mount config for type "{kind}": {why}', code="invalid_mount")


def decode_mount(body: Document) -> Mount:
    """A Mount.

    Raises:
        InvalidArgument: With Docker's texts; code ``invalid_mount``.
        Unsupported: A kind that exists in Docker and not here.
    """
    kind = body.text("Type")
    if kind in ("npipe", "cluster", "image"):
        raise Unsupported(f"mounts of type '{kind}' are not supported; use bind, volume or tmpfs")
    known = _TYPES.get(kind)
    if known is None:
        raise _invalid(kind, "mount type unknown")
    source, target = body.text("Source"), body.text("Target")
    if not target:
        raise _invalid(kind, "field Target must not be empty")
    if not target.startswith("/"):
        raise _invalid(kind, f"invalid mount path: '{target}' mount path must be absolute")
    if posixpath.normpath(target) == "/":
        raise _invalid(kind, "invalid specification: destination can't be '/'")
    if known == "bind" and not source:
        raise _invalid(kind, "field Source must not be empty")
    if known == "bind" and not source.startswith("/"):
        raise _invalid(kind, f"invalid mount path: '{source}' mount path must be absolute")
    if known == "tmpfs" and source:
        raise _invalid(kind, "field Source must not be specified")
    bind, volume, tmpfs = (body.document(f"{k}Options") for k in ("Bind", "Volume", "Tmpfs"))
    for name, options, owner in (
        ("BindOptions", bind, "bind"),
        ("VolumeOptions", volume, "volume"),
        ("TmpfsOptions", tmpfs, "tmpfs"),
    ):
        if options and owner != known:
            raise _invalid(kind, f"field {name} must not be specified")
    if bind.text("Propagation") not in _PROPAGATIONS:
        raise _invalid(kind, f"invalid propagation mode: {bind.text('Propagation')}")
    if volume.text("Subpath"):
        raise Unsupported("a subpath of a volume cannot be mounted; mount the volume itself")
    driver = volume.document("DriverConfig")
    return Mount(
        type=known,
        source=source,
        target=target,
        read_only=body.flag("ReadOnly"),
        propagation=bind.text("Propagation"),
        no_copy=volume.flag("NoCopy"),
        volume_driver=driver.text("Name"),
        volume_labels=volume.text_map("Labels"),
        volume_options=driver.text_map("Options"),
        size_bytes=tmpfs.number("SizeBytes"),
        mode=tmpfs.number("Mode") if "Mode" in tmpfs else None,
        create_source=bind.flag("CreateMountpoint"),
    )


def encode_mount(mount: Mount) -> dict[str, Any]:
    """A Mount, with the options that were given."""
    out: dict[str, Any] = {"Type": mount.type, "Source": mount.source, "Target": mount.target}
    if mount.read_only:
        out["ReadOnly"] = True
    if mount.type == "bind" and (mount.propagation or mount.create_source):
        options: dict[str, Any] = {}
        if mount.propagation:
            options["Propagation"] = mount.propagation
        if mount.create_source:
            options["CreateMountpoint"] = True
        out["BindOptions"] = options
    if mount.type == "volume":
        options = {}
        if mount.no_copy:
            options["NoCopy"] = True
        if mount.volume_labels:
            options["Labels"] = dict(mount.volume_labels)
        if mount.volume_driver or mount.volume_options:
            options["DriverConfig"] = {
                "Name": mount.volume_driver,
                "Options": dict(mount.volume_options),
            }
        if options:
            out["VolumeOptions"] = options
    if mount.type == "tmpfs" and (mount.size_bytes or mount.mode is not None):
        options = {"SizeBytes": mount.size_bytes}
        if mount.mode is not None:
            options["Mode"] = mount.mode
        out["TmpfsOptions"] = options
    return out


def encode_mount_point(point: MountPoint) -> dict[str, Any]:
    """A MountPoint of a container's inspect and list."""
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
