"""What the driver finds on the machine and sets up once: programs, cgroups, folders, facts."""

import contextlib
import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from linkspan.plugins.oci_runtime import (
    cgroups,
    mount_namespace,
    programs,
    seccomp,
)
from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.layout import Layout
from linkspan.plugins.oci_runtime.machine import Machine
from linkspan.sdk import syscalls
from linkspan.sdk.errors import InvalidArgument, NotUsable
from linkspan.sdk.machine import boot_id
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Tools:
    """See the module; made and closed in a worker thread.

    Attributes:
        runtime_path: The runtime's program, where possible through a read-only mount: crun then need not
            copy itself before it enters a container (a millisecond each call).
        prefix: Words before every command line, where this process is not in the right mount namespace.
        filters: Compiled seccomp filters; None if the runtime cannot take them.
        token: Tells this driver's things from those of other daemons on the machine.
    """

    layout: Layout
    runtime: programs.Program
    runtime_path: str
    conmon: str
    groups: cgroups.Hierarchies
    machine: Machine
    default_profile: Mapping[str, Any]
    filters: seccomp.FilterCache | None
    boot: str
    token: str
    parent: str
    prefix: tuple[str, ...] = ()
    holder: "subprocess.Popen[bytes] | None" = None

    @property
    def is_crun(self) -> bool:
        """Whether the runtime is crun."""
        return self.runtime.name == "crun"

    @property
    def runtime_words(self) -> tuple[str, ...]:
        """The command line of the runtime up to its verb."""
        return (*self.prefix, self.runtime_path, "--root", str(self.layout.runtime_state))

    @classmethod
    def make(
        cls, config: OciConfig, run_dir: Path, state_dir: Path, soft_open_files: int | None
    ) -> Self:
        """Look around and set up.

        Args:
            soft_open_files: As in ``DaemonInfo``.

        Raises:
            NotUsable: A program is missing or does not run.
            InvalidArgument: The seccomp profile of the config cannot be read.
        """
        layout = Layout.of(run_dir, state_dir)
        layout.make()
        conmon = programs.find_conmon(config.conmon)
        runtime = programs.describe(programs.find_runtime(config.runtime), layout.runtime_state)
        is_crun = runtime.name == "crun"
        profile = _default_profile(config.seccomp_profile)
        try:
            holder, prefix = mount_namespace.spawn_prefix(run_dir) if is_crun else (None, ())
        except OSError as exc:
            raise NotUsable(str(exc), code="no_mount_namespace") from exc
        groups = cgroups.detect()
        path = runtime.path
        if is_crun and not prefix:
            path = _bind_read_only(runtime.path, layout.runtime_copy)
        return cls(
            layout=layout,
            runtime=runtime,
            runtime_path=path,
            conmon=conmon,
            groups=groups,
            machine=Machine.detect(
                groups,
                swap_accounting=_swap_accounting(groups),
                init=programs.find_init(config.init),
                soft_open_files=soft_open_files,
            ),
            default_profile=profile,
            filters=seccomp.FilterCache(layout.filters, _made_by(runtime)) if is_crun else None,
            boot=boot_id(),
            token=hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:12],
            parent=config.cgroup_parent,
            prefix=prefix,
            holder=holder,
        )

    def close(self, containers_alive: bool) -> None:
        """Undo what is not needed by containers that go on."""
        if self.holder is not None:
            view = Path(f"/proc/{self.holder.pid}/root/sys/fs/cgroup/unified")
            shutil.rmtree(view / self.parent.strip("/"), ignore_errors=True)
            assert self.holder.stdin is not None
            self.holder.stdin.close()
            self.holder.kill()
            self.holder.wait()
            if self.holder.stdout is not None:
                self.holder.stdout.close()
        if containers_alive:
            return
        if self.runtime_path == str(self.layout.runtime_copy):
            with contextlib.suppress(OSError):
                syscalls.unmount(self.runtime_path, syscalls.MNT_DETACH)
        # Newer versions of crun keep compiled filters there.
        shutil.rmtree(self.layout.runtime_state / ".cache", ignore_errors=True)
        cgroups.remove_parent(self.groups, self.parent)
        mount_namespace.release()


def _default_profile(path: str) -> dict[str, Any]:
    if not path:
        return seccomp.default_profile()
    try:
        return seccomp.parse_profile(Path(path).read_text())
    except OSError as exc:
        raise InvalidArgument(
            f"seccomp-profile = '{path}': {exc.strerror}", code="bad_seccomp_profile"
        ) from exc


def _swap_accounting(groups: cgroups.Hierarchies) -> bool:
    if groups.version == 2:
        return Path("/proc/swaps").exists()
    memory = groups.folder("memory", "/")
    return memory is not None and (memory / "memory.memsw.limit_in_bytes").exists()


def _bind_read_only(program: str, copy: Path) -> str:
    """Bind the program to a file of ours, read-only; the program itself if that is not possible."""
    if copy.exists() and copy.samefile(program) and _is_read_only(copy):
        return str(copy)  # an earlier daemon's
    with contextlib.suppress(OSError):
        syscalls.unmount(copy, syscalls.MNT_DETACH)
    try:
        copy.touch(mode=0o700)
        syscalls.mount(program, copy, "", syscalls.MS_BIND)
        flags = syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_REMOUNT
        syscalls.mount("", copy, "", flags)
    except OSError:
        return program
    return str(copy)


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _made_by(runtime: programs.Program) -> str:
    """All that a compiled filter depends on, beside the profile."""
    info = Path(runtime.path).stat()
    return f"{runtime.name} {runtime.version} {info.st_size} {info[stat.ST_MTIME]} {_libseccomp()}"


def _libseccomp() -> str:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "none"
    library.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint * 3)
    return ".".join(str(number) for number in library.seccomp_version().contents)
