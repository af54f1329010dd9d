"""daemon start, stop, status, and starting on demand."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from linkspan.core.daemon import start as daemon_start
from linkspan.core.daemon.start import NotStarted, ask, ensure_running, stop_running
from linkspan.sdk.errors import Timeout

STATUS = {
    "id": "d1",
    "version": "0.1.0",
    "pid": 1,
    "hosts": ["unix:///x"],
    "data_root": "/d",
    "exec_root": "/e",
    "drivers": {"runtime": "oci"},
    "unusable": {"network/bridge": "no nft"},
    "troubles": {},
    "repaired": ["removed 2 mounts"],
    "info": {"audit": {"events": "12"}},
}


def test_status_says_how_the_daemon_is(fake: Any, linkspan: Any) -> None:
    fake.on("GET", "/linkspan/v1/daemon", STATUS)
    with fake.running():
        result = linkspan("daemon", "status")
    assert result.status == 0
    assert "runtime=oci" in result.out
    assert "network/bridge: no nft" in result.err
    assert "repaired at start: removed 2 mounts" in result.err
    assert linkspan("daemon", "status").status == 69


def test_starting_what_runs_says_so(fake: Any, linkspan: Any, tmp_path: Path) -> None:
    fake.on("GET", "/linkspan/v1/daemon", STATUS)
    with fake.running():
        result = linkspan("daemon", "start", "--exec-root", str(tmp_path))
    assert result.out == f"daemon runs already: pid 1, {fake.url}\n"


def test_a_daemon_that_cannot_start_says_why(linkspan: Any, tmp_path: Path) -> None:
    roots = ["--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "exec")]
    host = ["--host", f"unix://{tmp_path}/s.sock"]
    result = linkspan("daemon", "start", *host, *roots, "--use", "runtime=absent")
    assert result.status == 1
    assert "the daemon did not start: runtime driver 'absent' is not installed" in result.err
    assert f"less {tmp_path}/exec/daemon.log" in result.err


def test_a_wrong_config_is_shown_before_anything_is_started(linkspan: Any, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[daemon]\nbip = 5\n")
    result = linkspan("--config", str(config), "daemon", "start")
    assert result.status == 2
    assert f"--> {config}:2:7" in result.err


def test_stopping_waits_until_the_process_has_ended(fake: Any, linkspan: Any) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), exit()))\n"
        "print('up', flush=True)\nsignal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    fake.on("GET", "/linkspan/v1/daemon", {**STATUS, "pid": process.pid})
    with fake.running():
        result = linkspan("daemon", "stop")
    assert result.out == f"daemon stopped: pid {process.pid}\n"
    assert process.wait(timeout=30) == 0
    process.stdout.close()
    absent = linkspan("daemon", "stop")
    assert (absent.status, absent.out) == (0, "")


def test_a_daemon_that_does_not_end_is_told_as_such(fake: Any) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    fake.on("GET", "/linkspan/v1/daemon", {**STATUS, "pid": process.pid})
    with fake.running(), pytest.raises(Timeout, match="did not end"):
        stop_running(fake.url, timeout_s=0.1)
    process.kill()
    process.wait()
    process.stdout.close()


def test_two_that_start_at_once_start_one(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits for the first, then finds the daemon running."""
    fake.on("GET", "/linkspan/v1/daemon", STATUS)
    overrides = {"daemon.exec-root": str(tmp_path)}
    link = tmp_path / "s.sock"
    url = f"unix://{link}"

    def slow_start(*_args: object) -> dict[str, Any] | None:
        time.sleep(0.3)
        link.symlink_to(fake.socket_path)
        return ask(url)

    monkeypatch.setattr(daemon_start, "_start", slow_start)
    with fake.running():
        child = os.fork()
        if child == 0:
            time.sleep(0.1)
            monkeypatch.setattr(daemon_start, "_start", lambda *_: os._exit(7))
            os._exit(0 if ensure_running(url, overrides=overrides) else 1)
        assert ensure_running(url, overrides=overrides)["id"] == "d1"
        assert os.waitpid(child, 0)[1] == 0


def test_a_daemon_that_crashes_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(NotStarted, match="it wrote nothing"):
        ensure_running(f"unix://{tmp_path}/s", overrides={"daemon.exec-root": str(tmp_path)})
