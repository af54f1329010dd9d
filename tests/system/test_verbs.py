"""The verbs of standard-steps on a real daemon: one pipeline that uses them on each other's results."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread  # noqa: TID251 - a server of the test's own beside synchronous commands

import pytest
from daemon_harness.daemon import Daemon

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PIPELINE = """\
linkspan: v1
defaults: {{image: busybox}}
jobs:
  all:
    services:
      box:
        image: busybox
        command: [sh, -c, "mkdir -p /srv; touch /tmp/ready; sleep 1000"]
        healthcheck: {{test: [CMD, test, -f, /tmp/ready], interval: 300ms, timeout: 5s, retries: 50}}
    steps:
      - {{id: write, run: "mkdir -p dist; echo hello > dist/page"}}
      - {{id: scan, uses: scan-file, with: {{paths: ["dist/*"], secrets: true, require: [hello]}}}}
      - {{id: wait, uses: wait-for, with: {{service: box, condition: healthy}}}}
      - {{id: in, uses: copy, with: {{from: dist/., to: "box:/srv"}}}}
      - {{id: look, uses: exec, with: {{service: box, command: [cat, /srv/page]}}}}
      - {{id: out, uses: copy, with: {{from: "box:/srv/page", to: fetched}}}}
      - {{id: check, run: "grep -q hello fetched"}}
      - {{id: tag, uses: tag, with: {{image: busybox, tags: ["job:1"]}}}}
      - id: job
        uses: run-job
        with: {{image: "job:1", command: [sh, -c, "echo made > /data/made; echo done"], volumes: ["made:/data"]}}
      - id: read
        uses: run-job
        with: {{image: "job:1", command: [cat, /data/made], volumes: ["made:/data"], memory: 64Mi}}
      - id: tell
        uses: notify
        with:
          url: "{hook}"
          format: slack
          text: "${{{{ steps.look.outputs.output }}}} ${{{{ steps.read.outputs.output }}}}"
      - {{id: untag, uses: remove-image, with: {{image: "job:1"}}}}
      - {{id: sweep, uses: prune, with: {{what: [containers, volumes], label: of-this-test}}}}
"""


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    told: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", told
    server.shutdown()
    thread.join()
    server.server_close()


def test_verbs_work_on_each_others_results(
    daemon: Daemon, tmp_path: Path, hook: tuple[str, list[dict[str, str]]]
) -> None:
    url, told = hook
    (tmp_path / "all.yaml").write_text(PIPELINE.format(hook=url))
    daemon.docker("create", "--name", "idle", "--label", "of-this-test", "busybox")
    daemon.docker("volume", "create", "--label", "of-this-test", "left")
    done = daemon.cli("workflow", "run", str(tmp_path / "all.yaml"), status=None)
    assert done.status == 0, done.said + daemon.tail()
    assert told == [{"text": "hello made"}]
    names = [container["Names"][0] for container in daemon.containers()]
    assert names == []
    assert "left" not in daemon.volumes()
    assert "made" in daemon.volumes()
    assert not {image for image in daemon.images() if image.startswith("job:")}


def test_a_job_that_fails_says_so_and_leaves_no_container(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "linkspan: v1\njobs: {a: {steps: [{uses: run-job, with: {image: busybox, "
        'command: [sh, -c, "echo oops; exit 3"]}}]}}\n'
    )
    done = daemon.cli("workflow", "run", str(tmp_path / "p.yaml"), status=1)
    assert "busybox ended with code 3" in done.err
    assert "oops" in done.err
    assert daemon.containers() == []


def test_a_step_that_runs_out_of_memory_says_so_and_may_be_tried_again(
    daemon: Daemon, tmp_path: Path
) -> None:
    hog = "[sh, -c, 'x=a; while :; do x=$x$x; done']"
    (tmp_path / "p.yaml").write_text(f"""linkspan: v1
