"""What earlier daemons have left: records, and files, groups and processes of creates that were cut off."""

import contextlib
import os
import shutil
import signal
from collections.abc import Collection

import orjson

from linkspan.plugins.oci_runtime import cgroups
from linkspan.plugins.oci_runtime.config import OciConfig
from linkspan.plugins.oci_runtime.conmon import makers
from linkspan.plugins.oci_runtime.making import Maker
from linkspan.plugins.oci_runtime.record import Record
from linkspan.plugins.oci_runtime.tools import Tools


class Leftovers:
    """See the module. Its methods block."""

    def __init__(self, config: OciConfig, tools: Tools, maker: Maker) -> None:
        self._config = config
        self._tools = tools
        self._layout = tools.layout
        self._maker = maker

    def end_cut_off(self) -> list[Record]:
        """End what a create has made whose daemon did not live to write it down; return what was.

        No record tells of it, or the one of the container's life before, with its end.
        """
        records = self._records()
        lives = {r.container_id for r in records if r.exit is None}
        paths = {r.container_id: r.cgroup_path for r in records}
        made = makers(self._layout.bundles)
        known = {p.name for p in self._layout.runtime_state.iterdir() if p.name[0] != "."}
        for container_id in (known | set(made)) - lives:
            for pid in made.get(container_id, ()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._end(container_id, paths.get(container_id) or self._planned_group(container_id))
            shutil.rmtree(self._layout.bundle(container_id), ignore_errors=True)
        return records

    def remove_orphans(self, keep: Collection[str]) -> list[str]:
        """Remove folders of ids that are neither held nor in the making (a create that was cut off)."""
        layout = self._layout
        found = {
            entry.name
            for parent in (
                layout.bundles,
                layout.exits,
                layout.containers,
                layout.runtime_state,
                layout.lent,
            )
            for entry in parent.iterdir()
            if not entry.name.startswith(".")
        }
        orphans = sorted(found.difference(keep))
        for container_id in orphans:
            self._end(container_id, self._planned_group(container_id))
            self.remove_files(container_id)
        return orphans

    def remove_files(self, container_id: str) -> None:
        """Remove a container's files, save what the runtime keeps of it."""
        self._layout.exit_file(container_id).unlink(missing_ok=True)
        shutil.rmtree(self._layout.bundle(container_id), ignore_errors=True)
        shutil.rmtree(self._layout.folder(container_id), ignore_errors=True)

    def _records(self) -> list[Record]:
        found = []
        for folder in self._layout.containers.iterdir():
            record = Record.read(folder)
            if record is not None and record.container_id == folder.name:
                found.append(record)
        return found

    def _end(self, container_id: str, group: str) -> None:
        cgroups.kill(self._tools.groups, group)
        cgroups.remove_in_time(self._tools.groups, group)
        self._maker.return_memory(container_id)
        shutil.rmtree(self._layout.state(container_id), ignore_errors=True)

    def _planned_group(self, container_id: str) -> str:
        """The control group that the bundle names, or the usual one."""
        try:
            document = orjson.loads(
                (self._layout.bundle(container_id) / "config.json").read_bytes()
            )
            return str(document["linux"]["cgroupsPath"])
        except (OSError, ValueError, KeyError):
            return f"/{self._config.cgroup_parent.strip('/')}/{container_id}"
