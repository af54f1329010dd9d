"""Pipelines, configs and Dockerfiles with faults: where and what, in one shape, before anything happens."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

GOOD = """\
linkspan: v1
name: small
on: manual
jobs:
  one:
    image: busybox
    steps:
      - id: first
        run: echo one
  two:
    needs: [one]
    image: busybox
    steps:
      - run: echo two
"""

FAULTS: dict[str, tuple[str, str, int, str]] = {
    # what is replaced, by what, the line of the complaint, what it says
    "an unknown key": (
        "  two:\n    needs:",
        "  two:\n    nedes:",
        11,
        r"nedes.*|did you mean .?needs",
    ),
    "a wrong type": (
        "image: busybox\n    steps:\n      - id",
        "image: [busybox]\n    steps:\n      - id",
        6,
        "image",
    ),
    "a tab": ("    steps:\n      - run: echo two", "    steps:\n\t- run: echo two", 14, "tab"),
    "a duplicate key": ("name: small\n", "name: small\nname: large\n", 3, "name"),
    "a cycle": ("  one:\n", "  one:\n    needs: [two]\n", 6, "one.*two|two.*one|cycle"),
    "an unknown verb": ("run: echo two", "uses: biuld", 14, "biuld"),
    "an unknown job": ("needs: [one]", "needs: [none]", 11, "none"),
    "an unknown input": ("echo two", "echo ${{ inputs.nowhere }}", 14, "nowhere"),
    "a version that is none": ("linkspan: v1", "linkspan: v9", 1, "v9"),
    "no mapping at all": (GOOD, "- just\n- a list\n", 1, "mapping|list"),
    "no YAML at all": (GOOD, "linkspan: v1\nname: [open\n", 3, "."),
}


@pytest.mark.parametrize(
    ("verb", "fault"),
    [*(("lint", fault) for fault in FAULTS), ("run", "a cycle"), ("run", "a tab")],
)
def test_a_pipeline_with_a_fault_is_pointed_at_and_nothing_is_run(
    daemon: Daemon, tmp_path: Path, verb: str, fault: str
) -> None:
    old, new, line, says = FAULTS[fault]
    assert old in GOOD
    pipeline = tmp_path / "small.yaml"
    pipeline.write_text(GOOD.replace(old, new))
    runs = len(daemon.get("/linkspan/v1/runs"))
    done = daemon.cli("workflow", verb, pipeline, status=2)
    assert re.search(rf"small\.yaml:{line}:\d+", done.said), done.said
    assert re.search(says, done.said), done.said
    assert re.search(r"error\[LS\d{4}\]", done.said)
    assert "fault of linkspan" not in done.said
    assert len(daemon.get("/linkspan/v1/runs")) == runs


def test_all_faults_of_a_pipeline_are_said_at_once(daemon: Daemon, tmp_path: Path) -> None:
    pipeline = tmp_path / "small.yaml"
    text = GOOD.replace("needs: [one]", "needs: [none]").replace("run: echo two", "uses: biuld")
    pipeline.write_text(text.replace("on: manual", "on: manual\ncolour: red"))
    said = daemon.cli("workflow", "lint", pipeline, status=2).said
    for word in ("colour", "none", "biuld"):
        assert word in said
    assert "3 errors" in said


def test_a_pipeline_that_is_not_there_and_a_run_that_is_none_are_named(daemon: Daemon) -> None:
    assert "nowhere.yaml" in daemon.cli("workflow", "run", "/tmp/nowhere.yaml", status=2).err
    done = daemon.cli("workflow", "resume", "none-such", status=None)
    assert done.status in (1, 2)
    assert "none-such" in done.err


def test_a_good_pipeline_is_found_good(daemon: Daemon, tmp_path: Path) -> None:
    pipeline = tmp_path / "small.yaml"
    pipeline.write_text(GOOD)
    daemon.cli("workflow", "lint", pipeline)
    daemon.cli("workflow", "run", pipeline)


@pytest.mark.parametrize(
    "given", ["colour=red", "version=3", "replicas=none", "replicas=51", "port"]
)
def test_an_input_that_does_not_fit_is_refused_with_those_that_do(
    daemon: Daemon, voyage: Path, given: str
) -> None:
    done = daemon.cli("workflow", "run", voyage, "--input", given, status=2)
    assert given.partition("=")[0] in done.err


# -- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("[daemon\nhost = 1\n", r"linkspan\.toml:\d+"),
        ('[registry]\ncolour = "red"\n', "colour"),
        ('[snapshots.overlay]\nlayer-limit = "much"\n', "layer-limit"),
        ('[content.local]\ngrace = "soon"\n', "grace"),
        ("[nowhere]\nx = 1\n", "nowhere"),
    ],
)
def test_a_daemon_with_a_wrong_config_does_not_start_and_says_where(
    new_daemon: Callable[..., Daemon], wrong: str, says: str
) -> None:
    daemon = new_daemon(config=wrong)
    process = daemon.spawn()
    assert process.wait(30) == 2, daemon.tail()
    said = daemon.tail()
    assert re.search(says, said), said
    assert re.search(r"linkspan\.toml:\d+:\d+", said), said
    assert "Traceback" not in said
    assert not (daemon.data_root / "linkspan.db").exists()
    checked = daemon.cli("config", "check", status=2)
    assert re.search(says, checked.said)
    daemon.forget()


# -- Dockerfiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dockerfile", "line", "says"),
    [
        ("FROM busybox\nRUNN echo one\n", 2, "unknown instruction: RUNN"),
        ("RUN echo one\n", 1, "no build stage"),
        ("FROM busybox\nCOPY\n", 2, "COPY"),
        ("FROM busybox\nEXPOSE many\n", 2, "many"),
        ("FROM busybox\nCOPY --colour=red a b\n", 2, "colour"),
        ("FROM busybox\nCOPY --from=127.0.0.1:1/nowhere a b\n", 0, "127.0.0.1:1/"),
        ("FROM busybox AS a\nFROM a AS a b\n", 2, "FROM"),
        ("", 0, "empty|no instructions|FROM"),
    ],
)
def test_a_dockerfile_with_a_fault_is_pointed_at(
    daemon: Daemon, dockerfile: str, line: int, says: str
) -> None:
    before = daemon.images()
    context = daemon.write_context(dockerfile)
    done = daemon.cli("build", "-t", "bad", context, status=None)
    assert done.status in (1, 2)
    assert re.search(says, done.err), done.err
    if line:
        assert re.search(rf"Dockerfile:{line}\b", done.err), done.err
    assert "fault of linkspan" not in done.err
    assert daemon.images() == before
    other = daemon.docker("build", "-t", "bad", context, status=1)
    assert re.search(says, other.said), other.said


@pytest.mark.parametrize(
    "source", ["../outside", "/../outside", "missing", "busybox/../../outside"]
)
def test_a_copy_of_what_is_not_in_the_context_is_refused(daemon: Daemon, source: str) -> None:
    context = daemon.write_context(f"FROM busybox\nCOPY {source} /x\n")
    (context.parent / "outside").write_text("secret")
    done = daemon.cli("build", "-t", "bad", context, status=1)
    assert source.rpartition("/")[2] in done.err
    assert "not found" in done.err or "outside" in done.err
    assert "bad:latest" not in daemon.images()


def test_a_link_out_of_the_context_is_not_followed(daemon: Daemon) -> None:
    context = daemon.write_context("FROM busybox\nCOPY link /x\nRUN cat /x\n")
    (context / "link").symlink_to("/etc/shadow")
    done = daemon.cli("build", "-t", "bad", context, status=1)
    assert "root:" not in done.said
    assert "bad:latest" not in daemon.images()


def test_a_step_that_fails_shows_its_output_and_its_status(daemon: Daemon) -> None:
    context = daemon.write_context("FROM busybox\nRUN echo it was me; exit 42\n")
    done = daemon.cli("build", "-t", "bad", context, status=1)
    assert "it was me" in done.said
    assert "42" in done.err
    assert "bad:latest" not in daemon.images()


# -- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("rnu",), 2, "did you mean `run`"),
        (("run", "--nmae", "x", "busybox"), 125, "did you mean `--name`"),
        (("run",), 125, "IMAGE"),
        (("run", "-p", "99999:80", "busybox"), 125, "99999"),
        (("run", "-m", "1m", "busybox"), 125, "6MB"),
        (("run", "-v", "a:relative", "busybox"), 125, "relative"),
        (("run", "UPPER:case", "true"), 125, "lowercase"),
        (("run", "--network", "nowhere", "busybox"), 125, "nowhere"),
        (("run", "--restart", "sometimes", "busybox"), 125, "sometimes"),
        (("run", "--rm", "--restart", "always", "busybox"), 125, "restart"),
        (("exec", "nobody", "true"), 1, "nobody"),
        (("inspect", "nobody"), 1, "nobody"),
        (("rm", "nobody"), 1, "nobody"),
        (("logs", "nobody"), 1, "nobody"),
        (("rmi", "nobody"), 1, "nobody"),
        (("network", "rm", "nobody"), 1, "nobody"),
        (("volume", "rm", "nobody"), 1, "nobody"),
        (("service", "rm", "nobody"), 1, "nobody|swarm"),
        (("--host", "unix:///tmp/nowhere.sock", "ps"), 69, "nowhere.sock"),
    ],
)
def test_a_command_with_a_fault_names_it_and_has_its_status(
    daemon: Daemon, words: tuple[str, ...], status: int, says: str
) -> None:
    done = daemon.cli(*words, status=None)
    assert re.search(says, done.err), done.err
    assert "fault of linkspan" not in done.err
    assert "Traceback" not in done.err
    assert done.status == status, done.err
    # As with Docker, that a network is missing shows when the container is started: it stays.
    states = [found["State"] for found in daemon.containers()]
    assert states == (["created"] if "--network" in words else [])
