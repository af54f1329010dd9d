"""Records how a real dockerd shows services; see the README beside.

DOCKER_HOST=unix://... python tests/clients/services/record_services.py
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))
from daemon_harness import service_specs  # noqa: E402 - after the path is set
from daemon_harness.recorded_image import load_archive  # noqa: E402

REST_S = 0.5
"""Docker allocates ports and addresses after it has answered."""


def main() -> int:
    """Record."""
    load_archive(os.environ)
    socket = os.environ["DOCKER_HOST"].removeprefix("unix://")
    bodies = service_specs.read(HERE / "bodies.json")
    found = dict(service_specs.carry_out(bodies, socket, rest_s=REST_S))
    service_specs.write(found, HERE / "docker.json")
    print(f"{len(found)} services")
    return 0


if __name__ == "__main__":
    sys.exit(main())
