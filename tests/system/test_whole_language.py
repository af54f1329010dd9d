"""The language's long example, which uses nearly all of it, checked and planned with the plugins in the box."""

import subprocess
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

EXAMPLE = Path(__file__).parents[2] / "workflows/tests/data/release.yaml"


@pytest.fixture
def text(daemon: Daemon, tmp_path: Path) -> str:
    """The example, with images and a registry that are there."""
    (tmp_path / "Dockerfile").write_text("FROM busybox AS runtime\nCOPY uv.lock /\n")
    (tmp_path / "uv.lock").write_text("")
    (tmp_path / "src").mkdir()
    found = EXAMPLE.read_text()
    for name, here in (
        ("registry.example.test", daemon.registry),
        ("python:3.12-slim", "busybox"),
        ("python:${{ matrix.python }}-slim", "busybox"),
        ("postgres:16", "busybox"),
    ):
        assert name in found
        found = found.replace(name, here)
    me = ["-c", "user.name=me", "-c", "user.email=me@example.test"]
    for words in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        [*me, "commit", "-q", "-m", "first"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, timeout=60)
    return found


def test_the_long_example_lacks_nothing_but_what_is_not_installed(
    daemon: Daemon, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "release.yaml"
    path.write_text(text)
    said = daemon.cli("workflow", "lint", str(path), status=2).out
    assert [line for line in said.splitlines() if line.startswith("error")] == [
        "error[LS1407]: no installed plugin plays secrets as 'keyring'",
        "error[LS1406]: plugin 'linkspan-swarm' is 0.1.0, this pipeline needs >=1.2,<2",
        "error[LS1401]: no installed plugin answers `uses: acme/slo-gate`",
    ]
    assert "pip install linkspan-keyring" in said
    assert "pip install 'linkspan-swarm>=1.2,<2'" in said
    assert "pip install 'linkspan-acme-slo-gate>=2,<3'" in said


def test_the_long_example_is_planned_as_a_whole(daemon: Daemon, tmp_path: Path, text: str) -> None:
    start = text.index("      - name: watch error rate")
    text = text[:start] + text[text.index("finally:") :]
    path = tmp_path / "release.yaml"
    path.write_text(text.replace(">=1.2,<2", ">=0.1,<2").replace("keyring", "file"))
    daemon.cli("workflow", "lint", str(path))
    words = ("workflow", "plan", str(path), "--input", "environment=production")
    said = daemon.cli(*words, status=None).said
    problems = [line for line in said.splitlines() if line.startswith("error")]
    assert problems == [
        "error[LS1408]: secret 'REGISTRY_TOKEN' has no value in 'file'",
        "error[LS1408]: service web: network front not found",
    ]
    daemon.cli("workflow", "secret", "set", "REGISTRY_TOKEN", stdin="sesame-sesame")
    daemon.docker("network", "create", "front")
    said = daemon.cli(*words).out
    steps = {step["step"]: step for step in daemon.json(*words)["steps"]}
    assert steps["build"]["changes"][0]["what"] == "image"
    assert steps["rollout"]["changes"][0]["what"] == "service web"
    assert "needs.build.outputs.image" in steps["rollout"]["later"]
    assert steps["scale"]["later"] == ["service web"]
    assert "lock deploy-production" in said
    daemon.docker("network", "rm", "front")
    # Planned, and nothing was made of it.
    assert daemon.containers() == []


MENDED = (
    # What has no counterpart on a bare machine.
    ("uv sync --frozen", "mkdir -p out"),
    (
        'uv run pytest -q --junitxml=out/junit.xml --python "$MATRIX_PYTHON"',
        'echo \'<testsuite tests="1"><testcase name="a"/></testsuite>\' > out/junit.xml',
    ),
    ("healthcheck: {test: [CMD, pg_isready, -U, postgres]", 'healthcheck: {test: [CMD, "true"]'),
    ("        tmpfs: [/var/lib/postgresql/data]", '        command: [sleep, "1000"]'),
    ('approvers: ["group:release"]', "approvers: [root]"),
    ("[CMD, curl, -fsS,", "[CMD, wget, -qO-,"),
    ("interval: 3s", "interval: 1s"),
    ("monitor: 30s", "monitor: 1s"),
    (
        'ports: ["8080:8080"]',
        'command: [sh, -c, "mkdir /w; hostname > /w/healthz; httpd -f -p 8080 -h /w"]',
    ),
)


def test_the_long_example_runs_waits_for_its_approval_and_deploys(
    daemon: Daemon, tmp_path: Path, text: str
) -> None:
    for start, end in (("      - name: watch error rate", "finally:"), ("  report:\n", "  sweep:")):
        text = text[: text.index(start)] + text[text.index(end) :]
    for written, here in (*MENDED, (">=1.2,<2", ">=0.1,<2"), ("keyring", "file")):
        assert written in text
        text = text.replace(written, here)
    path = tmp_path / "release.yaml"
    path.write_text(text)
    daemon.cli("workflow", "secret", "set", "REGISTRY_TOKEN", stdin="sesame-sesame")
    daemon.docker("network", "create", "front")
    inputs = ("--input", "environment=production", "--input", "replicas=3")
    said = daemon.cli("workflow", "run", str(path), *inputs, status=75).err
    assert "tests   6 passed" in said
    assert "create service web" in said
    assert "scale: known when it runs: service web" in said
    daemon.cli("workflow", "approve", "last", "--yes")
    daemon.cli("workflow", "attach", "last")
    (service,) = daemon.get("/services")
    assert service["Spec"]["Mode"]["Replicated"]["Replicas"] == 3
    # Nothing has changed: what was built is what is deployed again.
    daemon.cli("workflow", "run", str(path), "--input", "environment=staging")
    jobs = {job["id"]: job for job in daemon.json("workflow", "show", "last")["jobs"]}
    assert jobs["build"]["steps"][0]["state"] == "skipped"
    assert jobs["approve"]["state"] == "skipped"
    for _ in range(2):
        run = next(r["id"] for r in daemon.json("workflow", "ls") if not r.get("undone"))
        daemon.cli("workflow", "undo", run, "--yes")
    assert daemon.get("/services") == []
    daemon.cli("swarm", "leave", "--force")
    daemon.docker("network", "rm", "front")
