"""The command line against a daemon's API on a socket, with fakes below it."""

import errno
import json
import os
import pty
import signal
import subprocess
from xml.etree import ElementTree

import pytest
import trio
import yaml

from linkspan.sdk.errors import LinkspanError

pytestmark = pytest.mark.integration


async def test_a_run_prints_plain_lines_and_ends_with_a_table(shell):
    shell.write(
        "jobs: {a: {steps: [{id: one, run: echo hi}, {id: two, if: failure(), run: 'true'}]}}"
    )
    done = await shell("run", "p.yaml")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["STEP", "PLUGIN", "DURATION", "RESULT"]
    assert [rows[1][i] for i in (0, 1, 3, 4)] == ["a/one", "run", "✓", "success"]
    assert rows[2] == ["a/two", "run", "↷", "skipped"]
    said = [line.split(" ", 1)[1] for line in done.stderr.splitlines()]
    assert said[0].startswith("p  run ")
    assert said[1].startswith("a/one  succeeded in ")
    assert said[2] == "a/two  skipped"
    assert "succeeded in" in said[-1]
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr


async def test_a_failure_tells_reason_log_undo_and_what_to_type_next(shell):
    shell.write("""
jobs:
  a: {steps: [{id: ok, run: 'true'}, {id: bad, run: echo oops; exit 7}]}
  b: {needs: a, steps: [{run: 'true'}]}
""")
    done = await shell("run", "p.yaml")
    assert done.returncode == 1
    run_id = (await shell("ls", "-q")).stdout.strip()
    tail = done.stderr.splitlines()[-6:]
    assert tail[0].startswith(f"✗ p  run {run_id}  a/bad failed  ")
    assert tail[1:] == [
        "  the script ended with exit code 7",
        "    | oops",
        f"    whole log: linkspan workflow logs {run_id} a/bad",
        f"  next    linkspan workflow resume {run_id}    goes on at a; a/ok kept",
        f"          linkspan workflow shell {run_id}    a shell where a/bad ran",
    ]
    logs = await shell("logs", run_id, "a/bad")
    assert logs.stdout.splitlines() == ["oops", "the script ended with exit code 7"]
    whole = json.loads((await shell("logs", run_id, "a/bad", "--format", "json")).stdout)
    assert [line["line"] for line in whole] == logs.stdout.splitlines()
    lines = (await shell("logs", run_id, "a/bad", "--format", "jsonl")).stdout.splitlines()
    assert [json.loads(line) for line in lines] == whole
    assert (
        yaml.safe_load((await shell("logs", run_id, "a/bad", "--format", "yaml")).stdout) == whole
    )
    shown = await shell("logs", run_id, "a/bad", "--format", "{{.stream}} {{.line}}")
    assert "o oops" in shown.stdout.splitlines()
    resumed = await shell("resume", run_id)
    assert resumed.returncode == 1
    assert "attempt 2; kept: a/ok" in resumed.stderr


async def test_json_is_one_document_on_stdout_and_events_on_stderr(shell):
    shell.write("jobs: {a: {steps: [{id: s, run: sleep 0.5; echo hi}]}}")
    done = await shell("run", "p.yaml", "--format", "json", "--progress", "json")
    assert json.loads(done.stdout)["state"] == "success"
    kinds = [json.loads(line)["kind"] for line in done.stderr.splitlines()]
    assert kinds[0] == "run-created"
    assert kinds[-1] == "run-finished"
    assert "log" in kinds


async def test_faults_of_the_file_are_told_before_any_daemon_is_asked(shell):
    shell.write("jobs: {a: {step: []}}")
    done = await shell("run", "p.yaml")
    assert done.returncode == 2
    assert "error[LS1001]: unknown key 'step' in job 'a'" in done.stderr
    assert shell.bench.manager.list_runs() == []
    missing = await shell("run", "nowhere.yaml")
    assert missing.returncode == 2
    assert "there is no pipeline 'nowhere.yaml'" in missing.stderr
    wrong = await shell("run", "p.yaml", "--input", "x")
    assert wrong.returncode == 2


