import subprocess
import sys

import trio

from linkspan.sdk.model.process import StreamKind
from linkspan.workflows.masking import Masks
from linkspan.workflows.steplog import LogWriter, StepLog

FLOOD = """
import resource, sys
from pathlib import Path
import trio
from linkspan.sdk.model.process import StreamKind
from linkspan.workflows.masking import Masks
from linkspan.workflows.steplog import LogWriter, StepLog

LINE = b"x" * 199 + b"\\n"
CHUNK = LINE * 320

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

async def main():
    masks = Masks()
    masks.add("token", "a secret that is not in it")
    async with trio.open_nursery() as nursery:
        log = StepLog(Path(sys.argv[1]), lambda stream, line: None, masks, LogWriter(nursery))
        before = peak()
        for _ in range(200_000_000 // len(CHUNK)):
            await log.feed(StreamKind.STDOUT, CHUNK)
        log.end()
        await log.flush()
        nursery.cancel_scope.cancel()
    print(peak() - before)

trio.run(main)
"""


def test_two_hundred_megabytes_of_output_take_no_memory(tmp_path):
    path = tmp_path / "log"
    ran = subprocess.run(
        [sys.executable, "-c", FLOOD, path], capture_output=True, check=True, timeout=300
    )
    assert path.stat().st_size > 200_000_000
    path.unlink()
    assert int(ran.stdout) < 32


async def test_many_logs_are_written_in_a_few_goes(tmp_path, monkeypatch):
    goes = 0
    real = trio.to_thread.run_sync

    async def count(*args, **kwargs):
        nonlocal goes
        goes += 1
        return await real(*args, **kwargs)

    monkeypatch.setattr(trio.to_thread, "run_sync", count)
    async with trio.open_nursery() as nursery:
        writer = LogWriter(nursery)
        logs = [
            StepLog(tmp_path / "new" / f"{n}.log", lambda stream, line: None, Masks(), writer)
            for n in range(100)
        ]
        for log in logs:
            log.add("a line")
        await writer.write()
        assert goes == 1
        assert all("a line" in log.path.read_text() for log in logs)
        logs[0].add("one more")
        with trio.fail_after(60):
            while "one more" not in logs[0].path.read_text():  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_a_log_that_cannot_be_written_is_told_once_and_others_go_on(tmp_path):
    told = []
    writer = LogWriter()
    (tmp_path / "bad").mkdir()
    bad = StepLog(tmp_path / "bad", lambda stream, line: told.append(line), Masks(), writer)
    good = StepLog(tmp_path / "good", lambda stream, line: None, Masks(), writer)
    for _ in range(2):
        bad.add("lost")
        good.add("kept")
        await writer.write()
    assert [line for line in told if "cannot be written" in line] == [told[1]]
    assert good.path.read_text().count("kept") == 2
    await good.feed(StreamKind.STDERR, b"no newline")
    good.end()
    await good.flush()
    assert good.path.read_text().endswith(" e no newline\n")
