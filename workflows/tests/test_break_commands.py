"""``workflow run --break`` and ``workflow break``: in a pipe, and with somebody at the terminal."""

import os
import pty
import signal

import pytest
import trio

pytestmark = pytest.mark.integration

FAILS = "jobs: {a: {steps: [{id: s, run: 'echo oops; exit 7'}]}}"


async def until_held(bench):
    with trio.fail_after(30):
        while not (bench.manager.list_runs() and bench.manager.answers.breaks("last")["held"]):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_pipe_is_told_how_to_go_on_and_another_command_does(shell):
    shell.write(FAILS)
    (shell.folder / "fixed.sh").write_text("echo fine\n")
    done = []

    async def run():
        done.append(await shell("run", "p.yaml", "--break", "on-failure"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await until_held(shell.bench)
        shown = await shell("break", "last")
        assert "a/s  held because it failed" in shown.stdout
        twice = await shell("break", "last", "--retry", "--skip")
        assert (twice.returncode, "one thing at a time" in twice.stderr) == (2, True)
        missing = await shell("break", "last", "--edit", "nothing.sh")
        assert (missing.returncode, "cannot be read" in missing.stderr) == (2, True)
        edited = await shell("break", "last", "--edit", "fixed.sh")
        assert edited.returncode == 0, edited.stderr
        assert "a/s  retry" in edited.stderr
    (end,) = done
    assert end.returncode == 0, end.stderr
    assert "a/s  failed after" in end.stderr
    assert "again in" not in end.stderr
    assert "--edit FILE" in end.stderr
    assert "a/s  retry with an edited script, says" in end.stderr
    late = await shell("break", "last", "--retry")
    assert (late.returncode, "is not running" in late.stderr) == (1, True)


async def test_resume_and_rerun_are_held_too(shell):
    shell.write(FAILS)
    assert (await shell("run", "p.yaml")).returncode == 1
    for words in (("resume", "last"), ("rerun", "last", "--failed")):
        wrong = await shell(*words, "--break", "after:never")
        assert (wrong.returncode, "'never' is not in this pipeline" in wrong.stderr) == (2, True)
        begun = await shell(*words, "--break", "before:a/s", "-d")
        assert begun.returncode == 0, begun.stderr
        await until_held(shell.bench)
        assert "a/s  held before it runs" in (await shell("break", "last")).stdout
        assert (await shell("break", "last", "--continue")).returncode == 0
        assert await shell.bench.manager.wait("last") == "failed"


async def test_a_breakpoint_that_names_no_step_is_a_usage_error(shell):
    shell.write(FAILS)
    done = await shell("run", "p.yaml", "--break", "before:nothing")
    assert done.returncode == 2
    assert "'nothing' is not in this pipeline" in done.stderr
    assert "a/s" in done.stderr


class Terminal:
    """``workflow …`` on a terminal of its own."""

    def __init__(self, shell) -> None:
        self.shell = shell
        self.seen = b""

    async def start(self, *words: str, **environ: str) -> trio.Process:
        self.ours, theirs = pty.openpty()
        process = await trio.lowlevel.open_process(
            self.shell.command(*words),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self.shell.folder,
            env={**self.shell.environ, "TERM": "xterm", "COLUMNS": "100", **environ},
        )
        os.close(theirs)
        return process

    async def until(self, words: str) -> None:
        with trio.fail_after(30):
            while words.encode() not in self.seen:
                self.seen += await trio.to_thread.run_sync(os.read, self.ours, 65536)

    def type(self, text: str) -> None:
        self.seen = b""
        os.write(self.ours, text.encode())

    async def rest(self) -> str:
        while True:
            try:
                self.seen += await trio.to_thread.run_sync(os.read, self.ours, 65536)
            except OSError:
                os.close(self.ours)
                return self.seen.decode()


async def test_somebody_at_the_terminal_is_asked_and_may_edit(shell):
    shell.write(FAILS)
    editor = shell.folder / "editor"
    editor.write_text('#!/bin/sh\nsleep 0.01\necho "echo fine" > "$1"\ntouch -d 2030-01-01 "$1"\n')
    editor.chmod(0o755)
    terminal = Terminal(shell)
    process = await terminal.start("run", "p.yaml", "--break", "on-failure", EDITOR=str(editor))
    await terminal.until("a abort: ")
    terminal.type("r\n")
    await terminal.until("a abort: ")
    assert b"held because it failed" in terminal.seen
    terminal.type("e\n")
    text = await terminal.rest()
    assert await process.wait() == 0
    assert "succeeded in" in text


async def test_ctrl_c_at_the_question_stops_the_run(shell):
    shell.write(FAILS)
    terminal = Terminal(shell)
    process = await terminal.start("run", "p.yaml", "--break", "on-failure")
    await terminal.until("a abort: ")
    process.send_signal(signal.SIGINT)
    text = await terminal.rest()
    assert await process.wait() == 130
    assert "asked the run to stop" in text
    assert shell.bench.manager.inspect("last")["state"] == "cancelled"
    assert shell.bench.engine.containers.all == {}
