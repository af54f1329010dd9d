"""Records an archive of a real dockerd, and what it says of the images in it; see the README beside.

DOCKER_HOST=unix://... python tests/clients/archives/record_archives.py
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))
from daemon_harness import archives  # noqa: E402 - after the path is set

SHIP = """\
FROM scratch
COPY hull /hull
COPY sail /deck/sail
ENV NAME=ship
LABEL of=wood
VOLUME /hold
WORKDIR /deck
USER 7:7
EXPOSE 80/udp
HEALTHCHECK --interval=5s CMD ["/hull"]
STOPSIGNAL SIGINT
CMD ["/hull"]
"""
BOAT = 'FROM ship\nCOPY sail /second\nENTRYPOINT ["/hull"]\n'


def main() -> int:
    """Build the images, save them, and keep both."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}

    def docker(*words: str, text: str | None = None) -> None:
        subprocess.run(["docker", *words], env=environment, check=True, input=text, text=True)

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hull").write_text("#!/bin/sh\n")
        (Path(folder) / "sail").write_text("white\n")
        docker("build", "-q", "-t", "ship", "-t", "ship:1", "-f", "-", folder, text=SHIP)
        docker("build", "-q", "-t", "boat:1", "-f", "-", folder, text=BOAT)
        saved = Path(folder) / "saved.tar"
        docker("save", "-o", str(saved), "ship", "boat:1")
        packed = gzip.compress(saved.read_bytes(), mtime=0)
        (HERE / "docker.tar.gz").write_bytes(packed)
    said = archives.told(environment)
    (HERE / "docker.json").write_text(json.dumps(said, indent=1) + "\n")
    docker("rmi", "boat:1", "ship:1", "ship:latest")
    return 0


if __name__ == "__main__":
    sys.exit(main())
