"""An installed plugin that blocks the event loop, or fails in its background: it is named, the daemon goes on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.fixtures import require
from daemon_harness.own_plugin import install_verb

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

SETTING = """\
[verb.with.how]
type = "string"
required = true
help = "In which way"
"""
STEPS = '''\
"""Each way to block the loop is a function of its own."""
import ctypes, re, time
import trio
from contextlib import asynccontextmanager
from linkspan.sdk.drivers.step import Step


def sleep():
    time.sleep(3600)

def loop():
    while True:
        pass

def stubborn():
    while True:
        try:
            time.sleep(3600)
        except Exception:
            pass

def pattern():
    re.match("(a+)+$", "a" * 200 + "b")

def lock(library):
    mutex = ctypes.create_string_buffer(128)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)

def deaf():
    lock(ctypes.CDLL(None))

def greedy():
    lock(ctypes.PyDLL(None))


class Block(Step):
    @classmethod
    @asynccontextmanager
    async def open(cls, config, host):
        async with trio.open_nursery() as nursery:
            yield cls(nursery)
            nursery.cancel_scope.cancel()

    def __init__(self, nursery):
        self.nursery = nursery

    async def apply(self, intent, context):
        if intent.settings["how"] == "background":
            self.nursery.start_soon(self.fail)
        else:
            globals()[intent.settings["how"]]()
        return {}

    async def fail(self):
        raise RuntimeError("the background has failed")
'''
HOOKS = """\
import time
from linkspan.sdk.hooks import hookimpl


@hookimpl
async def linkspan_before_container_create(spec):
    if "blocked" in spec.labels:
        time.sleep(3600)
"""


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the plugin, installed as a folder of the module path."""
    require("conmon", "nft", "ip", "busybox")
    folder = tmp_path_factory.mktemp("installed")
    files = {"steps.py": STEPS, "hooks.py": HOOKS}
    install_verb(folder, "block", "steps:Block", files, version="1.0", manifest=SETTING)
    daemon = Daemon(config='[plugins]\nblock-timeout = "1s"\n')
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(folder))
            daemon.start()
            daemon.build_busybox()
            yield daemon
    finally:
        daemon.close()


def line_of(function: str) -> int:
    """Where a function of the steps begins."""
    lines = STEPS.splitlines()
    return 1 + next(n for n, line in enumerate(lines) if line.startswith(f"def {function}("))


def pipeline(folder: Path, how: str) -> Path:
    path = folder / "p.yaml"
    path.write_text(
        "linkspan: v1\nname: p\ndefaults: {image: busybox}\njobs:\n"
        f"  a: {{steps: [{{id: s, uses: acme/block@1, with: {{how: {how}}}}}]}}\n"
        "finally: {z: {steps: [{id: last, run: 'echo it goes on'}]}}\n"
    )
    return path


def told(daemon: Daemon, words: str) -> dict[str, str]:
    """What the log says of the plugin, once it has said these words."""

    def look() -> dict[str, str] | None:
        lines = daemon.log.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and words in line]
        return found[-1] if found else None

    return until(f"the log says '{words}'", look)


@pytest.mark.parametrize("how", ["sleep", "loop", "pattern", "stubborn"])
def test_code_that_blocks_is_broken_off_and_its_plugin_named(
    blocked: Daemon, tmp_path: Path, how: str
) -> None:
    done = blocked.cli("workflow", "run", pipeline(tmp_path, how), status=None)
    assert done.status == 1, done.said
    shown = blocked.json("workflow", "show", "last")
    step, cleanup = (job["steps"][0] for job in shown["jobs"])
    assert (step["state"], cleanup["state"]) == ("failed", "success")
    message = step["error"]["message"]
    assert "plugin 'acme-block' 1.0 failed in step.apply" in message
    assert "it blocked the whole daemon for 1 s" in message
    assert "trio.to_thread.run_sync" in message
    assert "acme_block/steps.py:" in message
    assert f"({how})" in message
    if how != "pattern":  # it leaves the thread that would say so no time
        entry = told(blocked, f"({how})")
        assert (entry["level"], entry["plugin"]) == ("error", "acme-block")


def test_a_hook_that_blocks_refuses_what_it_was_asked_about(blocked: Daemon) -> None:
    done = blocked.cli("create", "--label", "blocked", "busybox", status=None)
    assert done.status != 0
    assert "plugin 'acme-block' failed in linkspan_before_container_create" in done.err
    assert "acme_block/hooks.py:8 " in done.err
    blocked.cli("create", "busybox")


@pytest.mark.parametrize("how", ["deaf", "greedy"])
def test_code_that_cannot_be_interrupted_is_named_in_the_log(
    blocked: Daemon, tmp_path: Path, how: str
) -> None:
    blocked.begin("workflow", "run", pipeline(tmp_path, how))
    at = f"line {line_of('lock') + 3} in lock"
    if how == "greedy":
        # The interpreter's lock is never free: only the fault handler can write.
        until("the log has the stack", lambda: at in blocked.log.read_text(errors="replace"))
    else:
        entry = told(blocked, "cannot be interrupted")
        assert entry["plugin"] == "acme-block"
        assert f"steps.py:{line_of('lock') + 3} (lock)" in entry["at"]
    blocked.kill9()
    blocked.start()


def test_a_driver_whose_background_fails_is_given_up_and_the_daemon_goes_on(
    blocked: Daemon, tmp_path: Path
) -> None:
    path = pipeline(tmp_path, "background")
    blocked.cli("workflow", "run", path, status=None)
    entry = told(blocked, "driver broke; the daemon goes on without it")
    assert (entry["role"], entry["driver"]) == ("step", "acme/block")
    assert "RuntimeError: the background has failed" in entry["reason"]
    blocked.cli("create", "busybox")
    again = blocked.cli("workflow", "run", path, status=None)
    assert again.status not in (0, None)
    assert "the background has failed" in again.said
    assert "it broke" in blocked.cli("plugin", "show", "acme-block").said
    blocked.kill9()
    blocked.start()
    blocked.cli("workflow", "run", path)
