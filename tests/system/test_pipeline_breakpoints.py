"""A run that is held at a failed step: a shell in a real container like the step's, a mended script."""

from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.typed import Typed

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

TEXT = """\
linkspan: v1
defaults: {image: busybox}
secrets: {TOKEN: {from: file}}
jobs:
  test:
    secrets: [TOKEN]
    services:
      web:
        image: busybox
        command: [sh, -c, "echo served > /tmp/index.html; httpd -f -p 80 -h /tmp"]
        healthcheck: {test: [CMD, wget, -qO-, "http://127.0.0.1/"], interval: 200ms, retries: 50}
    steps:
      - {id: make, run: echo made > made}
      - {id: unit, run: "test -e fixed", env: {COLOUR: blue}}
      - {id: after, run: "cat found"}
"""

LOOK = """\
cat made; echo "$COLOUR $TOKEN"; wget -qO- http://web/; cat /run/linkspan-step/script; echo
echo from the shell > found; exit 3
"""


def test_a_shell_sees_what_the_step_saw_and_an_edited_script_goes_on(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.cli("workflow", "secret", "set", "TOKEN", stdin="sesame-7")
    file = tmp_path / "p.yaml"
    file.write_text(TEXT)
    run = daemon.cli("workflow", "run", file, "--detach", "--break", "on-failure").out.strip()
    path = f"/linkspan/v1/runs/{run}/break"
    held = until("the run is held", lambda: daemon.get(path)["held"] or None)[0]
    assert (held["place"], held["when"]) == ("test/unit", "on-failure")
    assert daemon.cli("exec", held["container"], "pwd").out == "/workspace\n"
    looked = daemon.cli("workflow", "break", run, "--shell", stdin=LOOK, status=3)
    assert looked.out.splitlines() == ["made", "blue sesame-7", "served", "test -e fixed"]
    fixed = tmp_path / "fixed.sh"
    fixed.write_text("test -e found\n")
    daemon.cli("workflow", "break", run, "test/unit", "--edit", fixed)
    daemon.cli("workflow", "attach", run)
    assert daemon.get(f"/linkspan/v1/runs/{run}")["state"] == "success"
    assert daemon.cli("workflow", "logs", run, "test/after").out == "from the shell\n"
    assert daemon.get("/containers/json?all=1") == []


def test_a_daemon_killed_while_a_run_is_held_leaves_it_to_be_resumed_there(
    new_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = new_daemon()
    daemon.start()
    daemon.build_busybox()
    file = tmp_path / "p.yaml"
    file.write_text(
        "linkspan: v1\njobs: {a: {image: busybox, steps: ["
        "{id: one, run: 'echo x'}, {id: two, run: 'echo y'}]}}\n"
    )
    run = daemon.cli("workflow", "run", file, "-d", "--break", "before:two").out.strip()
    path = f"/linkspan/v1/runs/{run}/break"
    until("the run is held", lambda: daemon.get(path)["held"] or None)
    daemon.kill9()
    daemon.start()
    until("what it left is gone", lambda: daemon.get("/containers/json?all=1") == [] or None)
    assert daemon.get(f"/linkspan/v1/runs/{run}")["state"] == "interrupted"
    daemon.cli("workflow", "resume", run, "--detach")
    held = until("the run is held again", lambda: daemon.get(path)["held"] or None)[0]
    assert held["place"] == "a/two"
    daemon.cli("workflow", "break", run, "--continue")
    daemon.cli("workflow", "attach", run)
    assert daemon.get(f"/linkspan/v1/runs/{run}")["state"] == "success"


def test_somebody_at_a_terminal_gets_the_shell_and_comes_back_to_the_question(
    daemon: Daemon, tmp_path: Path
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "linkspan: v1\njobs: {a: {image: busybox, steps: ["
        "{id: one, run: 'echo x > x'}, {id: two, run: 'test -e fixed'}]}}\n"
    )
    typed = Typed(daemon, "workflow", "run", str(file), "--break", "on-failure")
    typed.see("a abort: ")
    typed.type("s\n")
    typed.see("# ")
    typed.type("tty && cp x fixed && echo did$((40 + 2))\n")
    typed.see("/dev/pts/")
    typed.see("did42")
    typed.type("exit\n")
    typed.see("a abort: ")
    typed.type("r\n")
    assert typed.end() == 0
    again = Typed(daemon, "workflow", "run", str(file), "--break", "before:two")
    again.see("a abort: ")
    again.type("\x03")
    assert again.end() == 130
    assert daemon.get("/linkspan/v1/runs")[0]["state"] == "cancelled"
    assert daemon.get("/containers/json?all=1") == []


HELD = """\
linkspan: v1
defaults: {image: busybox}
secrets: {TOKEN: {from: file}}
jobs:
  a:
    secrets: [TOKEN]
    volumes: ["%s:/data:ro"]
    services:
      web:
        image: busybox
        command: [sh, -c, "echo served > /tmp/index.html; httpd -f -p 80 -h /tmp"]
        healthcheck: {test: [CMD, wget, -qO-, "http://127.0.0.1/"], interval: 200ms, retries: 50}
    steps:
      - {id: one, secrets: [TOKEN], env: {COLOUR: blue}, run: "touch never"}
      - {id: two, run: "test -e edited"}
      - {id: three, run: "exit 3"}
      - {id: four, if: always(), run: "test ! -e never && cat /data/file"}
"""


def test_at_a_terminal_a_step_is_skipped_edited_and_let_fail(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.cli("workflow", "secret", "set", "TOKEN", stdin="sesame-7")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("of a volume\n")
    (tmp_path / "p.yaml").write_text(HELD % (tmp_path / "data"))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "touch edited; test -e edited" > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    places = ("before:one", "on-failure", "after:four")
    breaks = [word for place in places for word in ("--break", place)]
    typed = Typed(daemon, "workflow", "run", str(tmp_path / "p.yaml"), *breaks)
    typed.see("a/one  held before it runs")
    typed.see("a abort: ")
    typed.type("s\n")
    typed.see("# ")
    typed.type('echo "<$COLOUR $TOKEN $PWD>"; wget -qO- http://web/; cat /data/file; exit\n')
    typed.see("<blue sesame-7 /workspace>")
    typed.see("served")
    typed.see("of a volume")
    typed.see("a abort: ")
    typed.type("k\n")
    typed.see("a/two  held because it failed")
    typed.see("a abort: ")
    typed.type("e\n")
    typed.see("a/three  held because it failed")
    typed.see("exit code 3")
    typed.see("a abort: ")
    typed.type("c\n")
    typed.see("a/four  held after it has run")
    typed.see("a abort: ")
    typed.type("c\n")
    assert typed.end() == 1
    run = daemon.get("/linkspan/v1/runs/last")
    states = {step["id"]: step["state"] for step in run["jobs"][0]["steps"]}
    assert states == {"one": "skipped", "two": "success", "three": "failed", "four": "success"}
    assert daemon.cli("workflow", "logs", run["id"], "a/four").out == "of a volume\n"
    assert daemon.get("/containers/json?all=1") == []


ENDED = """\
linkspan: v1
defaults: {image: busybox}
concurrency: {group: only-one, on-conflict: reject}
secrets: {TOKEN: {from: file}}
jobs:
  first:
    outputs: {word: "${{ steps.say.outputs.word }}"}
    steps: [{id: say, run: "echo word=seven > $LINKSPAN_OUTPUT"}]
  test:
    needs: [first]
    lock: shared
    cache: [{path: cached, key: k}]
    services:
      web:
        image: busybox
        command: [sh, -c, "echo served > /tmp/index.html; httpd -f -p 80 -h /tmp"]
        healthcheck: {test: [CMD, wget, -qO-, "http://127.0.0.1/"], interval: 200ms, retries: 50}
    steps:
      - {id: make, run: echo made > made}
      - {id: unit, secrets: [TOKEN], run: "echo left > left; exit 3"}
      - {id: after, uses: tag, with: {image: busybox, tags: ["not:1"]}}
finally: {z: {steps: [{id: last, uses: tag, with: {image: busybox, tags: ["cleaned:1"]}}]}}
"""


def test_after_the_end_a_shell_shows_what_a_step_saw_and_leaves_nothing(
    new_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = new_daemon()
    daemon.start()
    daemon.build_busybox()
    daemon.cli("workflow", "secret", "set", "TOKEN", stdin="sesame-7")
    file = tmp_path / "p.yaml"
    file.write_text(ENDED)
    daemon.cli("workflow", "run", file, status=1)
    before = daemon.get("/linkspan/v1/runs/last")
    daemon.docker("rmi", "cleaned:1")
    look = 'cat made left; echo "$TOKEN $NEEDS_FIRST_WORD"; wget -qO- http://web/; touch cached; exit 4\n'
    for words in (("last",), (before["id"], "test/unit"), (before["id"], "test")):
        done = daemon.cli("workflow", "shell", *words, stdin=look, status=4)
        assert done.out.splitlines() == ["made", "left", "sesame-7 seven", "served"]
        assert "like test/unit of run" in done.err
    for words, status, said in (
        (("test/none",), 1, "no step"),
        (("first",), 2, "say which one"),
    ):
        assert said in daemon.cli("workflow", "shell", "last", *words, status=status).err
    # It was no run: nothing of it is kept, and nothing was done besides.
    assert daemon.get("/linkspan/v1/runs") == [
        {key: before[key] for key in daemon.get("/linkspan/v1/runs")[0]}
    ]
    assert daemon.get("/containers/json?all=1") == []
    assert not {"cleaned:1", "not:1"} & daemon.images()
    # At a terminal; whoever is gone takes it along.
    typed = Typed(daemon, "workflow", "shell", "last")
    typed.see("# ")
    typed.type("tty && echo did$((40 + 2))\n")
    typed.see("/dev/pts/")
    typed.see("did42")
    typed.type("exit\n")
    assert typed.end() == 0
    assert [run["id"] for run in daemon.get("/linkspan/v1/runs")] == [before["id"]]
