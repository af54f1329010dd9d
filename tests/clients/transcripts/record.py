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

CLEANING = """
docker swarm leave --force
docker ps -aq | xargs -r docker rm -f
docker volume prune -af
docker network prune -f
docker images --format '{{.Repository}}:{{.Tag}}' | grep -v '^busybox:' | xargs -r docker rmi -f
docker images -q --filter dangling=true | xargs -r docker rmi -f
"""
"""The next script finds a daemon that nobody has used, with nothing but the image."""


def main() -> int:
    """Record."""
    build_busybox()
    server = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.txt"))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            environment = {"DOCKER_HOST": os.environ["DOCKER_HOST"], "DOCKER_CONFIG": folder}
            entries = [
                transcripts.run(command, Path(folder), environment)
                for command in transcripts.commands(HERE / f"{name}.txt")
            ]
            subprocess.run(
                ["sh", "-c", CLEANING],
                env={**os.environ, **environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        transcripts.write(entries, server, HERE / f"{name}.json")
        print(f"{name}: {len(entries)} commands with dockerd {server}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
