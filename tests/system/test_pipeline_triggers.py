"""Runs that nobody starts by hand: a real daemon, real requests, a real git repository, real changes of files."""

import hashlib
import hmac
import http.client
import json
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SECRET = "sesame-opens"
HOOK = """\
linkspan: v1
on: {webhook: {provider: %s, secret: HOOK, events: [push], branches: [main]}}
secrets: {HOOK: {from: file}}
jobs: {a: {image: busybox, steps: [{id: s, run: 'echo hooked'}]}}
"""
GENERIC = """\
linkspan: v1
on: {webhook: {secret: HOOK}}
inputs: {version: {type: string, default: none}}
secrets: {HOOK: {from: file}}
jobs: {a: {image: busybox, steps: [{id: s, run: 'echo "<$INPUT_VERSION>"'}]}}
"""
CRON = """\
linkspan: v1
on: {schedule: [{cron: "%s", timezone: Asia/Kathmandu}]}
jobs: {a: {image: busybox, steps: [{id: s, run: 'echo due'}]}}
"""
ON_PUSH = """\
linkspan: v1
on: {push: {branches: [main], paths: ["src/**"]}, tag: {tags: ["v*"]}}
jobs: {a: {image: busybox, steps: [{id: s, run: 'cat src/file; echo "$GIT_BRANCH $GIT_TAG"'}]}}
"""
ON_WATCH = """\
linkspan: v1
on: {watch: {paths: ["src/**"], debounce: 100ms}}
jobs: {a: {image: busybox, steps: [{id: s, run: 'cat src/file'}]}}
"""
PUSH = json.dumps({"ref": "refs/heads/main"}).encode()


