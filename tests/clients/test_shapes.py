"""Answers have the keys, and the types of values, that a real dockerd's have.

What it had lies in ``shapes/``; its README says how it was recorded.
"""

import json
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from daemon_harness import shapes
from daemon_harness.daemon import Daemon

HERE = Path(__file__).parent / "shapes"
DOCKER: dict[str, shapes.Shape] = json.loads((HERE / "docker.json").read_text())
RULES: dict[str, list[dict[str, str]]] = json.loads((HERE / "differences.json").read_text())


def applies(rule: dict[str, str], answer: str, path: str) -> bool:
    return fnmatchcase(answer, rule["answer"]) and fnmatchcase(path, rule["path"])


@pytest.mark.system
@pytest.mark.timeout(300)
def test_answers_have_dockers_keys_and_types(fresh: Daemon) -> None:
    ours = shapes.record(HERE / "script.txt", fresh.url.removeprefix("unix://"), fresh.environment)
    assert list(ours) == list(DOCKER)
    wrong, used = [], []
    for answer, docker in DOCKER.items():
        for path, text in shapes.differences(docker, ours[answer]).items():
            if any(applies(rule, answer, path) for rule in RULES["machine"]):
                continue
            meant = [rule for rule in RULES["meant"] if applies(rule, answer, path)]
            used += meant
            if not meant:
                wrong.append(f"{answer} {path}: {text}")
    assert not wrong, "\n".join(wrong)
    assert [rule for rule in RULES["meant"] if rule not in used] == []


def test_a_shape_has_each_type_of_each_path() -> None:
    value = {"a": [{"b": 1}, {"b": None, "c": True}], "f" * 64: 1.5}
    assert shapes.shape_of(value) == {
        "": ["object"], ".<id>": ["number"], ".a": ["array"], ".a[]": ["object"],
        ".a[].b": ["null", "number"], ".a[].c": ["boolean"],
    }  # fmt: skip


def test_a_difference_is_told_once_and_not_for_all_that_is_below() -> None:
    docker = shapes.shape_of({"a": {"b": {"c": 1}}, "same": "x"})
    ours = shapes.shape_of({"a": None, "same": "y", "more": []})
    assert shapes.differences(docker, ours) == {
        ".a": "docker object, linkspan null",
        ".more": "docker nothing, linkspan array",
    }
