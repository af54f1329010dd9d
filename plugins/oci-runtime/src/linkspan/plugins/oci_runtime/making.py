"""What makes a container: its bundle, and the conmon that starts the runtime on it.

Everything here blocks, and does all of its work in one call: each change of thread costs as much as the
writing of a file.
"""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from linkspan.plugins.oci_runtime import (
    cgroups,
    propagation,
    rootfs,
    seccomp,
    shared_memory,
    spec,
    users,
)
from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.conmon import ConmonCommand, Making, start_conmon
from linkspan.plugins.oci_runtime.layout import Layout
from linkspan.plugins.oci_runtime.security import Security, parse_security, seccomp_of
from linkspan.plugins.oci_runtime.tools import Tools
from linkspan.sdk import syscalls
from linkspan.sdk.drivers.runtime import CreateRequest, OciSpec
from linkspan.sdk.errors import Internal
from linkspan.sdk.files import write_file
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Joined:
    """What a container shares with others.

    Attributes:
        memory_of: A process whose /dev/shm it gets; 0 if it has its own.
    """

    namespaces: spec.Namespaces
    memory_of: int = 0


@frozen(kw_only=True)
class Begun:
    """A container that the runtime makes now.

    Attributes:
        filter_key: Of a seccomp filter that the runtime compiles for it, to be kept; None if it need not.
    """

    making: Making
    filter_key: str | None


@frozen
class _Section:
    """``linux.seccomp`` and the key of its compiled filter."""

    content: Mapping[str, Any] | None
    key: str | None