jobs:
  verb:
    steps:
      - id: s
        uses: run-job
        with: {{image: busybox, memory: 16Mi, command: {hog}}}
        retry: {{max: 1, backoff: 1ms, on: [oom]}}
  service:
    services:
      db: {{image: busybox, mem_limit: 16m, command: {hog}, healthcheck: {{test: [CMD, "false"]}}}}
    steps: [{{id: s, image: busybox, run: "true"}}]
""")
    done = daemon.cli("workflow", "run", str(tmp_path / "p.yaml"), status=1)
    assert "busybox was killed: out of memory" in done.err
    assert "service 'db' was killed: out of memory before the first step" in done.err
    jobs = {job["id"]: job for job in daemon.json("workflow", "show", "last")["jobs"]}
    (step,) = jobs["verb"]["steps"]
    assert (step["tries"], step["error"]["cause"]) == (2, "oom")
    assert daemon.containers() == []


def test_drivers_are_chosen_for_a_run_and_missed_before_it_begins(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text("""linkspan: v1
use: {volume: local, network: bridge, orchestrator: swarm}
jobs:
  a:
    volumes: ["of-the-run:/v"]
    steps: [{id: s, image: busybox, run: "echo kept > /v/file"}]
""")
    path = str(tmp_path / "p.yaml")
    daemon.cli("workflow", "run", path)
    volume = daemon.json("volume", "inspect", "of-the-run")
    assert "local" in str(volume)
    assert "runtime by oci" in daemon.cli("workflow", "plan", path, "--use", "runtime=oci").out
    refused = daemon.cli("workflow", "run", path, "--use", "network=bridg", status=2)
    assert "did you mean 'bridge'?" in refused.err
    # Installed, but no network can be made by it.
    refused = daemon.cli("workflow", "run", path, "--use", "network=none", status=1)
    assert 'only one instance of "null" network is allowed' in refused.err
    assert daemon.containers() == []


def test_a_login_is_kept_for_pushes_that_follow(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "linkspan: v1\njobs: {a: {steps: [{uses: login, with: "
        f'{{registry: "{daemon.registry}", username: u, password: hunter2hunter2}}}}]}}}}\n'
    )
    daemon.cli("workflow", "run", str(tmp_path / "p.yaml"))
    kept = json.loads((daemon.folder / "config.json").read_text())
    assert list(kept["auths"]) == [daemon.registry]


def test_a_secret_reaches_a_build_and_a_service_and_stays_nowhere(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length\n"
    )
    (tmp_path / "p.yaml").write_text("""linkspan: v1
secrets: {BUILD_TOKEN: {from: file}}
jobs:
  a:
    steps:
      - id: make
        uses: build
        secrets: [BUILD_TOKEN]
        with:
          tags: ["of-a-secret:1"]
          secret-mounts: {token: "${{ secrets.BUILD_TOKEN }}"}
      - id: roll
        uses: deploy
        secrets: [BUILD_TOKEN]
        with:
          service: keeper
          image: ${{ steps.make.outputs.id }}
          command: [sleep, "1000"]
          stop-grace: 0s
          secrets: {token: "${{ secrets.BUILD_TOKEN }}"}
      - id: look
        uses: exec
        with: {service: keeper, command: [sh, -c, "cat /length; wc -c < /run/secrets/token"]}
""")
    daemon.cli("workflow", "secret", "set", "BUILD_TOKEN", stdin="sesame-of-19-letter")
    daemon.cli("workflow", "run", str(tmp_path / "p.yaml"))
    assert daemon.cli("workflow", "logs", "last", "a/look").out.split() == ["19", "19"]
    layers = daemon.get("/images/of-a-secret:1/history")
    assert "sesame" not in json.dumps(layers)
    shown = json.dumps([daemon.json("workflow", "show", "last"), daemon.get("/secrets")])
    assert "sesame" not in shown
    # Taken back, neither service nor secret is left.
    daemon.cli("workflow", "undo", "last", "--yes")
    assert daemon.get("/services") == daemon.get("/secrets") == []
    daemon.cli("swarm", "leave", "--force")
