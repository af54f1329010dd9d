"""act runs GitHub's workflows with containers of ours (it is on PyPI for x86_64 only)."""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.ports import free_port

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


def act(
    daemon: Daemon, repository: Path, workflow: str, *more: str, image: str = "busybox"
) -> subprocess.CompletedProcess[str]:
    """Run a workflow of a repository, with nothing from elsewhere."""
    file = repository / ".github/workflows/ci.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(workflow)
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    local = ("--artifact-server-addr", "127.0.0.1", "--cache-server-addr", "127.0.0.1")
    return subprocess.run(
        [ACT, "push", "-P", f"ubuntu-latest={image}", "--pull=false", "--rm", *local,
         "--container-daemon-socket", "-", *more],
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


NODE_ACTION = """\
name: artifact
description: keeps a text with act's server of artifacts, or gets it from there
inputs: {do: {required: true}, text: {default: ""}}
outputs: {text: {description: what was got}}
runs: {using: node20, main: index.js, post: post.js}
"""
# What actions/upload-artifact and download-artifact of version 3 say to the server.
NODE_MAIN = """\
const fs = require("fs");
const base = process.env.ACTIONS_RUNTIME_URL;
const run = process.env.GITHUB_RUN_ID;
const list = `${base}_apis/pipelines/workflows/${run}/artifacts?api-version=6.0-preview`;
const headers = {
  Authorization: `Bearer ${process.env.ACTIONS_RUNTIME_TOKEN}`,
  "Content-Type": "application/json",
};
async function asked(url, more = {}) {
  const answer = await fetch(url, { headers, ...more });
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return answer;
}
async function main() {
  if (process.env.INPUT_DO === "upload") {
    const body = JSON.stringify({ Type: "actions_storage", Name: "cargo" });
    const made = await (await asked(list, { method: "POST", body })).json();
    const text = process.env.INPUT_TEXT;
    const range = `bytes 0-${text.length - 1}/${text.length}`;
    const put = { ...headers, "Content-Type": "application/octet-stream", "Content-Range": range };
    const to = `${made.fileContainerResourceUrl}?itemPath=cargo%2Ffile`;
    await asked(to, { method: "PUT", headers: put, body: text });
    await asked(`${list}&artifactName=cargo`, { method: "PATCH", body: `{"Size":${text.length}}` });
  } else {
    const found = (await (await asked(list)).json()).value.find((each) => each.name === "cargo");
    const files = await (await asked(`${found.fileContainerResourceUrl}?itemPath=cargo`)).json();
    const file = files.value.find((each) => each.itemType === "file");
    const text = await (await asked(file.contentLocation)).text();
    fs.appendFileSync(process.env.GITHUB_OUTPUT, `text=${text}\n`);
  }
  fs.appendFileSync(process.env.GITHUB_STATE, `done=${process.env.INPUT_DO}\n`);
}
main().catch((error) => { console.error(error); process.exitCode = 1; });
"""
NODE_POST = "console.log(`after the ${process.env.STATE_done}`);\n"
WITH_NODE = """\
on: push
jobs:
  up:
    runs-on: ubuntu-latest
    steps:
      - {uses: actions/checkout@v4}
      - {uses: ./.github/actions/artifact, with: {do: upload, text: a cargo}}
  down:
    needs: up
    runs-on: ubuntu-latest
    steps:
      - {uses: actions/checkout@v4}
      - {id: got, uses: ./.github/actions/artifact, with: {do: download}}
      - {shell: sh, run: 'echo "got ${{ steps.got.outputs.text }}"'}
"""


def build_node(daemon: Daemon, folder: Path) -> None:
    """Build ``node``: this machine's node with its libraries, beside busybox."""
    node = shutil.which("node")
    assert node is not None, "script/setup brings nodejs"
    needs = subprocess.run(["ldd", node], capture_output=True, text=True, check=True).stdout
    for path in (node, *re.findall(r"(/\S+) \(0x", needs)):
        target = folder / "root" / ("bin/node" if path == node else path.lstrip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY root/ /\n")
    daemon.docker("build", "-q", "-t", "node", folder)


def test_act_runs_actions_of_node_and_keeps_artifacts(daemon: Daemon, tmp_path: Path) -> None:
    build_node(daemon, tmp_path / "image")
    here = tmp_path / "repository"
    folder = here / ".github/actions/artifact"
    folder.mkdir(parents=True)
    files = {"action.yml": NODE_ACTION, "index.js": NODE_MAIN, "post.js": NODE_POST}
    for name, text in files.items():
        (folder / name).write_text(text)
    server = (
        *("--artifact-server-path", str(tmp_path / "kept")),
        *("--artifact-server-port", str(free_port())),
    )
    done = act(daemon, here, WITH_NODE, *server, image="node")
    said = done.stdout + done.stderr
    for line in ("after the upload", "got a cargo", "after the download"):
        assert line in said, said
    assert done.returncode == 0, said
    assert [file.read_text() for file in (tmp_path / "kept").rglob("file*")] == ["a cargo"]
    assert daemon.containers() == []


STAYS = """\
on: push
jobs:
  one:
    runs-on: ubuntu-latest
    container:
      image: busybox
      options: --memory 64m --ulimit nofile=99:99 --add-host far:10.9.8.7 --label kept=yes
    services:
      web: {image: web, ports: ["PORT:80"], options: --health-cmd "wget -qO- localhost" --health-interval 200ms}
    steps:
      - {shell: sh, run: 'echo x >> /stays; echo "lines $(wc -l < /stays)"; echo made > made'}
      - {shell: sh, run: 'echo "limit $(ulimit -n); $(grep far /etc/hosts)"'}
      - shell: sh
        run: 'echo "by the port: $(wget -qO- http://$(ip route | sed -n s/.*via.//p | cut -d" " -f1):PORT)"'
"""


def test_act_lists_tries_binds_and_reuses(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/Dockerfile").write_text(SERVED)
    daemon.docker("build", "-q", "-t", "web", tmp_path / "web")
    here = tmp_path / "repository"
    here.mkdir()
    workflow = STAYS.replace("PORT", str(free_port()))
    listed = act(daemon, here, workflow, "--list")
    assert re.search(r"^0 +one +one ", listed.stdout, re.M), listed.stdout + listed.stderr
    tried = act(daemon, here, WORKFLOW, "--dryrun")  # of services it makes a fault of its own
    assert "*DRYRUN*" in tried.stdout, tried.stdout + tried.stderr
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert (daemon.containers(), (here / "made").exists()) == ([], False)
    for lines in (1, 2):
        done = act(daemon, here, workflow, "--bind", "--reuse")
        said = done.stdout + done.stderr
        for text in (f"lines {lines}", "limit 99; 10.9.8.7\tfar", "by the port: served"):
            assert text in said, said
        assert done.returncode == 0, said
        assert (here / "made").read_text() == "made\n"
        kept = [c for c in daemon.containers() if c["Labels"].get("kept") == "yes"]
        assert [c["State"] for c in kept] == ["running"]
        seen = daemon.get(f"/containers/{kept[0]['Id']}/json")
        assert seen["HostConfig"]["Memory"] == 64 << 20
