"""Records the events that a real dockerd tells, command by command; see the README beside.

DOCKER_HOST=unix://... REGISTRY=127.0.0.1:5000 python tests/clients/events/record_events.py [SCRIPT...]
"""

import json
import os
import socket
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))
from daemon_harness import event_script, transcripts  # noqa: E402 - after the path is set
from daemon_harness.recorded_image import build_busybox  # noqa: E402


def main() -> int:
    """Record."""
    build_busybox()
    path = os.environ["DOCKER_HOST"].removeprefix("unix://")
    for name in sys.argv[1:] or sorted(script.stem for script in HERE.glob("*.txt")):
        rows = []
        names = {os.environ["REGISTRY"]: "<registry>", socket.gethostname(): "<host>"}
        told = event_script.Listener(path, names)
        with tempfile.TemporaryDirectory() as folder:
            for command in transcripts.commands(HERE / f"{name}.txt"):
                event_script.carry_out(command, path, Path(folder), {"DOCKER_CONFIG": folder})
                events = told.take_when_quiet()
                if name == "swarm":
                    events = [event for event in events if event.scope == "swarm"]
                rows.append((command, events))
        event_script.write(rows, HERE / f"{name}.json")
        print(f"{name}: {len(rows)} commands")
    if not sys.argv[1:]:
        picked = event_script.filtered(HERE / "filters.queries", path, os.environ)
        (HERE / "filters.json").write_text(json.dumps(picked, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
