"""Removing what nothing needs: only after a yes, and everything is reported."""

import json
from typing import Any

import pytest


def test_without_a_terminal_nothing_is_removed_unless_forced(linkspan: Any, fake: Any) -> None:
    with fake.running():
        result = linkspan("container", "prune")
    assert result.status == 2
    assert "this removes all containers that do not run: this has to be confirmed" in result.err
    assert "= help: add --force" in result.err
    assert fake.requests == []


@pytest.mark.parametrize(
    ("noun", "path", "answer", "out"),
    [
        ("container", "/containers/prune", {"ContainersDeleted": ["c1"]}, "c1\n"),
        ("network", "/networks/prune", {"NetworksDeleted": ["app"]}, "app\n"),
        ("volume", "/volumes/prune", {"VolumesDeleted": ["data"]}, "data\n"),
        ("builder", "/build/prune", {"CachesDeleted": ["b1"]}, "b1\n"),
        (
            "image",
            "/images/prune",
            {"ImagesDeleted": [{"Untagged": "a:1"}, {"Deleted": "sha256:x"}]},
            "untagged: a:1\ndeleted: sha256:x\n",
        ),
    ],
)
def test_what_was_removed_is_said(
    linkspan: Any, fake: Any, noun: str, path: str, answer: Any, out: str
) -> None:
    fake.on("POST", path, {**answer, "SpaceReclaimed": 1500})
    with fake.running():
        result = linkspan(noun, "prune", "--force", "--filter", "label=a")
    assert (result.status, result.out) == (0, out)
    assert result.err == ("" if noun == "network" else "1.5kB freed\n")
    assert json.loads(fake.asked("POST", path).query["filters"])["label"] == ["a"]


def test_all_images_means_tagged_ones_too(linkspan: Any, fake: Any) -> None:
    fake.on("POST", "/images/prune", {"ImagesDeleted": None, "SpaceReclaimed": 0})
    with fake.running():
        linkspan("image", "prune", "-f")
        linkspan("image", "prune", "-a", "-f")
    asked = [json.loads(r.query["filters"]) for r in fake.requests]
    assert asked == [{"dangling": ["true"]}, {"dangling": ["false"]}]


def test_system_prune_leaves_volumes_alone_unless_asked(linkspan: Any, fake: Any) -> None:
    for path in ("containers", "networks", "volumes", "images"):
        fake.on("POST", f"/{path}/prune", {"SpaceReclaimed": 1})
    fake.on("POST", "/build/prune", {"message": "no cache"}, 501)
    with fake.running():
        assert linkspan("system", "prune", "-f").err == "3B freed\n"
        paths = [r.path for r in fake.requests]
        assert linkspan("system", "prune", "-f", "--volumes").err == "4B freed\n"
    assert paths == ["/containers/prune", "/networks/prune", "/images/prune", "/build/prune"]
    assert "/volumes/prune" in [r.path for r in fake.requests]


def test_an_until_filter_and_volumes_contradict_each_other(linkspan: Any, fake: Any) -> None:
    with fake.running():
        result = linkspan("system", "prune", "-f", "--volumes", "--filter", "until=1h")
    assert result.status == 2
    assert fake.requests == []
