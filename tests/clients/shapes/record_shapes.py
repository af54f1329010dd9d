"""Records which keys and types a real dockerd's answers have; see the README beside.

DOCKER_HOST=unix://... python tests/clients/shapes/record_shapes.py [swarm]
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))
from daemon_harness import shapes  # noqa: E402 - after the path is set
from daemon_harness.recorded_image import load_archive  # noqa: E402


def main() -> int:
    """Record what the script here says, or the one in the folder that is named."""
    folder = HERE.joinpath(*sys.argv[1:])
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    load_archive(environment)
    socket = os.environ["DOCKER_HOST"].removeprefix("unix://")
    found = shapes.record(folder / "script.txt", socket, environment)
    shapes.write(found, folder / "docker.json")
    print(f"{len(found)} answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
