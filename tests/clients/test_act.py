"""act runs GitHub's workflows with containers of ours (it is on PyPI for x86_64 only)."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(120),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no act for this machine"),
]

ACT = Path(sys.executable).parent / "act"
WORKFLOW = """\
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - {run: "echo made by $(whoami) > made", shell: sh}
      - {run: "cat made && exit $CODE", shell: sh, env: {CODE: 0}}
  after:
    needs: build
    runs-on: ubuntu-latest
    container: busybox
    steps:
      - {run: "echo second; exit 3", shell: sh}
"""


def test_act_runs_a_workflow_and_says_which_step_failed(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / ".github/workflows/ci.yml"
    file.parent.mkdir(parents=True)
    file.write_text(WORKFLOW)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    local = ("--artifact-server-addr", "127.0.0.1", "--cache-server-addr", "127.0.0.1")
    done = subprocess.run(
        [ACT, "push", "-P", "ubuntu-latest=busybox", "--pull=false", "--rm", *local,
         "--container-daemon-socket", "-"],
        cwd=tmp_path, env={**daemon.environment, "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "made by root" in said, said
    assert "second" in said
    assert "exitcode '3': failure" in said
    assert done.returncode == 1
    assert daemon.containers() == []