class Maker:
    """See the module. Its methods may run in several threads at once."""

    def __init__(self, config: OciConfig, tools: Tools) -> None:
        self._config = config
        self._tools = tools
        self._layout: Layout = tools.layout
        self._usual_sections: dict[tuple[str, ...], _Section] = {}

    def cgroup_path(self, request: CreateRequest) -> str:
        """Where a container's control groups are."""
        parent = request.resources.cgroup_parent or self._config.cgroup_parent
        return f"/{parent.strip('/')}/{request.container_id}"

    def plan(self, request: CreateRequest, joined: Joined) -> OciSpec:
        """Make a container's config.json, for others to change.

        Raises:
            InvalidArgument, Unsupported: It cannot be made as asked.
            Internal: code ``no_rootfs``.
        """
        security = self._security(request)
        section = self._section(request, security, shared=False)
        return self._document(request, joined, security, section)

    def begin(self, request: CreateRequest, joined: Joined, planned: OciSpec | None) -> Begun:
        """Write the bundle and start conmon.

        Args:
            planned: Its config.json, if that was made already.

        Raises:
            InvalidArgument, Unsupported, Internal: As ``plan``; conmon cannot be started.
            OSError: The bundle cannot be written.
        """
        if planned is None:
            security = self._security(request)
            section = self._section(request, security, shared=True)
            document, key = self._document(request, joined, security, section), section.key
        else:
            document, key = planned, self._key(planned.get("linux", {}).get("seccomp"))
        bundle = self._layout.bundle(request.container_id)
        missing = self._write_bundle(bundle, document, key)
        if joined.memory_of:
            target = self._layout.lent_memory(request.container_id)
            target.mkdir(exist_ok=True)
            shared_memory.lend(joined.memory_of, target, self._tools.prefix)
        making = start_conmon(self._conmon_command(request, bundle))
        return Begun(making=making, filter_key=missing)

    def keep_filter(self, container_id: str, key: str) -> None:
        """Take over the filter that the runtime has compiled."""
        if self._tools.filters is not None:
            self._tools.filters.keep(key, self._layout.state(container_id) / "seccomp.bpf")

    def return_memory(self, container_id: str) -> None:
        """Take a lent mount away: the container has its own copy, or was not made."""
        target = self._layout.lent_memory(container_id)
        with contextlib.suppress(OSError):
            syscalls.unmount(target, syscalls.MNT_DETACH)
        with contextlib.suppress(OSError):
            target.rmdir()

    def undo(self, request: CreateRequest, *, keep_folder: bool) -> None:
        """Remove what a failed ``begin``, or the runtime after it, has made.

        Args:
            keep_folder: There was a container of this id before; it stays as it was.
        """
        container_id = request.container_id
        self.return_memory(container_id)
        path = self.cgroup_path(request)
        cgroups.kill(self._tools.groups, path)
        cgroups.remove_in_time(self._tools.groups, path)
        shutil.rmtree(self._layout.state(container_id), ignore_errors=True)
        shutil.rmtree(self._layout.bundle(container_id), ignore_errors=True)
        if not keep_folder:
            shutil.rmtree(self._layout.folder(container_id), ignore_errors=True)

    # --- parts

    def _security(self, request: CreateRequest) -> Security:
        return parse_security(
            request.security_opt, no_new_privileges=self._config.no_new_privileges
        )

    def _section(self, request: CreateRequest, security: Security, *, shared: bool) -> _Section:
        """The seccomp section; a ``shared`` one is also other containers', and must not be changed."""
        caps = spec.container_capabilities(request, self._tools.machine)
        usual = shared and security.seccomp == "builtin" and not request.privileged
        found = self._usual_sections.get(caps) if usual else None
        if found is None:
            content = seccomp_of(security, request, caps, self._tools.default_profile)
            found = _Section(content, self._key(content))
            if usual:
                self._usual_sections[caps] = found
        return found

    def _key(self, section: Mapping[str, Any] | None) -> str | None:
        if section is None or self._tools.filters is None:
            return None
        return self._tools.filters.key(section)

    def _document(
        self, request: CreateRequest, joined: Joined, security: Security, section: _Section
    ) -> OciSpec:
        try:
            identity = users.look_up(
                request.rootfs, request.process.user, request.process.group_add
            )
            rootfs.make_folder(request.rootfs, request.process.cwd)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise Internal(
                f"the container's root folder is missing: {request.rootfs}", code="no_rootfs"
            ) from exc
        propagation.check(request.mounts)
        return spec.make_spec(
            request,
            identity=identity,
            machine=self._tools.machine,
            security=security,
            namespaces=joined.namespaces,
            cgroup_path=self.cgroup_path(request),
            seccomp_section=section.content,
            shared_memory=str(self._layout.lent_memory(request.container_id))
            if joined.memory_of
            else None,
        )

    def _write_bundle(self, bundle: Path, document: OciSpec, key: str | None) -> str | None:
        """Write config.json; return the key of a seccomp filter that is still to be compiled."""
        compiled = None
        if key is not None and self._tools.filters is not None:
            compiled = self._tools.filters.get(key)
        if compiled is not None:
            document = {
                **document,
                "linux": {k: v for k, v in document["linux"].items() if k != "seccomp"},
                "annotations": {**document.get("annotations", {}), seccomp.ANNOTATION: compiled},
            }
        try:
            bundle.mkdir(mode=0o700)
        except FileExistsError:
            shutil.rmtree(bundle)
            bundle.mkdir(mode=0o700)
        self._layout.exit_file(bundle.name).unlink(missing_ok=True)
        self._layout.folder(bundle.name).mkdir(mode=0o700, exist_ok=True)
        write_file(bundle / "config.json", orjson.dumps(document))
        return None if compiled is not None else key

    def _conmon_command(self, request: CreateRequest, bundle: Path) -> ConmonCommand:
        return ConmonCommand(
            conmon=self._tools.conmon,
            prefix=self._tools.prefix,
            runtime=self._tools.runtime_path,
            runtime_args=("--root", str(self._layout.runtime_state)),
            container_id=request.container_id,
            name=request.name,
            bundle=bundle,
            exit_folder=self._layout.exits,
            log=f"k8s-file:{self._layout.log(request.container_id)}" if request.log else "none",
            tty=request.process.tty,
            stdin=request.process.stdin,
            stdin_once=request.stdin_once,
        )
