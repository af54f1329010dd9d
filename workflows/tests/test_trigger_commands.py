"""``linkspan workflow serve|watch|hook`` against a daemon's API on a socket, with real git."""

import os
import re
import signal
import subprocess
import sys

import pytest
import trio

from linkspan.core.http.listeners import open_unix_listener
from linkspan.core.http.routing import RouteTable
from linkspan.core.http.server import serve_http
from linkspan.workflows.routes import Routes
from linkspan.workflows.triggering.routes import ServedRoutes
from linkspan.workflows.triggering.served import Served

pytestmark = pytest.mark.integration

ON_PUSH = """\
linkspan: v1
on: {push: {branches: [main], paths: ["src/**"]}, tag: {tags: ["v*"]}}
defaults: {image: img}
jobs: {a: {steps: [{run: cat src/file}]}}
"""


@pytest.fixture
async def shell(bench, verbs, nursery, tmp_path):
    routes = RouteTable()
    Routes(lambda: bench.manager).register(routes)
    served = Served(state=tmp_path / "served.json", verbs=verbs)
    ServedRoutes(lambda: served).register(routes)
    listener = await open_unix_listener(str(tmp_path / "s"))
    await nursery.start(serve_http, [listener], routes)
    # What a hook calls: a program of its own, as it is installed.
    program = tmp_path / "linkspan"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom linkspan.core.cli.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)

    class Shell:
        home = tmp_path
        linkspan = (str(program), "--host", f"unix://{tmp_path / 's'}")
        environ = {  # noqa: RUF012
            **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(tmp_path),
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@example.test",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@example.test",
        }

        async def __call__(self, *words, cwd=tmp_path, ok=True):
            done = await trio.run_process(
                list(words),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=cwd,
                env=self.environ,
            )
            text = done.stdout.decode() + done.stderr.decode()
            assert not ok or done.returncode == 0, text
            return subprocess.CompletedProcess(
                words, done.returncode, done.stdout.decode(), done.stderr.decode()
            )

    yield Shell()
    nursery.cancel_scope.cancel()


@pytest.fixture
async def work(shell):
    """A work tree with a pipeline, and a bare repository to push to."""
    await shell("git", "init", "-q", "--bare", "-b", "main", "shop.git")
    await shell("git", "init", "-q", "-b", "main", "work")
    folder = shell.home / "work"
    (folder / ".linkspan").mkdir()
    (folder / "src").mkdir()
    (folder / ".linkspan/ci.yaml").write_text(ON_PUSH)
    await commit(shell, folder, "one")
    await shell("git", "remote", "add", "origin", "../shop.git", cwd=folder)
    return folder


async def commit(shell, folder, text, name="src/file"):
    (folder / name).write_text(f"{text}\n")
    await shell("git", "add", "-A", cwd=folder)
    await shell("git", "commit", "-q", "-m", text, cwd=folder)


async def push(shell, folder, *refs, ok=True):
    return await shell("git", "push", "-q", "origin", *(refs or ("main",)), cwd=folder, ok=ok)


async def ended(bench):
    runs = bench.manager.list_runs()
    for run in runs:
        await bench.manager.wait(run["id"])
    return [bench.manager.inspect(run["id"]) for run in runs]


async def test_a_push_to_a_bare_repository_starts_a_run_of_that_commit(shell, work, bench):
    installed = await shell(*shell.linkspan, "workflow", "hook", "install", "shop.git")
    assert installed.stdout.strip().endswith("shop.git/hooks/post-receive")
    said = await push(shell, work)
    (run,) = await ended(bench)
    assert f"remote: ci: run {run['id']}" in said.stderr
    assert (run["state"], run["by"], run["git"]["branch"]) == ("success", "push main", "main")
    # Only paths that it waits for count.
    await commit(shell, work, "words", "README.md")
    await push(shell, work)
    assert len(await ended(bench)) == 1
    await shell("git", "tag", "v1", cwd=work)
    await push(shell, work, "v1")
    assert [run["by"] for run in await ended(bench)] == ["push tag v1", "push main"]
    await push(shell, work, ":v1")
    assert len(await ended(bench)) == 2