async def test_lint_finds_all_faults_of_all_files(shell):
    (shell.folder / ".linkspan").mkdir()
    shell.write("jobs: {a: {need: b, steps: [{run: 'true'}]}}", ".linkspan/one.yaml")
    shell.write("jobs: {a: {needs: b, steps: [{run: 'true'}]}}", ".linkspan/two.yaml")
    shell.write("jobs: {a: {steps: [{run: 'true'}]}}", ".linkspan/good.yaml")
    done = await shell("lint")
    assert done.returncode == 2
    assert "LS1001" in done.stdout
    assert ".linkspan/two.yaml:3:19" in done.stdout
    assert done.stderr.startswith(
        "2 errors in 3 files; 1 can be mended: linkspan workflow lint --fix  "
    )
    good = await shell("lint", "good")
    assert good.returncode == 0
    assert good.stderr.startswith("no errors in 1 file  ")
    machine = await shell("lint", "one", "--format", "json")
    assert [d["id"] for d in json.loads(machine.stdout)] == ["LS1001"]


async def test_a_pipeline_of_several_files_runs_and_goes_on_with_what_was_recorded(shell):
    (shell.folder / "ci").mkdir()
    common = shell.folder / "ci" / "common.yaml"
    common.write_text("jobs: {first: {image: img, steps: [{id: s, run: 'test -e ok'}]}}\n")
    shell.write(
        "include: [{file: ./ci/common.yaml}]\njobs: {a: {needs: first, steps: [{run: 'true'}]}}"
    )
    failed = await shell("run", "p.yaml")
    assert failed.returncode == 1
    assert "first/s failed" in failed.stderr
    common.write_text("jobs: {first: {image: img, steps: [{id: s, run: 'true'}]}}\n")
    again = await shell("resume", "last")
    assert again.returncode == 1
    fixed = await shell("run", "p.yaml")
    assert fixed.returncode == 0, fixed.stderr
    common.unlink()
    gone = await shell("run", "p.yaml")
    assert gone.returncode == 2
    assert "'ci/common.yaml' cannot be read: no such file or directory" in gone.stderr


async def test_a_plan_is_drawn_kept_and_followed(shell):
    shell.write("jobs: {a: {steps: [{id: s, run: 'true'}, {id: t, run: 'true', if: 'false'}]}}")
    drawn = await shell("plan", "p.yaml", "--out", "kept.plan")
    assert drawn.returncode == 0, drawn.stderr
    assert (await shell("run", "p.yaml", "--dry-run")).stdout == drawn.stdout
    assert (await shell("run", "p.yaml", "--dry-run", "--only", "a")).returncode == 2
    assert (await shell("ls", "-q")).stdout == ""
    lines = drawn.stdout.splitlines()
    assert lines[0].startswith("p  p.yaml  1 job, 2 steps  plan ")
    assert lines[1].split() == ["+", "a/s", "container", "of", "img", "sha256:0"]
    assert lines[2].startswith("↷ a/t  its `if` is false")
    assert lines[3] == "1 step skipped, 1 created, 0 changed, nothing destroyed"
    assert "linkspan workflow run --plan kept.plan" in drawn.stderr
    assert (await shell("plan", "p.yaml", "--exit-code")).returncode == 10
    done = await shell("run", "--plan", "kept.plan")
    assert done.returncode == 0, done.stderr
    (shell.folder / "source.txt").write_text("new")
    other = await shell("run", "--plan", "kept.plan")
    assert other.returncode == 3
    assert "error[LS1409]: the world has moved since the plan" in other.stderr
    assert "sources that no commit holds are others: source.txt\n" in other.stderr
    (shell.folder / "source.txt").unlink()
    shell.write("jobs: {a: {steps: [{id: s, run: 'false'}]}}")
    moved = await shell("run", "--plan", "kept.plan")
    assert moved.returncode == 3
    assert "the pipeline's text has changed" in moved.stderr
    both = await shell("run", "p.yaml", "--plan", "kept.plan")
    assert both.returncode == 2
    (shell.folder / "no.plan").write_text("{}")
    assert (await shell("run", "--plan", "no.plan")).returncode == 2


