"""What ``-v``, ``--mount`` and ``--tmpfs`` mean: from text to mount points."""

import posixpath
from collections.abc import Iterable

import attrs

from linkspan.core.engine.names import NAME
from linkspan.sdk.drivers.runtime import BundleMount
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import ContainerSpec, Mount, MountPoint

_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")


def parse_bind(text: str) -> Mount:
    """``SRC:DST[:OPTIONS]`` or ``DST`` as ``-v`` takes it.

    Raises:
        InvalidArgument: code ``invalid_mount``.
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise _invalid(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return Mount(type="volume", target=_target(parts[0], text))
    source, target = parts[0], _target(parts[1], text)
    options = parts[2].split(",") if len(parts) == 3 else []
    mount = Mount(
        type="bind" if source.startswith("/") else "volume",
        source=posixpath.normpath(source) if source.startswith("/") else source,
        target=target,
        create_source=True,
    )
    if mount.type == "volume" and NAME.fullmatch(source) is None:
        raise _invalid(
            f'"{source}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use '
            "absolute path"
        )
    return _with_options(mount, options, text)


def _with_options(mount: Mount, options: Iterable[str], text: str) -> Mount:
    for option in options:
        if option in ("ro", "rw"):
            mount = attrs.evolve(mount, read_only=option == "ro")
        elif option in _PROPAGATIONS:
            mount = attrs.evolve(mount, propagation=option)
        elif option == "nocopy":
            mount = attrs.evolve(mount, no_copy=True)
        elif option not in ("z", "Z", "delegated", "cached", "consistent"):
            raise _invalid(f"invalid mode: {option} in '{text}'")
    return mount


def _target(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise _invalid(f"invalid volume specification: '{text}': mount path must be absolute")
    clean = posixpath.normpath(path)
    if clean in ("/", "//"):
        raise _invalid(f"invalid volume specification: '{text}': destination can't be '/'")
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
        *(parse_bind(text) for text in spec.binds),
        *(attrs.evolve(m, target=_target(m.target, m.target)) for m in spec.mounts),
        *(_tmpfs(target, options) for target, options in spec.tmpfs.items()),
    ]
    for mount in asked:
        if mount.target in found:
            raise _invalid(f"Duplicate mount point: {mount.target}")
        found[mount.target] = mount
    for target in (*spec.volumes, *image_volumes):
        clean = _target(target, target)
        found.setdefault(clean, Mount(type="volume", target=clean))
    return sorted(found.values(), key=lambda m: m.target.count("/"))


def _tmpfs(target: str, options: str) -> Mount:
    return Mount(
        type="tmpfs",
        target=_target(target, target),
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
    options = ("rbind", point.propagation or "rprivate", "ro" if point.read_only else "rw")
    return BundleMount(
        destination=point.destination, type="bind", source=point.source, options=options
    )
