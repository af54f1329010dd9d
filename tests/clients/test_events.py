"""Of each command Linkspan tells the events that a real dockerd told, in its order and with its attributes.

What was told lies in ``events/``; its README says how it was recorded. Where Linkspan tells something else on
purpose, ``events/differences.json`` holds that, with the reason.
"""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from daemon_harness import event_script, transcripts
from daemon_harness.daemon import PATIENCE_S, Daemon
from daemon_harness.registry import debian_registry

HERE = Path(__file__).parent / "events"
NAMES = sorted(path.stem for path in HERE.glob("*.txt"))
DIFFERENCES: dict[str, dict[str, Any]] = json.loads((HERE / "differences.json").read_text())

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        transcripts.client_version() != transcripts.CLI_VERSION,
        reason="recorded with another docker CLI",
    ),
]


def expected(name: str, command: str, recorded: list[event_script.Told]) -> list[event_script.Told]:
    """What Docker told, or what we tell instead."""
    meant = DIFFERENCES.get(name, {}).get(command)
    return recorded if meant is None else event_script.told(meant["events"])


@pytest.mark.parametrize("name", NAMES)
def test_each_command_is_told_as_docker_tells_it(fresh: Daemon, tmp_path: Path, name: str) -> None:
    path = fresh.url.removeprefix("unix://")
    wrong: list[str] = []
    with debian_registry() as registry:
        names = {registry: "<registry>", socket.gethostname(): "<host>"}
        ear = event_script.Listener(path, names)
        env = {
            **fresh.environment,
            "DOCKER_CONFIG": str(tmp_path),
            "REGISTRY": registry,
        }
        for command, recorded in event_script.read(HERE / f"{name}.json"):
            wanted = expected(name, command, recorded)
            event_script.carry_out(command, path, tmp_path, env)
            found = ear.take(
                len(wanted),
                scope="swarm" if name == "swarm" else "",
                # Who has told too little once is not waited for again and again.
                within_s=1.0 if wrong else PATIENCE_S,
            )
            if found != wanted:
                wrong += [f"$ {command}"]
                wrong += [f"  - {event}" for event in wanted]
                wrong += [f"  + {event}" for event in found]
    assert not wrong, "\n".join(wrong)


def test_filters_pick_what_dockers_pick(fresh: Daemon) -> None:
    recorded = json.loads((HERE / "filters.json").read_text())
    script = HERE / "filters.queries"
    found = event_script.filtered(script, fresh.url.removeprefix("unix://"), fresh.environment)
    assert found == recorded


def test_every_meant_difference_in_events_is_one() -> None:
    for name, meant in DIFFERENCES.items():
        recorded = dict(event_script.read(HERE / f"{name}.json"))
        for command, difference in meant.items():
            assert difference["reason"]
            assert event_script.told(difference["events"]) != recorded[command]


def test_the_script_is_what_was_recorded() -> None:
    for name in NAMES:
        recorded = [command for command, _ in event_script.read(HERE / f"{name}.json")]
        assert recorded == list(transcripts.commands(HERE / f"{name}.txt"))
