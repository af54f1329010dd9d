"""What goes wrong around a run, in real containers: leaks, floods, a daemon killed over a lock."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

SECRET = 'sesame-"opens"&/?ü-0123456789'
LEAKS = r"""
printf '%s\n' "$TOKEN"
printf %s "$TOKEN" | base64
printf %s "user:$TOKEN" | base64 -w0; echo
printf %s "$TOKEN" | base64 -w0 | tr '+/' '-_' | tr -d =; echo
printf %s "$TOKEN" | od -An -v -tx1 | tr -d ' \n'; echo
printf %s "$TOKEN" | od -An -v -tx1 | tr -d '\n' | tr ' ' %; echo
printf '%s\n' "$TOKEN" | sed 's/"/\\"/g'
printf '%s\n' "$TOKEN" | sed 's/&/\&amp;/g; s/"/\&quot;/g'
printf "'%s'\n" "$TOKEN" >&2
head -c 10485760 /dev/zero | tr '\0' x
printf 'v=%s\n' "$TOKEN" > $LINKSPAN_OUTPUT
exit 3
"""
PIPELINE = """\
linkspan: v1
secrets: {TOKEN: {from: file}}
jobs: {a: {image: busybox, steps: [{id: s, secrets: [TOKEN], run: "sh leaks"}]}}
"""
LOCKED = """\
linkspan: v1
name: %s
jobs:
  a:
    image: busybox
    lock: one
    volumes: ["%s:/trace"]
    steps: [{id: s, run: "echo %s >> /trace/log; while ! test -e /trace/go; do sleep 0.1; done"}]
"""


def test_a_secret_in_eight_encodings_and_a_flood_reach_nobody_and_stop_nothing(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.cli("workflow", "secret", "set", "TOKEN", stdin=SECRET)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    (tmp_path / "leaks").write_text(LEAKS)
    report = tmp_path / "report.xml"
    done = daemon.cli("workflow", "run", tmp_path / "p.yaml", "--junit", report, status=1)
    run = daemon.get("/linkspan/v1/runs/last")["id"]
    logs = daemon.cli("workflow", "logs", run, "a/s").out
    assert logs.count("***") >= 9
    assert logs.count("x") >= 10485760
    folder = daemon.data_root / "workflows/runs" / run
    told = [
        *(done.said, logs, report.read_text(), daemon.log.read_text(errors="replace")),
        daemon.get(f"/linkspan/v1/runs/{run}/events", parse=False),
        (folder / "journal.jsonl").read_text(),
        *(path.read_text(errors="replace") for path in folder.rglob("*.log")),
    ]
    raw = SECRET.encode()
    shapes = ("sesame-", raw.hex()[:20], "c2VzYW1lL", "Nlc2FtZS", "zZXNhbWUt", "%73%65%73")
    for text in told:
        for shape in shapes:
            assert shape not in text


def holds_or_waits(daemon: Daemon, path: str) -> bool:
    job = daemon.get(path)["jobs"][0]
    return bool(job["waits"] or job["steps"][0]["tries"])


def test_a_lock_whose_holder_was_killed_with_the_daemon_goes_to_whoever_resumes(
    new_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = new_daemon()
    daemon.start()
    daemon.build_busybox()
    trace = tmp_path / "trace"
    trace.mkdir()
    runs = []
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text(LOCKED % (name, trace, name))
        run = daemon.cli("workflow", "run", tmp_path / f"{name}.yaml", "--detach").out.strip()
        runs.append(run)

        path = f"/linkspan/v1/runs/{run}"
        until("it holds the lock or waits", partial(holds_or_waits, daemon, path))
    log = trace / "log"
    until("the first one has it", lambda: log.exists() and log.read_text() == "first\n")
    daemon.kill9()
    daemon.start()
    assert [daemon.get(f"/linkspan/v1/runs/{run}")["state"] for run in runs] == ["interrupted"] * 2
    # Whoever comes first now has it; the one that held it waits.
    daemon.cli("workflow", "resume", runs[1], "--detach")
    until("the second one has it", lambda: log.read_text() == "first\nsecond\n")
    daemon.cli("workflow", "resume", runs[0], "--detach")
    path = f"/linkspan/v1/runs/{runs[0]}"
    until("the first one waits", lambda: daemon.get(path)["jobs"][0]["waits"] == "one")
    (trace / "go").touch()
    for run in runs:
        daemon.cli("workflow", "attach", run)
    assert log.read_text() == "first\nsecond\nfirst\n"
    assert daemon.containers() == []
