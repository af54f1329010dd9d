"""The image that recorded scripts use, in whatever daemon the environment names."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from daemon_harness.daemon import BUSYBOX


def build_busybox() -> None:
    """Build it with the docker CLI; the classic builder knows no ``--chmod``."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy("/bin/busybox", folder)
        (Path(folder) / "Dockerfile").write_text(BUSYBOX.replace("--chmod=0755 ", ""))
        subprocess.run(
            ["docker", "build", "-q", "-t", "busybox", folder],
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            check=True,
        )
