"""A service is shown as its client wrote it, the way Docker shows it: which parts are there, and which are not.

How Docker shows them lies in ``services/``; its README says how it was recorded.
"""

import json
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from daemon_harness import service_specs
from daemon_harness.daemon import Daemon
from daemon_harness.recorded_image import load_archive

HERE = Path(__file__).parent / "services"
NOTHING = "-"

Row = tuple[str, str, str, str]
"""Name of a body, path of a field, what Docker shows there, and what Linkspan shows."""


def differing(name: str, docker: service_specs.Fields, ours: service_specs.Fields) -> Iterator[Row]:
    for path in {**docker, **ours}:
        row = (name, path, docker.get(path, NOTHING), ours.get(path, NOTHING))
        if row[2] != row[3]:
            yield row


def applies(rule: dict[str, str], row: Row) -> bool:
    parts = zip(row, ("service", "field", "docker", "linkspan"), strict=True)
    # What is shown is JSON in part: only * means anything there.
    return all(fnmatchcase(text, rule[key].replace("[", "[[]")) for text, key in parts)


@pytest.mark.system
@pytest.mark.timeout(300)
def test_services_are_shown_as_docker_shows_them(new_daemon: Callable[[], Daemon]) -> None:
    rules: list[dict[str, str]] = json.loads((HERE / "differences.json").read_text())
    recorded = service_specs.read(HERE / "docker.json")
    bodies = service_specs.read(HERE / "bodies.json")
    daemon = new_daemon().start()
    load_archive(daemon.environment)
    found = dict(service_specs.carry_out(bodies, daemon.url.removeprefix("unix://")))
    assert list(found) == list(recorded)
    rows = [
        row
        for name, shown in recorded.items()
        for row in differing(name, service_specs.fields(shown), service_specs.fields(found[name]))
    ]
    wrong = [row for row in rows if not any(applies(rule, row) for rule in rules)]
    assert not wrong, "\n".join(
        f"{name}: {path}\n  docker   {docker}\n  linkspan {ours}"
        for name, path, docker, ours in wrong
    )
    assert [rule for rule in rules if not any(applies(rule, row) for row in rows)] == []