async def test_runs_are_listed_and_shown(shell):
    shell.write("name: shop\njobs: {a: {steps: [{id: s, run: echo hi}]}}")
    detached = await shell("run", "p.yaml", "--detach")
    run_id = detached.stdout.strip()
    await shell.bench.manager.wait(run_id)
    listed = await shell("ls")
    assert listed.stdout.splitlines()[1].split()[:4] == [run_id, "shop", "✓", "success"]
    shown = await shell("show", "last")
    assert "a/s" in shown.stdout
    document = json.loads((await shell("show", run_id, "--format", "json")).stdout)
    assert document["jobs"][0]["steps"][0]["id"] == "s"
    attached = await shell("attach", run_id)
    assert attached.returncode == 0
    unknown = await shell("show", "zzzz")
    assert unknown.returncode == 1
    assert "there is no run 'zzzz'" in unknown.stderr
    assert "linkspan workflow ls" in unknown.stderr
    ended = await shell("cancel", run_id)
    assert (ended.returncode, "is not running" in ended.stderr) == (1, True)
    again = await shell("resume", run_id)
    assert (again.returncode, "nothing is left to do" in again.stderr) == (1, True)


async def started(shell):
    """A run of a step that waits, watched by a command line."""
    shell.write("jobs: {a: {steps: [{id: s, run: 'touch ready; exec sleep 60'}]}}")
    process = await trio.lowlevel.open_process(
        shell.command("run", "p.yaml"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=shell.folder,
        env=shell.environ,
    )
    runs = shell.bench.host.state_dir / "runs"
    while not list(runs.glob("*/jobs/a/workspace/ready")):  # noqa: ASYNC110
        await trio.sleep(0.02)
    # The run may be quicker than the command that watches it: its first words say that it does.
    assert await process.stderr.receive_some()
    return process


async def finish(process):
    said = b""
    while chunk := await process.stderr.receive_some():
        said += chunk
    status = await process.wait()
    await process.stdout.aclose()
    await process.stderr.aclose()
    return status, said.decode()


async def test_ctrl_c_asks_the_run_to_stop_and_says_so(shell):
    process = await started(shell)
    process.send_signal(signal.SIGINT)
    status, said = await finish(process)
    assert status == 130
    assert "asked the run to stop; Ctrl-C again kills" in said
    assert "a/s was cancelled" in said
    assert "next    linkspan workflow resume" in said


async def test_a_lost_terminal_does_not_stop_the_run(shell):
    process = await started(shell)
    process.kill()
    await finish(process)
    await trio.sleep(0.2)
    (row,) = shell.bench.manager.list_runs()
    assert row["state"] == "running"
    stopped = await shell("cancel", row["id"], "--kill")
    assert stopped.stdout.strip() == row["id"]
    assert await shell.bench.manager.wait(row["id"]) == "cancelled"


async def test_a_full_disk_under_the_journal_interrupts_the_run_and_says_so(shell, monkeypatch):
    real = os.fdatasync
    count = 0

    def full(descriptor):
        nonlocal count
        count += 1
        if count >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", full)
    shell.write("jobs: {a: {steps: [{id: s, run: 'true'}, {id: t, run: 'true'}]}}")
    done = await shell("run", "p.yaml")
    assert done.returncode == 1
    assert "was interrupted: no room for the journal" in done.stderr
    assert "next    linkspan workflow resume" in done.stderr
    monkeypatch.undo()
    resumed = await shell("resume", "last")
    assert resumed.returncode == 0, resumed.stderr


async def test_a_terminal_gets_a_live_view(shell):
    shell.write("jobs: {a: {steps: [{id: s, run: 'echo working; sleep 0.8'}]}}")
    ours, theirs = pty.openpty()
    process = await trio.lowlevel.open_process(
        shell.command("run", "p.yaml"),
        stdout=theirs,
        stderr=theirs,
        cwd=shell.folder,
        env={**shell.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += await trio.to_thread.run_sync(os.read, ours, 65536)
        except OSError:
            break
    os.close(ours)
    assert await process.wait() == 0
    text = seen.decode()
    assert "Ctrl-C asks it to stop" in text
    assert "working" in text
    assert "succeeded in" in text


async def test_a_verbs_undo_is_told(shell):
    shell.bench.world.failures["s"] = [LinkspanError("web.1 is unhealthy")]
    run = await shell.bench.run("jobs: {a: {steps: [{id: s, uses: set, with: {name: x}}]}}")
    shown = await shell("show", run["id"])
    assert "a/s" in shown.stdout
    assert "failed, rolled back" in shown.stdout
    assert "  web.1 is unhealthy" in shown.stderr
    assert "  ↺ rolled back: back to None" in shown.stderr


async def test_a_run_that_asks_is_approved_from_another_command(shell):
    await shell.bench.run("""
jobs:
  gate: {steps: [{id: ask, uses: ask, with: {message: "ship it?"}}]}
  ship: {needs: [gate], steps: [{id: s, uses: set, with: {name: web, value: new}}]}
""")
    done = await shell("attach", "last")
    assert done.returncode == 75
    run_id = (await shell("ls", "-q")).stdout.strip()
    assert "‖ gate/ask  ship it?" in done.stderr
    assert "  plan    ship/s set: change web: None → new" in done.stderr
    assert f"next    linkspan workflow approve {run_id}" in done.stderr
    unsure = await shell("approve", run_id)
    assert unsure.returncode == 2
    assert "add --yes" in unsure.stderr
    said = await shell("approve", run_id, "--yes", "-m", "looks good")
    assert (said.returncode, said.stdout.strip()) == (0, run_id)
    assert (await shell("attach", run_id)).returncode == 0
    assert shell.bench.world.values == {"web": "new"}
    again = await shell("reject", run_id, "--yes")
    assert again.returncode == 1
    assert "waits for nobody" in again.stderr


async def test_a_rejection_has_an_exit_status_of_its_own(shell):
    await shell.bench.run("jobs: {gate: {steps: [{id: ask, uses: ask, with: {message: x}}]}}")
    await shell("reject", "last", "--yes", "-m", "no")
    done = await shell("attach", "last")
    assert done.returncode == 3
    assert "rejected by" in done.stderr


async def test_rerun_undo_why_and_prune_from_the_command_line(shell):
    text = "jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: '%s'}}, {run: '%s'}]}}"
    assert (await shell.bench.run(text % ("1", "true")))["state"] == "success"
    changed = f"linkspan: v1\ndefaults: {{image: img}}\n{text % ('2', 'exit 3')}"
    (shell.bench.sources / "p.yaml").write_text(changed)
    (shell.bench.sources / "more.txt").write_text("more")
    fresh = await shell("rerun", "last", "--fresh")
    assert fresh.returncode == 1
    why = await shell("why", "last")
    assert why.returncode == 0
    rows = [line.split() for line in why.stdout.splitlines()]
    assert rows[0] == ["SUBJECT", "WHAT", "CHANGE"]
    assert {row[0] for row in rows[1:]} == {"pipeline", "settings", "sources"}
    assert ["sources", "more.txt", "added"] in rows
    shown = await shell("undo", "last", "--dry-run")
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["STEP", "VERB"],
        ["a/s", "set"],
    ]
    assert shell.bench.world.values == {"x": "2"}
    undone = await shell("undo", "last", "--yes")
    assert undone.returncode == 0, undone.stderr
    assert "↺ a/s  back to 1" in undone.stderr
    assert shell.bench.world.values == {"x": "1"}
    old = await shell("rerun", "last", "--from", "a/s")
    assert old.returncode == 1
    would = await shell("prune", "--keep", "1", "--dry-run")
    assert len((await shell("ls", "-q")).stdout.split()) == 3
    pruned = await shell("prune", "--keep", "1", "--yes")
    assert would.stdout == pruned.stdout
    assert len(pruned.stdout.split()) == 2
    assert len((await shell("ls", "-q")).stdout.split()) == 1


async def test_undo_names_the_steps_that_have_no_way_back(shell):
    await shell.bench.run("""
jobs:
  a:
    steps:
      - {id: s, uses: set, with: {name: x, value: '1'}}
      - {id: t, uses: tell}
      - {id: r, run: 'true'}
      - {id: q, uses: ask, with: {message: "go on?"}}
      - {id: never, uses: tell}
""")
    await shell("reject", "last", "--yes")
    undone = await shell("undo", "last", "--yes")
    assert undone.stderr.splitlines() == [
        "  cannot be taken back: a/t (tell)",
        "  nothing recorded: a/r (run)",
        "  nothing to take back: a/q (ask)",
        "↺ a/s  back to None",
    ]
    assert undone.returncode == 0


async def test_one_job_or_one_step_is_run_alone(shell):
    shell.write("""
jobs:
  a: {steps: [{id: one, run: echo one}, {id: two, run: echo two}]}
  b: {needs: [a], steps: [{id: three, run: echo three}]}
""")
    assert (await shell("run", "p.yaml", "--only", "b")).returncode == 0
    assert (await shell("logs", "last")).stdout == "b/three | three\n"
    assert (await shell("run", "p.yaml", "--step", "a/two")).returncode == 0
    assert (await shell("logs", "last")).stdout == "a/two | two\n"
    wrong = await shell("run", "p.yaml", "--step", "two")
    assert wrong.returncode == 2
    assert "a whole job: --only two" in wrong.stderr


async def test_a_junit_report_says_what_every_step_did(shell):
    shell.write("""
jobs:
  a:
    steps: [{id: ok, run: 'true'}, {id: bad, name: "<b>", run: "printf 'x\\\\033[1m & y\\n'; exit 3"}]
  b: {needs: [a], steps: [{id: never, run: 'true'}]}
""")
    await shell("run", "p.yaml", "--junit", "out.xml")
    root = ElementTree.parse(shell.folder / "out.xml").getroot()
    counts = [
        {name: suite.get(name) for name in ("name", "tests", "failures", "skipped")}
        for suite in root
    ]
    assert counts == [
        {"name": "a", "tests": "2", "failures": "1", "skipped": "0"},
        {"name": "b", "tests": "1", "failures": "0", "skipped": "1"},
    ]
    failure = root[0][1].find("failure")
    assert root[0][1].get("name") == "<b>"
    assert failure.get("message") == "the script ended with exit code 3"
    assert failure.text == "x\ufffd[1m & y"


async def test_nobody_is_asked_to_confirm_what_cannot_be_done(shell):
    shell.write("jobs: {a: {steps: [{run: 'true'}]}}")
    await shell("run", "p.yaml")
    for words, said in ((("approve",), "waits for nobody"), (("undo",), "left to take back")):
        done = await shell(*words, "last")
        assert done.returncode == 1
        assert said in done.stderr
        assert "confirmed" not in done.stderr


async def test_a_failure_names_what_was_another_when_it_succeeded(shell):
    text = "jobs: {a: {steps: [{id: s, run: 'echo COLOUR is $COLOUR; test $COLOUR = blue', env: {COLOUR: %s}}]}}"
    shell.write(text % "red")
    first = await shell("run", "p.yaml")
    assert first.returncode == 1
    assert "workflow why" not in first.stderr
    shell.write(text % "blue")
    assert (await shell("run", "p.yaml")).returncode == 0
    shell.write(text % "red")
    again = await shell("run", "p.yaml")
    assert "  likely  pipeline line 3, which was another when it succeeded" in again.stderr
    assert "1 thing is different from run" in again.stderr
    assert "linkspan workflow why" in again.stderr


async def test_a_resumed_run_does_not_repeat_what_was_seen(shell):
    shell.write("jobs: {a: {steps: [{id: s, run: 'true'}, {id: t, run: 'test -e never'}]}}")
    await shell("run", "p.yaml")
    done = await shell("resume", "last")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert sum("a/t  failed after" in line for line in lines) == 1
    assert not any("a/s  succeeded" in line for line in lines)
    assert any("attempt 2; kept: a/s" in line for line in lines)
    assert (await shell("attach", "last")).stderr.count("a/t  failed after") == 2
