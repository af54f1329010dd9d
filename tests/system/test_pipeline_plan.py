"""Plans against a real daemon: nothing is made, everything that is wrong is told, a moved world is refused."""

import json
import re
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

GOOD = """\
linkspan: v1
name: shop
inputs: {version: {type: int, default: 1}}
jobs:
  make:
    image: busybox
    outputs: {image: "${{ steps.image.outputs.id }}"}
    steps:
      - id: image
        uses: build
        with: {tags: ["shop:${{ inputs.version }}"]}
      - run: echo made
"""
BROKEN = """\
linkspan: v1
jobs:
  a:
    image: busybox
    needs: [bb]
    steps:
      - uses: biuld
      - run: x
        image: 127.0.0.1:9/none:1
      - uses: push
        with: {image: shop:1, tag: x}
      - uses: scale
        with: {service: "${{ inputs.nowhere }}", replicas: 2}
      - uses: deploy@^9
        with: {service: a, image: b}
"""


def folder(tmp_path: Path, text: str) -> Path:
    file = tmp_path / ".linkspan" / "shop.yaml"
    file.parent.mkdir()
    file.write_text(text)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY Dockerfile /\n")
    return file


def test_a_plan_makes_nothing_and_a_run_follows_it_or_is_refused(
    daemon: Daemon, tmp_path: Path
) -> None:
    file = folder(tmp_path, GOOD)
    images = {image["Id"] for image in daemon.get("/images/json")}
    runs = len(daemon.get("/linkspan/v1/runs"))
    kept = tmp_path / "shop.plan"
    said = daemon.cli("workflow", "plan", file, "--input", "version=2", "--out", kept)
    assert re.search(r"^\+ make/image +image shop:2", said.out, re.M), said.out
    assert "2 created, 0 changed, nothing destroyed" in said.out
    assert {image["Id"] for image in daemon.get("/images/json")} == images
    assert len(daemon.get("/linkspan/v1/runs")) == runs

    # What is planned is done, with the inputs of the plan.
    daemon.cli("workflow", "run", "--plan", kept)
    run = daemon.get("/linkspan/v1/runs")[0]
    assert (run["state"], daemon.get("/images/shop:2/json")["RepoTags"]) == ("success", ["shop:2"])

    file.write_text(GOOD.replace("echo made", "echo else"))
    refused = daemon.cli("workflow", "run", "--plan", kept, status=3)
    assert "error[LS1409]: the world has moved since the plan" in refused.err
    assert "the pipeline's text has changed" in refused.err
    assert len(daemon.get("/linkspan/v1/runs")) == runs + 1


def test_six_things_are_broken_and_nothing_is_started(daemon: Daemon, tmp_path: Path) -> None:
    file = folder(tmp_path, BROKEN)
    runs = daemon.get("/linkspan/v1/runs")
    done = daemon.cli("workflow", "plan", file, "--format", "json", status=2)
    found = {
        (problem["id"], problem["primary"]["span"]["line"])
        for problem in json.loads(done.out)["problems"]
    }
    assert found >= {
        ("LS1101", 5),
        ("LS1401", 7),
        ("LS1408", 8),
        ("LS1402", 11),
        ("LS1201", 13),
        ("LS1406", 14),
    }
    drawn = daemon.cli("workflow", "plan", file, status=2)
    assert "image '127.0.0.1:9/none:1'" in drawn.out
    assert "nothing has been started" in drawn.err
    assert daemon.get("/linkspan/v1/runs") == runs
