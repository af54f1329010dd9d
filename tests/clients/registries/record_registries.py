"""Records what a real dockerd answers when it has asked a registry; see the README beside.

DOCKER_HOST=unix://... python tests/clients/registries/record_registries.py
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))
from daemon_harness import registry_answers  # noqa: E402 - after the path is set


def main() -> int:
    """Record what the script here says."""
    socket = os.environ["DOCKER_HOST"].removeprefix("unix://")
    found = registry_answers.carry_out(HERE / "script.txt", socket)
    registry_answers.write(found, HERE / "docker.json")
    print(f"{len(found)} answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
