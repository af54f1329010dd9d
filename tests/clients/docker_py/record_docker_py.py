"""Records what docker-py's methods give of a real dockerd; see the README beside.

DOCKER_HOST=unix://... python tests/clients/docker_py/record_docker_py.py
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))
from daemon_harness import docker_py_walk  # noqa: E402 - after the path is set
from daemon_harness.recorded_image import load_archive  # noqa: E402


def main() -> int:
    """Record what the script here says."""
    load_archive(os.environ)
    found = docker_py_walk.walk(HERE / "script.txt", os.environ["DOCKER_HOST"])
    docker_py_walk.write(found, HERE / "docker.json")
    print(f"{len(found)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
