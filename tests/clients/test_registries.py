"""Logins, inspections of what a registry has, and searches are answered as a real dockerd answers them.

What it answered lies in ``registries/``; its README says how it was recorded.
"""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from daemon_harness import registry_answers
from daemon_harness.daemon import Daemon

HERE = Path(__file__).parent / "registries"


def _comparable(answer: registry_answers.Answer) -> tuple[int, Any]:
    """Of an error Docker knows the message only."""
    status, said = answer
    return status, {"message": said["message"]} if status >= 400 else said


def _matches(pattern: str, text: str) -> bool:
    return fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


@pytest.mark.system
def test_registries_are_asked_and_told_of_as_docker_does(daemon: Daemon) -> None:
    recorded = json.loads((HERE / "docker.json").read_text())
    rules = json.loads((HERE / "differences.json").read_text())
    found = registry_answers.carry_out(HERE / "script.txt", daemon.url.removeprefix("unix://"))
    assert list(found) == list(recorded)
    wrong, used = [], []
    for line, answer in recorded.items():
        docker, ours = _comparable(answer), _comparable(found[line])
        if docker == ours:
            continue
        said = {"docker": docker, "linkspan": ours}
        texts = {"request": line} | {
            who: f"{status} {json.dumps(text)}" for who, (status, text) in said.items()
        }
        meant = [rule for rule in rules if all(_matches(rule[k], texts[k]) for k in texts)]
        used += meant
        if not meant:
            wrong.append("\n  ".join(f"{who}: {text}" for who, text in texts.items()))
    assert not wrong, "\n".join(wrong)
    assert [rule for rule in rules if rule not in used] == []
