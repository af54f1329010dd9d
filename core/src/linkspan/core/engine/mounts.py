"""What ``-v``, ``--mount`` and ``--tmpfs`` mean: from text to mount points."""

import posixpath
from collections.abc import Iterable
from typing import Literal

import attrs

from linkspan.core.engine.names import NAME
from linkspan.sdk.drivers.runtime import BundleMount
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import ContainerSpec, Mount, MountPoint

# Words of the third part of ``-v``; of each kind there may be one.
_MODE_KINDS = {
    **dict.fromkeys(("ro", "rw"), "write"),
    **dict.fromkeys(("private", "rprivate", "shared", "rshared", "slave", "rslave"), "propagation"),
    "nocopy": "copy",
    **dict.fromkeys(("z", "Z"), "label"),
    **dict.fromkeys(("delegated", "cached", "consistent"), "consistency"),
}
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")


def parse_bind(text: str, *, volume_driver: str = "") -> Mount:
    """``SRC:DST[:OPTIONS]`` or ``DST`` as ``-v`` takes it.

    Raises:
        InvalidArgument: code ``invalid_mount``; Docker's texts.
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise _invalid(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return Mount(
            type="volume", target=_target(parts[0], text, "volume"), volume_driver=volume_driver
        )
    source = parts[0]
    kind: Literal["bind", "volume"] = "bind" if source.startswith("/") else "volume"
    mount = Mount(
        type=kind,
        source=posixpath.normpath(source) if kind == "bind" else source,
        target=_target(parts[1], text, kind),
        create_source=True,
        volume_driver=volume_driver if kind == "volume" else "",
    )
    if kind == "volume" and NAME.fullmatch(source) is None:
        raise _invalid(
            f'create {source}: "{source}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use '
            "absolute path"
        )
    return _with_options(mount, parts[2], text) if len(parts) == 3 else mount


def _with_options(mount: Mount, mode: str, text: str) -> Mount:
    words: dict[str, str] = {}
    for option in mode.split(","):
        kind = _MODE_KINDS.get(option)
        if kind is None or kind in words:
            raise _invalid(f"invalid mode: {mode}")
        words[kind] = option
    foreign = {"bind": "copy", "volume": "propagation"}[mount.type]
    if foreign in words:
        field = "VolumeOptions" if foreign == "copy" else "BindOptions"
        raise _invalid(
            f"invalid volume specification: '{text}': invalid mount config for type "
            f'"{mount.type}": field {field} must not be specified'
        )
    return attrs.evolve(
        mount,
        mode_text=mode,
        read_only=words.get("write") == "ro",
        propagation=words.get("propagation", ""),
        no_copy="copy" in words,
    )


def _target(path: str, text: str = "", kind: str = "") -> str:
    head = (
        f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": "
        if text
        else ""
    )
    if not path.startswith("/"):
        raise _invalid(f"{head}invalid mount path: '{path}' mount path must be absolute")
    clean = posixpath.normpath(path)
    if clean in ("/", "//"):
        raise _invalid(f"{head}invalid specification: destination can't be '/'")
    return clean


def _invalid(why: str) -> InvalidArgument:
    return InvalidArgument(why, code="invalid_mount")


def wanted_mounts(spec: ContainerSpec, image_volumes: Iterable[str]) -> list[Mount]:
    """All mounts a container asks for, the outer ones first; one a target.

    Raises:
        InvalidArgument: code ``invalid_mount``: a target twice, or a text that is no mount.
    """
    found: dict[str, Mount] = {}
    asked = [
        *(parse_bind(text, volume_driver=spec.volume_driver) for text in spec.binds),
        *(attrs.evolve(m, target=_target(m.target)) for m in spec.mounts),
        *(_tmpfs(target, options) for target, options in spec.tmpfs.items()),
    ]
    for mount in asked:
        if mount.target in found:
            raise _invalid(f"Duplicate mount point: {mount.target}")
        if mount.read_only_recursive == "try" and not spec.read_only_below:
            mount = attrs.evolve(mount, read_only_recursive="never")
        found[mount.target] = mount
    for target in (*spec.volumes, *image_volumes):
        # Unlike other targets these may be relative: to the root, wherever the command starts.
        clean = _target("/" + target.removeprefix("/"))
        found.setdefault(clean, Mount(type="volume", target=clean))
    return sorted(found.values(), key=lambda m: m.target.count("/"))


def _tmpfs(target: str, options: str) -> Mount:
    return Mount(
        type="tmpfs",
        target=_target(target),
        options=tuple(option for option in options.split(",") if option),
    )


def tmpfs_options(mount: Mount) -> tuple[str, ...]:
    """Options for mount(8); what the user wrote wins over our defaults."""
    options = [o for o in _TMPFS_DEFAULTS if o.removeprefix("no") not in mount.options]
    options += mount.options
    if mount.size_bytes:
        options.append(f"size={mount.size_bytes}")
    if mount.mode is not None:
        options.append(f"mode={mount.mode:o}")
    if mount.read_only:
        options.append("ro")
    return tuple(options)


def bundle_mount(point: MountPoint, wanted: Mount | None) -> BundleMount:
    """A mount point as the runtime takes it."""
    if point.type == "tmpfs":
        options = tmpfs_options(wanted) if wanted else _TMPFS_DEFAULTS
        return BundleMount(
            destination=point.destination, type="tmpfs", source="tmpfs", options=options
        )
    if point.type == "image":
        return BundleMount(
            destination=point.destination,
            type="bind",
            source=point.source,
            options=("bind", "rprivate", "ro"),
        )
    recursive = wanted is None or wanted.recursive
    below = wanted.read_only_recursive if wanted is not None else "try"
    options = (
        "rbind" if recursive else "bind",
        point.propagation or "rprivate",
        "ro" if point.read_only else "rw",
    )
    return BundleMount(
        destination=point.destination,
        type="bind",
        source=point.source,
        options=options,
        read_only_below=below if point.read_only and recursive else "never",
    )
