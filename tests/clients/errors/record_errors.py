"""Records what a real dockerd answers to requests that it refuses; see the README beside.

DOCKER_HOST=unix://... python tests/clients/errors/record_errors.py [swarm]
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))
from daemon_harness import refusals  # noqa: E402 - after the path is set
from daemon_harness.recorded_image import load_archive  # noqa: E402


def main() -> int:
    """Record."""
    load_archive(os.environ)
    folder = HERE.joinpath(*sys.argv[1:])
    socket = os.environ["DOCKER_HOST"].removeprefix("unix://")
    found = dict(refusals.carry_out(folder / "script.txt", socket, os.environ))
    refusals.write(found, folder / "docker.json")
    print(f"{len(found)} answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
