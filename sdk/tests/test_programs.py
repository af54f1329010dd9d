"""Programs that end soon: what they get, what comes back, and what is left of one that is cut off."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from linkspan.sdk.programs import Ended, run_program


async def test_what_a_program_says_and_how_it_ends_comes_back() -> None:
    ended = await run_program(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert ended == Ended(status=3, output=b"out\n", errors=b"err\n")


async def test_a_program_reads_what_it_is_given_and_then_the_end() -> None:
    text = os.urandom(1 << 20)
    ended = await run_program(["cat"], given=text)
    assert ended.output == text
    assert (await run_program(["cat"])).output == b""


async def test_a_program_gets_the_environment_and_the_folder_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "of the daemon")
    words = ["sh", "-c", "echo $OURS $THEIRS; pwd"]
    environment = {"PATH": os.defpath, "THEIRS": "given"}
    ended = await run_program(words, environment=environment, cwd=str(tmp_path))
    assert ended.output.decode() == f"given\n{tmp_path}\n"
    assert (await run_program(words)).output.decode() == f"of the daemon\n{Path.cwd()}\n"


async def test_a_program_that_a_signal_has_ended_has_its_number_negative() -> None:
    ended = await run_program(["sh", "-c", "kill -TERM $$"])
    assert ended.status == -signal.SIGTERM


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program"])
async def test_a_program_that_is_not_there_is_named(program: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await run_program([program])
    assert caught.value.filename == program


async def test_a_program_that_is_cut_off_is_killed_with_what_it_has_started(
    tmp_path: Path,
) -> None:
    told = tmp_path / "pids"
    script = 'sleep 1000 & echo $$ $! > "$0.new"; mv "$0.new" "$0"; wait'
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_program, ["sh", "-c", script, str(told)])
        await _until(told.exists)
        nursery.cancel_scope.cancel()
    pids = [int(word) for word in told.read_text().split()]
    await _until(lambda: not any(_lives(pid) for pid in pids))


async def test_a_program_that_is_cut_off_before_it_is_started_does_not_go_on() -> None:
    with trio.fail_after(60), trio.CancelScope() as scope:
        scope.cancel()
        await run_program(["sleep", "1000"])
    assert scope.cancelled_caught


async def test_what_a_program_leaves_behind_keeps_nobody_waiting(tmp_path: Path) -> None:
    with trio.fail_after(60):
        ended = await run_program(["sh", "-c", "sleep 1000 & echo $!"])
    left = int(ended.output)
    assert _lives(left)
    os.kill(left, signal.SIGKILL)


async def test_many_programs_run_side_by_side(tmp_path: Path) -> None:
    wall = tmp_path / "wall"
    os.mkfifo(wall)
    held = os.open(wall, os.O_RDWR)
    ended: list[Ended] = []

    async def one(number: int) -> None:
        # The wall is open before it says so: without a writer, opening it would wait for ever.
        script = 'exec < "$0/wall"; echo > "$0/begun-$1"; cat'
        ended.append(await run_program(["sh", "-c", script, str(tmp_path), str(number)]))

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
            await _until(lambda: len(list(tmp_path.glob("begun-*"))) == 50)
            # None of them could end before all have begun.
            os.close(held)
    assert [each.status for each in ended] == [0] * 50


async def _until(so: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not so():  # noqa: ASYNC110 - what another process does
            await trio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
