"""Answers have the keys, and the types of values, that a real dockerd's have, in each version of the API.

What it had lies in ``shapes/``; its README says how it was recorded.
"""

import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from daemon_harness import shapes
from daemon_harness.daemon import Daemon
from daemon_harness.recorded_image import load_archive

HERE = Path(__file__).parent / "shapes"


def applies(rule: dict[str, str], answer: str, path: str) -> bool:
    return fnmatchcase(answer, rule["answer"]) and fnmatchcase(path, rule["path"])


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("folder", [HERE, HERE / "swarm"], ids=["alone", "swarm"])
def test_answers_have_dockers_keys_and_types(
    new_daemon: Callable[[], Daemon], folder: Path
) -> None:
    docker = shapes.read(folder / "docker.json")
    rules = json.loads((folder / "differences.json").read_text())
    daemon = new_daemon().start()
    load_archive(daemon.environment)
    socket = daemon.url.removeprefix("unix://")
    ours = shapes.record(folder / "script.txt", socket, daemon.environment)
    assert list(ours) == list(docker)
    wrong: dict[str, list[str]] = {}
    used = []
    for answer, versions in docker.items():
        for version, shape in versions.items():
            for path, text in shapes.differences(shape, ours[answer][version]).items():
                if any(applies(rule, answer, path) for rule in rules["machine"]):
                    continue
                meant = [rule for rule in rules["meant"] if applies(rule, answer, path)]
                used += meant
                if not meant:
                    wrong.setdefault(f"{answer} {path}: {text}", []).append(version)
    assert not wrong, "\n".join(f"{text} ({', '.join(in_)})" for text, in_ in wrong.items())
    assert [rule for rule in rules["meant"] if rule not in used] == []


def test_a_shape_has_each_type_of_each_path() -> None:
    value = {"a": [{"b": 1}, {"b": None, "c": True}], "f" * 64: 1.5, "": {}, "d": ["", []]}
    assert shapes.shape_of(value) == {
        "": ["object"], ".": ["{}"], ".<id>": ["number"], ".a": ["array"], ".a[]": ["object"],
        ".a[].b": ["null", "number"], ".a[].c": ["true"], ".d": ["array"], ".d[]": ['""', "[]"],
    }  # fmt: skip


def test_values_of_what_was_said_count_but_for_ids() -> None:
    said = {"Config": {"Mode": "host", "Of": "0123456789ab", "N": 2}, "Mode": "host"}
    assert shapes.shape_of(said) == {
        "": ["object"], ".Config": ["object"], ".Config.Mode": ['"host"'], ".Config.N": ["2"],
        ".Config.Of": ["string"], ".Mode": ["string"],
    }  # fmt: skip


def test_a_difference_is_told_once_and_not_for_all_that_is_below() -> None:
    docker = shapes.shape_of({"a": {"b": {"c": 1}}, "same": "x"})
    ours = shapes.shape_of({"a": None, "same": "y", "more": []})
    assert shapes.differences(docker, ours) == {
        ".a": "docker object, linkspan null",
        ".more": "docker nothing, linkspan []",
    }


def test_versions_are_kept_as_changes_and_read_as_they_were() -> None:
    by_version = {"1.1": {"a": ["null"], "b": ["0"]}, "1.2": {"a": ["null"]}, "1.3": {"a": ["[]"]}}
    kept = shapes.packed(by_version)
    assert kept == {
        "1.1": {"a": ["null"], "b": ["0"]},
        "1.2": {"b": None},
        "1.3": {"a": ["[]"]},
    }
    assert shapes.unpacked(kept, list(by_version)) == by_version
