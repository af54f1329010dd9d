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


def act(daemon: Daemon, repository: Path, workflow: str) -> subprocess.CompletedProcess[str]:
    """Run a workflow of a repository, with nothing from elsewhere."""
    file = repository / ".github/workflows/ci.yml"
    file.parent.mkdir(parents=True)
    file.write_text(workflow)
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    local = ("--artifact-server-addr", "127.0.0.1", "--cache-server-addr", "127.0.0.1")
    return subprocess.run(
        [ACT, "push", "-P", "ubuntu-latest=busybox", "--pull=false", "--rm", *local,
         "--container-daemon-socket", "-"],
        cwd=repository, env={**daemon.environment, "HOME": str(repository)},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def test_act_runs_a_workflow_and_says_which_step_failed(daemon: Daemon, tmp_path: Path) -> None:
    done = act(daemon, tmp_path, WORKFLOW)
    said = done.stdout + done.stderr
    assert "made by root" in said, said
    assert "second" in said
    assert "exitcode '3': failure" in said
    assert done.returncode == 1
    assert daemon.containers() == []


ACTIONS = {
    "composite/action.yml": """\
name: composite
description: says its input
inputs: {word: {default: none}}
outputs: {said: {value: "${{ steps.say.outputs.said }}"}}
runs:
  using: composite
  steps: [{id: say, shell: sh, run: 'echo "said=made of ${{ inputs.word }}" >> $GITHUB_OUTPUT'}]
""",
    "image/action.yml": """\
name: image
description: is built here
inputs: {word: {default: none}}
runs: {using: docker, image: Dockerfile, args: ["${{ inputs.word }}"]}
""",
    "image/Dockerfile": 'FROM busybox\nCOPY entry.sh /entry.sh\nENTRYPOINT ["sh", "/entry.sh"]\n',
    "image/entry.sh": 'echo "said=built for $1" >> $GITHUB_OUTPUT\n',
}
WHOLE = """\
on: push
env: {TOP: top}
jobs:
  many:
    runs-on: ubuntu-latest
    strategy: {matrix: {number: [1, 2]}}
    outputs: {made: "${{ steps.make.outputs.made }}"}
    steps:
      - {id: make, shell: sh, run: 'echo "made=an output" >> $GITHUB_OUTPUT; echo "NEXT=next" >> $GITHUB_ENV'}
      - {shell: sh, run: 'echo "number ${{ matrix.number }} of $TOP and $NEXT"'}
  actions:
    needs: many
    runs-on: ubuntu-latest
    steps:
      - {uses: actions/checkout@v4}
      - {shell: sh, run: 'echo "got ${{ needs.many.outputs.made }}, $(cat file)"'}
      - {id: composite, uses: ./.github/actions/composite, with: {word: steps}}
      - {id: image, uses: ./.github/actions/image, with: {word: us}}
      - {shell: sh, run: 'echo "${{ steps.composite.outputs.said }}, ${{ steps.image.outputs.said }}"'}
      - {uses: docker://busybox, with: {entrypoint: /bin/echo, args: an image runs}}
  served:
    runs-on: ubuntu-latest
    container: {image: busybox, env: {OWN: own}, volumes: ["kept:/kept"], options: --hostname inner}
    services:
      web: {image: web, options: --health-cmd "wget -qO- localhost" --health-interval 200ms}
    steps:
      - {shell: sh, run: 'echo "$(hostname) has its $OWN; $(wget -qO- http://web/)"; touch /kept/file'}
      - {shell: sh, run: exit 3, continue-on-error: true}
      - {shell: sh, if: always(), run: 'echo "in the end ${{ job.status }}"'}
"""
SERVED = """\
FROM busybox
RUN mkdir /www && echo served > /www/index.html
CMD ["httpd", "-f", "-h", "/www"]
"""
SAID = (
    "number 1 of top and next",
    "number 2 of top and next",
    "got an output, from the repository",
    "made of steps, built for us",
    "an image runs",
    "inner has its own; served",
    "in the end success",
)


def test_act_runs_matrices_services_volumes_and_actions_of_the_repository(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/Dockerfile").write_text(SERVED)
    daemon.docker("build", "-q", "-t", "web", tmp_path / "web")
    here = tmp_path / "repository"
    for name, text in ACTIONS.items():
        file = here / ".github/actions" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (here / "file").write_text("from the repository")
    done = act(daemon, here, WHOLE)
    said = done.stdout + done.stderr
    assert [line for line in SAID if line not in said] == [], said
    assert done.returncode == 0, said
    assert daemon.containers() == []
    assert {"bridge", "host", "none"} == set(
        daemon.docker("network", "ls", "--format", "{{.Name}}").out.split()
    )
    assert "kept" in daemon.volumes()
