"""Requests that Docker refuses are refused with its status and its words.

What it answers lies in ``errors/``; its README says how it was recorded.
"""

import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from daemon_harness import refusals
from daemon_harness.daemon import Daemon
from daemon_harness.recorded_image import load_archive

HERE = Path(__file__).parent / "errors"


def applies(rule: dict[str, str], line: str, docker: str, ours: str) -> bool:
    pairs = (("docker", docker), ("linkspan", ours))
    # A request is JSON in part: only * means anything there.
    request = rule["request"].replace("[", "[[]").replace("?", "[?]")
    return fnmatchcase(line, request) and all(fnmatchcase(text, rule[key]) for key, text in pairs)


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("folder", [HERE, HERE / "swarm"], ids=["alone", "swarm"])
def test_requests_are_refused_as_docker_refuses_them(
    new_daemon: Callable[[], Daemon], folder: Path
) -> None:
    rules: list[dict[str, str]] = json.loads((folder / "differences.json").read_text())
    recorded = refusals.read(folder / "docker.json")
    daemon = new_daemon().start()
    load_archive(daemon.environment)
    socket = daemon.url.removeprefix("unix://")
    found = dict(refusals.carry_out(folder / "script.txt", socket, daemon.environment))
    assert list(found) == list(recorded)
    wrong, used = [], []
    for line, answer in recorded.items():
        docker, ours = (f"{status} {said}" for status, said in (answer, found[line]))
        if docker == ours:
            continue
        meant = [rule for rule in rules if applies(rule, line, docker, ours)]
        used += meant
        if not meant:
            wrong.append(f"{line}\n  docker   {docker}\n  linkspan {ours}")
    assert not wrong, "\n".join(wrong)
    assert [rule for rule in rules if rule not in used] == []
