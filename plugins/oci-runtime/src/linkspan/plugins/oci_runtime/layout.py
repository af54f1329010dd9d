"""Where the driver's files are."""

from pathlib import Path
from typing import Self

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Layout:
    """Folders of one driver.

    Attributes:
        bundles: One folder a container: config.json, pid, conmon's attach socket and pipes, exec sessions.
        runtime_state: The OCI runtime's ``--root``.
        exits: conmon writes exit codes here, a file a container.
        containers: One folder a container: record and log; survives a reboot.
        filters: Compiled seccomp filters; survives a reboot.
        runtime_copy: The runtime's program, bound read-only.
        lent: Mount points of other containers' /dev/shm, while a container that joins them is made. Apart from
            the bundles, since those are removed with all that is in them.
    """

    bundles: Path
    runtime_state: Path
    exits: Path
    containers: Path
    filters: Path
    runtime_copy: Path
    lent: Path

    @classmethod
    def of(cls, run_dir: Path, state_dir: Path) -> Self:
        """Names are short: runtimes make sockets below them."""
        return cls(
            bundles=run_dir / "c",
            runtime_state=run_dir / "s",
            exits=run_dir / "x",
            containers=state_dir / "containers",
            filters=state_dir / "seccomp",
            runtime_copy=run_dir / "runtime",
            lent=run_dir / "m",
        )

    def make(self) -> None:
        """Make the folders; only root may look into them."""
        for folder in (self.bundles, self.runtime_state, self.exits, self.containers, self.lent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def bundle(self, container_id: str) -> Path:
        """A container's bundle."""
        return self.bundles / container_id

    def folder(self, container_id: str) -> Path:
        """A container's record and log."""
        return self.containers / container_id

    def log(self, container_id: str) -> Path:
        """A container's log."""
        return self.containers / container_id / "log"

    def lent_memory(self, container_id: str) -> Path:
        """Where the /dev/shm that a container joins is mounted while it is made."""
        return self.lent / container_id

    def exit_file(self, container_id: str) -> Path:
        """Where conmon writes the exit code."""
        return self.exits / container_id

    def state(self, container_id: str) -> Path:
        """What the OCI runtime keeps of a container."""
        return self.runtime_state / container_id