def signed(data: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


def by_github(body: bytes, *, secret: str = SECRET, event: str = "push") -> dict[str, str]:
    return {"X-Hub-Signature-256": signed(body, secret), "X-GitHub-Event": event}


def by_gitlab(uuid: str, *, secret: str = SECRET) -> dict[str, str]:
    event = {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Event-UUID": uuid}
    return {"X-Gitlab-Token": secret, **event}


def by_anybody(body: bytes, *, age_s: int = 0) -> dict[str, str]:
    stamp = str(int(time.time()) - age_s)
    proof = signed(f"{stamp}.".encode() + body)
    return {"X-Linkspan-Timestamp": stamp, "X-Linkspan-Signature-256": proof}


class Hooks:
    """The listener for requests from elsewhere, as a forge sees it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()

    def post(
        self, pipeline: str, headers: dict[str, str], body: bytes = PUSH
    ) -> tuple[int, dict[str, Any]]:
        return self.ask("POST", f"/hooks/shop/{pipeline}", headers, body)


def runs(daemon: Daemon, pipeline: str = "") -> list[dict[str, Any]]:
    """Newest first."""
    found: list[dict[str, Any]] = daemon.get("/linkspan/v1/runs")
    return [run for run in found if pipeline in ("", run["workflow"])]


def log_of(daemon: Daemon, run: str) -> str:
    """What a run's only step wrote, once it has succeeded."""
    path = f"/linkspan/v1/runs/{run}"
    until("the run has ended", lambda: not daemon.get(path)["active"])
    assert daemon.get(path)["state"] == "success", daemon.cli("workflow", "show", run).said
    return daemon.cli("workflow", "logs", run, "a/s").out


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    (folder / ".linkspan").mkdir(parents=True)
    for name, text in (
        ("github", HOOK % "github"),
        ("gitlab", HOOK % "gitlab"),
        ("generic", GENERIC),
        ("minutely", CRON % "* * * * *"),
        ("nightly", CRON % "30 2 * * *"),
    ):
        (folder / f".linkspan/{name}.yaml").write_text(text)
    return folder


def test_requests_and_the_clock_start_what_is_served(
    new_daemon: Callable[..., Daemon], shop: Path
) -> None:
    port = free_port()
    daemon = new_daemon(config=f'[webhooks]\nlisten = "127.0.0.1:{port}"\n')
    daemon.start()
    daemon.build_busybox()
    daemon.cli("workflow", "secret", "set", "HOOK", stdin=SECRET)
    daemon.cli("workflow", "serve", shop)
    hooks = Hooks(port)

    _forges(daemon, hooks)
    _strangers(hooks)
    _anybody(daemon, hooks)

    # What was taken, and what is served, outlives the daemon.
    daemon.kill9()
    daemon.start()
    assert hooks.post("github", by_github(PUSH))[1]["reason"] == "taken before"
    assert hooks.post("gitlab", by_gitlab("one"))[1]["reason"] == "taken before"
    assert hooks.post("gitlab", by_gitlab("two"))[0] == 202
    assert len([run for run in runs(daemon) if run["by"].startswith("webhook")]) == 4

    served = {row["name"]: row for row in daemon.json("workflow", "serve", "--ls")}
    nightly = datetime.fromisoformat(served["shop/nightly"]["next"].replace("Z", "+00:00"))
    # Half past two in Kathmandu, whatever the time is here.
    assert (nightly.astimezone(UTC).hour, nightly.minute) == (20, 45)
    due = until(
        "the minute is over",
        lambda: [run for run in runs(daemon, "minutely") if run["state"] == "success"],
        within_s=150,
    )
    assert log_of(daemon, due[0]["id"]) == "due\n"
    daemon.cli("workflow", "serve", "--rm", "shop")


def _forges(daemon: Daemon, hooks: Hooks) -> None:
    """GitHub and GitLab: what is signed starts a run, once."""
    status, said = hooks.post("github", by_github(PUSH))
    assert (status, log_of(daemon, said["run"])) == (202, "hooked\n")
    assert hooks.post("github", by_github(PUSH)) == (
        200,
        {"started": False, "reason": "taken before"},
    )
    status, said = hooks.post("gitlab", by_gitlab("one"))
    assert (status, log_of(daemon, said["run"])) == (202, "hooked\n")
    assert hooks.post("gitlab", by_gitlab("one"))[1]["started"] is False
    other = json.dumps({"ref": "refs/heads/other"}).encode()
    for body, event in ((other, "push"), (PUSH, "ping"), (PUSH, "issues")):
        status, said = hooks.post("github", by_github(body, event=event), body)
        assert (status, said["started"]) == (200, False)
    assert [run["by"] for run in runs(daemon) if "webhook" in run["by"]] == [
        "webhook gitlab push",
        "webhook github push",
    ]


def _strangers(hooks: Hooks) -> None:
    """Who proves nothing gets one and the same answer; who sends without end is cut off."""
    wrong = [
        ("github", by_github(PUSH, secret="guessed")),
        ("github", by_github(b"another body")),
        ("github", {"X-GitHub-Event": "push"}),
        ("gitlab", by_gitlab("x", secret="guessed")),
        ("gitlab", {"X-Gitlab-Event": "Push Hook"}),
        ("gitlab", by_github(PUSH)),
        ("generic", by_anybody(PUSH, age_s=400)),
        ("generic", {**by_anybody(PUSH), "X-Linkspan-Timestamp": "never"}),
        ("generic", {}),
        ("nightly", by_github(PUSH)),
        ("nowhere", by_github(PUSH)),
    ]
    answers = [hooks.post(name, headers) for name, headers in wrong]
    assert {status for status, _ in answers} == {401}
    assert len({json.dumps(said) for _, said in answers}) == 1
    huge = b"x" * (9 << 20)
    # Whoever goes on sending may lose the answer.
    with suppress(ConnectionError):
        assert hooks.post("github", by_github(huge), huge)[0] == 413
    assert hooks.ask("GET", "/linkspan/v1/runs", {})[0] == 404
    assert hooks.ask("POST", "/containers/create", {}, b"{}")[0] == 404


def _anybody(daemon: Daemon, hooks: Hooks) -> None:
    """Whoever signs for himself brings inputs, which are no code."""
    body = json.dumps({"inputs": {"version": "$(touch /x) \"';exit 9"}}).encode()
    status, said = hooks.post("generic", by_anybody(body), body)
    assert (status, log_of(daemon, said["run"])) == (202, "<$(touch /x) \"';exit 9>\n")
    for text in ('{"inputs": {"nothing": "x"}}', '{"inputs": []}', "[1]", "no json"):
        body = text.encode()
        assert hooks.post("generic", by_anybody(body), body)[0] == 400, text


class Git:
    """git, as somebody whose config is not read."""

    def __init__(self, home: Path, daemon: Daemon) -> None:
        clean = {k: v for k, v in daemon.environment.items() if not k.startswith("GIT_")}
        self._env = {
            **clean,
            **{"HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a"},
            **{"GIT_AUTHOR_EMAIL": "a@example.test", "GIT_COMMITTER_NAME": "a"},
            **{"GIT_COMMITTER_EMAIL": "a@example.test", "XDG_CACHE_HOME": str(home)},
        }

    def __call__(self, folder: Path, *words: str, ok: bool = True) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commit(self, folder: Path, file: str, text: str) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
        self(folder, "add", "-A")
        self(folder, "commit", "-q", "-m", file)


def test_a_git_push_starts_what_waits_for_it(daemon: Daemon, tmp_path: Path) -> None:
    git = Git(tmp_path, daemon)
    bare, work = tmp_path / "shop.git", tmp_path / "work"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(bare))
    git(tmp_path, "init", "-q", "-b", "main", str(work))
    git(work, "remote", "add", "origin", str(bare))
    daemon.cli("workflow", "hook", "install", bare)
    git.commit(work, ".linkspan/ci.yaml", ON_PUSH)
    git.commit(work, "src/file", "one\n")
    said = git(work, "push", "-q", "origin", "main")
    (run,) = runs(daemon, "ci")
    assert f"ci: run {run['id']}" in said
    assert log_of(daemon, run["id"]).split() == ["one", "main"]
    # Neither another path nor another branch; a tag is its own.
    git.commit(work, "README", "words\n")
    git(work, "push", "-q", "origin", "main", "main:other")
    assert len(runs(daemon, "ci")) == 1
    git(work, "tag", "v1")
    git(work, "push", "-q", "origin", "v1")
    assert log_of(daemon, runs(daemon, "ci")[0]["id"]).split() == ["one", "v1"]

    # From a work tree the run comes first, and nothing is pushed that fails it.
    daemon.cli("workflow", "hook", "install", work)
    git(work, "rm", "-q", "src/file")
    git.commit(work, "src/other", "x\n")
    refused = git(work, "push", "origin", "main", ok=False)
    assert "failed" in refused
    assert git(bare, "log", "--format=%s", "-1", "main") == "README\n"
    assert runs(daemon, "ci")[0]["state"] == "failed"


def test_changes_of_files_start_a_run_each_until_ctrl_c(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / ".linkspan/watched.yaml"
    for path, text in ((file, ON_WATCH), (tmp_path / "src/file", "one\n")):
        path.parent.mkdir()
        path.write_text(text)
    process = daemon.begin("workflow", "watch", file)

    def ended(count: int) -> bool:
        found = runs(daemon, "watched")
        return len(found) == count and not any(run["active"] for run in found)

    until("it runs at once", lambda: ended(1))

    def change(path: Path, text: str) -> None:
        """In one go; what is not below ``src`` does not count."""
        (tmp_path / "other").write_text(text)
        (tmp_path / "other").replace(path)

    change(tmp_path / "src/file", "two\n")
    until("it runs again", lambda: ended(2))
    assert log_of(daemon, runs(daemon, "watched")[0]["id"]) == "two\n"
    change(file, ON_WATCH.replace("jobs", "jbos"))
    change(file, ON_WATCH.replace("cat", "echo mended; cat"))
    until("it runs once more", lambda: ended(3))
    assert log_of(daemon, runs(daemon, "watched")[0]["id"]) == "mended\ntwo\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, 130), said
    assert "file changed" in said
