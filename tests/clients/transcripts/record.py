"""Records what a real dockerd lets the docker CLI print; see the README beside.

DOCKER_HOST=unix://... python tests/clients/transcripts/record.py [SCRIPT...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))

from daemon_harness import transcripts  # noqa: E402 - after the path is set
from daemon_harness.daemon import BUSYBOX  # noqa: E402


def build(environment: dict[str, str]) -> None:
    """The image that the scripts use; the classic builder knows no ``--chmod``."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy("/bin/busybox", folder)
        (Path(folder) / "Dockerfile").write_text(BUSYBOX.replace("--chmod=0755 ", ""))
        subprocess.run(
            ["docker", "build", "-q", "-t", "busybox", folder],
            env={**os.environ, **environment, "DOCKER_BUILDKIT": "0"},
            check=True,
        )


def main() -> int:
    """Record."""
    build({})
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.txt"))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            environment = {"DOCKER_HOST": os.environ["DOCKER_HOST"], "DOCKER_CONFIG": folder}
            entries = [
                transcripts.run(command, Path(folder), environment)
                for command in transcripts.commands(HERE / f"{name}.txt")
            ]
            subprocess.run(
                "docker ps -aq | xargs -r docker rm -f; docker volume prune -af; docker network prune -f",
                shell=True,
                env={**os.environ, **environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        transcripts.write(entries, HERE / f"{name}.json")
        print(f"{name}: {len(entries)} commands")
    return 0


if __name__ == "__main__":
    sys.exit(main())
