import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from linkspan.core.store.records import Records, open_records
from linkspan.core.store.reserve import SIZE_BYTES
from linkspan.sdk.errors import DataLoss, Internal, OutOfSpace


@attrs.frozen
class Thing:
    name: str
    count: int = 0


async def test_records_survive_a_restart_in_the_order_of_their_first_writing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "l.db"
    async with open_records(path) as records:
        await records.put("thing", "b", Thing("b"))
        await records.put("thing", "a", Thing("a"))
        await records.put("other", "a", Thing("x"))
        await records.delete("thing", "never was")
    async with open_records(path) as records:
        assert await records.load("thing", Thing) == {"b": Thing("b"), "a": Thing("a")}
        await records.delete("thing", "b")
        assert list(await records.load("thing", Thing)) == ["a"]


async def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(DataLoss, match=str(path)):
        async with open_records(path):
            pass


async def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    database = sqlite3.connect(path)
    database.execute("pragma user_version = 99")
    database.close()
    with pytest.raises(Internal, match="newer"):
        async with open_records(path):
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


async def put_until_full(records: Records) -> int:
    for number in range(20000):
        try:
            await records.put("thing", f"n{number}", Thing("y" * 1000))
        except OutOfSpace:
            return number
    return 20000


@pytest.mark.system
async def test_on_a_full_disk_nothing_new_is_recorded_but_the_old_is_changed_and_removed(
    small_disk: Path,
) -> None:
    path = small_disk / "l.db"
    async with open_records(path) as records:
        for number in range(200):
            await records.put("thing", f"t{number}", Thing("x" * 1000))
        ballast = fill(small_disk)
        recorded = await put_until_full(records)
        assert recorded < 20000
        for count in range(3):
            for number in range(200):
                await records.put("thing", f"t{number}", Thing("z" * 1000, count))
        for number in range(100):
            await records.delete("thing", f"t{number}")
        kept = await records.load("thing", Thing)
    async with open_records(path) as records:
        assert await records.load("thing", Thing) == kept
        assert kept["t199"] == Thing("z" * 1000, 2)
        assert "t0" not in kept
        ballast.unlink()
        await records.delete("thing", "t100")
        await records.put("thing", "new", Thing("new"))
        assert (small_disk / "l.reserve").stat().st_blocks * 512 == SIZE_BYTES
