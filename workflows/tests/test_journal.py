import errno
import os

import pytest
import trio
from hypothesis import given, strategies as st

from linkspan.sdk.errors import DataLoss
from linkspan.workflows.journal import Journal, JournalFailed, decode, encode, read


def lines_of(count):
    seed, lines = 0, []
    for number in range(1, count + 1):
        line, seed = encode({"n": number, "t": "t", "kind": "k", "x": number}, seed)
        lines.append(line)
    return lines


async def test_what_was_appended_is_read_back(tmp_path):
    journal = await Journal.open(tmp_path / "j")
    found = await journal.past(journal.count)
    assert found == []
    await journal.append("run-created", {"name": "ü"})
    await journal.append("job-started", {"job": "a"})
    journal.close()
    again = await Journal.open(tmp_path / "j")
    found = await again.past(again.count)
    assert [{k: v for k, v in r.items() if k != "t"} for r in found] == [
        {"n": 1, "kind": "run-created", "name": "ü"},
        {"n": 2, "kind": "job-started", "job": "a"},
    ]
    await again.append("x", {})
    again.close()
    assert [r["n"] for r in read(tmp_path / "j")] == [1, 2, 3]


async def test_what_is_large_or_deep_or_no_text_is_read_back(tmp_path):
    deep = "bottom"
    for _ in range(400):
        deep = [deep]
    values = {"large": 10**40, "negative": -(2**63) - 1, "deep": deep, "line": "a\u2028b\x00\n"}
    journal = await Journal.open(tmp_path / "j")
    for name, value in values.items():
        await journal.append(name, {"value": value})
    await journal.append("half", {"value": "x\udc80"})
    journal.close()
    found = {record["kind"]: record["value"] for record in read(tmp_path / "j")}
    assert found == {**values, "half": "x?"}


@given(st.integers(0, 4), st.integers(1, 200))
def test_a_torn_last_line_is_dropped(whole, cut):
    lines = lines_of(whole + 1)
    torn = lines[-1][: min(cut, len(lines[-1]) - 1)]
    records, _, good = decode(b"".join(lines[:-1]) + torn, "j")
    assert [r["n"] for r in records] == list(range(1, whole + 1))
    assert good == sum(map(len, lines[:-1]))


async def test_after_a_torn_line_the_journal_goes_on(tmp_path):
    path = tmp_path / "j"
    lines = lines_of(3)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:10])
    journal = await Journal.open(path)
    found = await journal.past(journal.count)
    assert len(found) == 2
    await journal.append("more", {})
    journal.close()
    assert [r["kind"] for r in read(path)] == ["k", "k", "more"]


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_damage_in_the_middle_is_an_error(damage):
    lines = lines_of(4)
    if damage == "flip":
        lines[1] = lines[1].replace(b'"x":2', b'"x":3')
    else:
        del lines[1]
    with pytest.raises(DataLoss, match="line 2"):
        decode(b"".join(lines), "j")


async def test_records_of_many_tasks_share_syncs_and_keep_their_order(tmp_path, monkeypatch):
    syncs = 0
    real = os.fdatasync

    def count(descriptor):
        nonlocal syncs
        syncs += 1
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", count)
    journal = await Journal.open(tmp_path / "j")
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(journal.append, "x", {"i": number})
    journal.close()
    assert len(read(tmp_path / "j")) == 100
    assert syncs < 10


async def test_a_cancelled_append_is_written_all_the_same(tmp_path):
    journal = await Journal.open(tmp_path / "j")
    with trio.CancelScope() as scope:
        scope.cancel()
        await journal.append("x", {})
    journal.close()
    assert scope.cancelled_caught
    assert len(read(tmp_path / "j")) == 1


async def test_a_full_disk_is_an_error_that_leaves_no_half_record(tmp_path, monkeypatch):
    journal = await Journal.open(tmp_path / "j")
    await journal.append("x", {})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(JournalFailed, match="no room for the journal"):
        await journal.append("y", {})
    monkeypatch.undo()
    with pytest.raises(JournalFailed):
        await journal.append("z", {})
    journal.close()
    assert [r["kind"] for r in read(tmp_path / "j")] == ["x"]


def test_what_a_power_cut_left_at_the_end_is_dropped():
    lines = lines_of(3)
    records, _, good = decode(b"".join(lines[:2]) + b"\0" * 40 + b"\n" + lines[2], "j")
    assert len(records) == 2
    assert good == len(lines[0]) + len(lines[1])


async def test_records_that_announce_nothing_wait_for_no_sync(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    journal = await Journal.open(tmp_path / "j")
    await journal.append("result", {}, sync=False)
    assert synced == []
    assert [r["kind"] for r in read(tmp_path / "j")] == ["result"]
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(journal.append, "intent", {})
    journal.close()
    assert 1 <= len(synced) < 50
    assert len(read(tmp_path / "j")) == 51
