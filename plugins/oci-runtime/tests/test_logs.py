import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from linkspan.plugins.oci_runtime.logs import Log, read_log, time_text
from linkspan.plugins.oci_runtime.rotation import older
from linkspan.sdk.model.process import LogQuery, LogRecord, StreamKind

OUT, ERR = StreamKind.STDOUT, StreamKind.STDERR


def line(second: int, text: str, stream: str = "stdout", flag: str = "F") -> str:
    return f"2026-11-24T08:00:{second:02d}.{second:09d}+00:00 {stream} {flag} {text}\n"


def at(second: int) -> int:
    return 1795507200 * 10**9 + second * 10**9 + second


MIXED = (
    line(1, "one")
    + line(2, "err", "stderr")
    + line(3, "par", flag="P")
    + line(4, "tial")
    + line(5, "last")
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text(MIXED)
    return path


def read(path: Path, **query: object) -> list[LogRecord]:
    file = Log(path, LogQuery(**query))  # type: ignore[arg-type]
    found: list[LogRecord] = []
    while (batch := file.read()) is not None:
        found += batch
    file.close()
    return found


def texts(path: Path, **query: object) -> list[bytes]:
    return [record.data for record in read(path, **query)]


def test_times_of_the_log_are_utc_with_nanoseconds() -> None:
    assert time_text(at(3)) == b"2026-11-24T08:00:03.000000003"


def test_each_line_is_a_record_and_partial_ones_have_no_newline(log: Path) -> None:
    assert [(r.stream, r.data) for r in read(log)] == [
        (OUT, b"one\n"),
        (ERR, b"err\n"),
        (OUT, b"par"),
        (OUT, b"tial\n"),
        (OUT, b"last\n"),
    ]
    assert read(log)[0].time == "2026-11-24T08:00:01.000000001Z"


def test_streams_and_times_narrow_the_log(log: Path) -> None:
    assert texts(log, stdout=False) == [b"err\n"]
    assert texts(log, stderr=False) == [b"one\n", b"par", b"tial\n", b"last\n"]
    assert texts(log, stdout=False, stderr=False) == []
    assert texts(log, since_ns=at(4)) == [b"tial\n", b"last\n"]
    assert texts(log, until_ns=at(2)) == [b"one\n", b"err\n"]
    assert texts(log, since_ns=at(2), until_ns=at(2)) == [b"err\n"]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (0, []),
        (1, [b"last\n"]),
        (2, [b"par", b"tial\n", b"last\n"]),
        (3, [b"err\n", b"par", b"tial\n", b"last\n"]),
        (4, [b"one\n", b"err\n", b"par", b"tial\n", b"last\n"]),
        (100, [b"one\n", b"err\n", b"par", b"tial\n", b"last\n"]),
    ],
)
def test_the_tail_counts_whole_lines(log: Path, tail: int, expected: list[bytes]) -> None:
    assert texts(log, tail=tail) == expected


def test_the_tail_counts_lines_of_the_asked_streams(log: Path) -> None:
    assert texts(log, tail=1, stdout=False) == [b"err\n"]
    assert texts(log, tail=2, stderr=False) == [b"par", b"tial\n", b"last\n"]
    assert texts(log, tail=1, until_ns=at(2)) == [b"err\n"]


def test_an_unfinished_line_at_the_end_counts_as_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line(1, "one") + line(2, "two") + line(3, "unfin", flag="P"))
    assert texts(path, tail=1) == [b"unfin"]
    assert texts(path, tail=2) == [b"two\n", b"unfin"]


def test_the_tail_of_a_long_log_is_found_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(line(n % 60, f"{n:06d}" + "x" * 50) for n in range(20_000)))
    assert [data[:6] for data in texts(path, tail=3)] == [b"019997", b"019998", b"019999"]
    assert len(texts(path, tail=15_000)) == 15_000
    assert len(texts(path)) == 20_000


def test_lines_longer_than_a_block_do_not_confuse_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line(1, "a") + line(2, "b" * 200_000) + line(3, "c"))
    assert [len(data) for data in texts(path, tail=2)] == [200_001, 2]


@pytest.mark.parametrize("query", [{}, {"stderr": False}, {"since_ns": at(2)}, {"tail": 2}])
def test_merged_records_carry_the_same_bytes(log: Path, query: dict[str, object]) -> None:
    merged = read(log, merge=True, **query)
    plain = read(log, **query)
    for stream in (OUT, ERR):
        assert b"".join(r.data for r in merged if r.stream is stream) == b"".join(
            r.data for r in plain if r.stream is stream
        )
    assert len(merged) < len(plain) or len(plain) == 1
    assert merged[0].time == plain[0].time


def run(second: int, stream: str = "stdout", *, lines: int = 200, partial: str = "") -> str:
    """What conmon makes of one read: many lines of the same time, the last of them perhaps unfinished."""
    whole = "".join(line(second, f"number {n} of a run", stream) for n in range(lines))
    return whole + (line(second, partial, stream, "P") if partial else "")