async def test_before_a_push_from_a_work_tree_the_run_must_succeed(shell, work, bench):
    await shell(*shell.linkspan, "workflow", "hook", "install", cwd=work)
    await push(shell, work)
    (run,) = await ended(bench)
    assert run["state"] == "success"
    (work / "src/file").unlink()
    await shell("git", "commit", "-q", "-a", "-m", "gone", cwd=work)
    refused = await push(shell, work, ok=False)
    assert refused.returncode != 0
    assert "a/a failed" in refused.stderr or "failed" in refused.stderr
    heads = await shell("git", "log", "--format=%s", "main", cwd=shell.home / "shop.git")
    assert heads.stdout.split() == ["one"]


async def test_a_pipeline_that_is_wrong_is_told_to_who_pushes(shell, work, bench):
    await shell(*shell.linkspan, "workflow", "hook", "install", "shop.git")
    (work / ".linkspan/bad.yaml").write_text(ON_PUSH.replace("jobs:", "jbos:"))
    await commit(shell, work, "two")
    said = await push(shell, work)
    assert "LS1001" in said.stderr
    (run,) = await ended(bench)
    assert run["state"] == "success"


async def test_a_hook_of_anothers_making_is_left_alone(shell, work):
    path = shell.home / "shop.git/hooks/post-receive"
    path.write_text("#!/bin/sh\nexit 0\n")
    done = await shell(*shell.linkspan, "workflow", "hook", "install", "shop.git", ok=False)
    assert done.returncode != 0
    assert "there is a hook already" in done.stderr
    assert "hook run post-receive" in done.stderr
    assert path.read_text() == "#!/bin/sh\nexit 0\n"
    nowhere = await shell(*shell.linkspan, "workflow", "hook", "install", "/proc", ok=False)
    assert "not a git repository" in nowhere.stderr


async def test_a_folder_is_served_listed_and_let_go(shell, work):
    (work / ".linkspan/ci.yaml").write_text(
        ON_PUSH.replace("on: {", 'on: {schedule: [{cron: "0 3 * * *"}], ')
    )
    done = await shell(*shell.linkspan, "workflow", "serve", "work", "--name", "shop")
    assert "shop/ci" in done.stdout
    assert "schedule 0 3 * * * (UTC), push, tag" in done.stdout
    # The next time, by this machine's clock on the wall.
    assert re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d [+-]\d\d:\d\d ", done.stdout)
    listed = await shell(*shell.linkspan, "workflow", "serve", "--ls", "-q")
    assert listed.stdout == "shop/ci\n"
    assert (await shell(*shell.linkspan, "workflow", "serve", "--rm", "shop")).stdout == "shop\n"
    assert (await shell(*shell.linkspan, "workflow", "serve", "--ls", "-q")).stdout == ""
    missing = await shell(*shell.linkspan, "workflow", "serve", "nowhere", ok=False)
    assert (missing.returncode, "no folder nowhere" in missing.stderr) == (2, True)


async def test_changes_start_another_run_until_ctrl_c(shell, work, bench):
    (work / ".linkspan/ci.yaml").write_text(
        ON_PUSH.replace("on: {", "on: {watch: {paths: [src/*]}, ")
    )
    process = await trio.lowlevel.open_process(
        [*shell.linkspan, "workflow", "watch", "ci"],
        cwd=work,
        env=shell.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    said = bytearray()

    async def read(stream):
        async for piece in stream:
            said.extend(piece)

    async def until(condition):
        with trio.fail_after(40):
            while not condition():  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, process.stdout)
        nursery.start_soon(read, process.stderr)
        try:
            await until(lambda: said.count(b"succeeded in") >= 2)
            (work / "README.md").write_text("of no matter")
            (work / "src/file").write_text("two\n")
            await until(lambda: len(bench.manager.list_runs()) == 2)
            await until(lambda: b"file changed" in said)
            await ended(bench)
            await until(lambda: said.count(b"succeeded in") >= 4)
        finally:
            process.send_signal(signal.SIGINT)
            with trio.move_on_after(20):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode in (0, 130), said.decode()
    assert len(bench.manager.list_runs()) == 2
