"""Plans against a real daemon: nothing is made, everything that is wrong is told, a moved world is refused."""

import json
import re
import socket
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.scripted import Answer, Question, picture, scripted_registry, tar_of

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


WORLD = """\
linkspan: v1
secrets: {LOST: {from: file}}
jobs:
  a:
    image: busybox
    steps:
      - run: x
        image: 127.0.0.1:9/none:1
      - run: x
        secrets: [LOST]
      - uses: push
        with: {image: busybox, tags: ["%(registry)s/shop:1"]}
      - uses: deploy
        with: {service: web, image: busybox, ports: ["%(port)d:80"]}
      - uses: deploy
        with: {service: web, image: busybox, update: {strategy: canary}}
"""


def read_only(question: Question) -> Answer:
    """A registry whose users may read and nothing else."""
    if "authorization" not in question.headers:
        headers = {"WWW-Authenticate": 'Basic realm="here"'}
        return Answer(status=401, headers=headers, body=b'{"errors": [{"code": "UNAUTHORIZED"}]}')
    if question.method != "GET":
        return Answer(status=403, body=b'{"errors": [{"code": "DENIED", "message": "read only"}]}')
    return Answer(body=b"{}")


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


async def test_of_a_world_that_is_not_ready_everything_is_told_at_once(
    daemon: Daemon, tmp_path: Path
) -> None:
    with (tmp_path / "huge").open("wb") as huge:
        # Only its size is large.
        huge.truncate(8 << 40)
    image = picture(tar_of(("x", b"x")))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with scripted_registry(image, read_only) as registry:
            file = folder(tmp_path, WORLD % {"registry": registry.address, "port": port})
            await daemon.cli_beside("login", "-u", "reader", "-p", "secret1", registry.address)
            runs = daemon.get("/linkspan/v1/runs")
            containers = daemon.get("/containers/json?all=1")
            done = await daemon.cli_beside("workflow", "plan", file, "--format", "json", status=2)
    problems = json.loads(done.out)["problems"]
    lines = {
        problem["headline"]: problem["primary"]["span"]["line"]
        for problem in problems
        if problem["primary"]
    }
    for part, line in (
        ("secret 'LOST' has no value", 2),
        ("image '127.0.0.1:9/none:1'", 7),
        ("the login at its registry may not push there", 11),
        (f"port {port}/tcp is taken", 14),
        ("'strategy' must be rolling, found 'canary'", 16),
    ):
        assert [at for words, at in lines.items() if part in words] == [line], (part, lines)
    (disk,) = [problem["headline"] for problem in problems if not problem["primary"]]
    assert "1 copies of the workspace take 8.8TB" in disk
    assert len(problems) == 6
    assert daemon.get("/linkspan/v1/runs") == runs
    assert daemon.get("/containers/json?all=1") == containers