@pytest.mark.parametrize(
    "text",
    [
        run(1),
        run(1, partial="half a") + run(2) + run(3, "stderr", partial="x") + run(4),
        run(1) + line(2, "alone") + line(2, "", "stderr") + run(2, lines=1000) + line(3, ""),
        run(2) + run(1) + run(2),
        "".join(line(2, "between") + run(1, lines=300) for _ in range(30)),
        run(1) + "garbage\n" + run(1) + "\n" + run(1),
        run(1) + line(1, "of another stream", "stdxxx") + run(1),
        run(1) + line(1, "a text with 2026-11-24T08:00:01.000000001+00:00 stdout F in it") + run(1),
        run(1) + "".join(line(5, "long" * 2000, flag="P") for _ in range(9)) + line(5, "end"),
        line(1, "x", "stdxxx") * 50,
        run(1) + line(1, "cut")[:-9],
    ],
)
def test_runs_of_lines_with_one_time_are_merged_to_the_byte(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    merged, plain = read(path, merge=True), read(path)
    for stream in (OUT, ERR):
        assert b"".join(r.data for r in merged if r.stream is stream) == b"".join(
            r.data for r in plain if r.stream is stream
        )
    changes = [r.stream for n, r in enumerate(plain) if n == 0 or plain[n - 1].stream != r.stream]
    assert [r.stream for r in merged] == changes
    assert [r.time for r in merged[:1]] == [r.time for r in plain[:1]]


def test_broken_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        line(1, "good") + "garbage\n\n" + line(2, "x", stream="stdxxx") + line(3, "cut")[:-4]
    )
    assert texts(path) == [b"good\n"]
    assert texts(path, merge=True) == [b"good\n"]
    assert texts(path, tail=5) == [b"good\n"]


class Follower:
    """Follows a log in the background."""

    def __init__(self) -> None:
        self.found: list[bytes] = []
        self.ended = trio.Event()
        self.changed = trio.Event()

    async def run(self, path: Path, query: LogQuery) -> None:
        async for record in read_log(
            path, query, ended=self.ended.is_set, wait_end=self.ended.wait
        ):
            self.found.append(record.data)
            self.changed.set()
            self.changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(5):
            while not condition():
                await self.changed.wait()


async def test_following_sees_what_is_written_until_the_end(log: Path) -> None:
    follower = Follower()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run, log, LogQuery(follow=True, tail=1))
        await follower.until(lambda: len(follower.found) == 1)
        with log.open("a") as file:
            file.write(line(6, "six")[:20])
            file.flush()
            await trio.sleep(0.02)
            file.write(line(6, "six")[20:])
        await follower.until(lambda: len(follower.found) == 2)
        with log.open("a") as file:
            file.write(line(7, "seven"))
        follower.ended.set()
    assert follower.found == [b"last\n", b"six\n", b"seven\n"]


async def test_following_goes_on_with_the_new_file_after_a_rotation(log: Path) -> None:
    follower = Follower()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run, log, LogQuery(follow=True, tail=0))
        await trio.sleep(0.05)
        with log.open("a") as file:
            file.write(line(6, "before"))
        fresh = log.with_suffix(".tmp")
        fresh.write_text(line(7, "after"))
        fresh.replace(log)
        await follower.until(lambda: len(follower.found) == 2)
        follower.ended.set()
    assert follower.found == [b"before\n", b"after\n"]


async def test_following_ends_at_until(log: Path) -> None:
    follower = Follower()
    with trio.fail_after(5):
        await follower.run(log, LogQuery(follow=True, until_ns=time.time_ns() + 50_000_000))
    assert follower.found[-1] == b"last\n"


async def test_a_missing_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await Follower().run(tmp_path / "none", LogQuery())


def rotate_by_hand(log: Path, *, keep: int = 9) -> None:
    """What ``rotation.rotate`` does, before conmon has opened the new file."""
    older(log, keep).unlink(missing_ok=True)
    for number in range(keep - 1, -1, -1):
        if older(log, number).exists():
            older(log, number).rename(older(log, number + 1))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    for second in range(1, 4):
        rotate_by_hand(path)
        path.write_text(line(second * 2, f"{second}a") + line(second * 2 + 1, f"{second}b"))
    return path


ALL = [b"1a\n", b"1b\n", b"2a\n", b"2b\n", b"3a\n", b"3b\n"]


def test_several_files_are_read_as_one_log(three: Path) -> None:
    assert texts(three) == ALL
    assert texts(three, merge=True) == [b"".join(ALL[at : at + 2]) for at in (0, 2, 4)]
    assert texts(three, since_ns=at(5)) == ALL[3:]
    for tail in range(8):
        assert texts(three, tail=tail) == ALL[6 - min(tail, 6) :]


def test_between_two_files_there_may_be_no_newest_one(three: Path) -> None:
    rotate_by_hand(three)
    assert texts(three) == ALL
    assert texts(three, tail=3) == ALL[3:]


@pytest.mark.parametrize("missing", [1, 2])
def test_a_file_that_is_missing_between_others_hides_none(three: Path, missing: int) -> None:
    """A rotation is under way, or was cut off: each file is renamed on its own."""
    for number in range(2, missing - 1, -1):
        older(three, number).rename(older(three, number + 1))
    assert texts(three) == ALL
    assert texts(three, tail=5) == ALL[1:]


def test_a_file_that_is_renamed_while_it_is_read_is_read_once(three: Path) -> None:
    log = Log(three, LogQuery())
    found = list(log.read() or ())
    rotate_by_hand(three)
    with older(three, 1).open("a") as file:
        file.write(line(8, "late"))
    three.write_text(line(9, "new"))
    while (batch := log.read()) is not None:
        found += batch
    rotate_by_hand(three)
    rotate_by_hand(three)
    assert log.read() is None
    three.write_text(line(10, "newer"))
    while (batch := log.read()) is not None:
        found += batch
    log.close()
    assert [record.data for record in found] == [*ALL, b"late\n", b"new\n", b"newer\n"]


def test_a_reader_whose_file_is_gone_goes_on_with_the_oldest_that_is_there(three: Path) -> None:
    log = Log(three, LogQuery(tail=0))
    assert log.read() is None
    older(three, 2).unlink()
    for second in (10, 12):
        rotate_by_hand(three, keep=1)
        three.write_text(line(second, str(second)))
    assert [record.data for _ in range(2) for record in log.read() or ()] == [b"10\n", b"12\n"]
    log.close()
