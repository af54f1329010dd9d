"""Records what a real dockerd lets the docker CLI print; see the README beside.

DOCKER_HOST=unix://... python tests/clients/transcripts/record.py [SCRIPT...]
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))

from daemon_harness import transcripts  # noqa: E402 - after the path is set
from daemon_harness.recorded_image import build_busybox  # noqa: E402


def main() -> int:
    """Record."""
    build_busybox()
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
