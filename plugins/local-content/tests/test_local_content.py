import hashlib
import os

import pytest
import trio

from linkspan.plugins.local_content.config import LocalContentConfig
from linkspan.plugins.local_content.driver import LocalContent
from linkspan.sdk.errors import DataLoss, OutOfSpace
from linkspan.sdk.testing.conformance.content import ContentConformance
from linkspan.sdk.testing.host import FakeHost


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class TestLocalContent(ContentConformance):
    driver = LocalContent


async def test_ingests_and_blobs_survive_a_restart(fake_host: FakeHost) -> None:
    async with LocalContent.open(LocalContentConfig(), fake_host) as content:
        await content.put(b"kept")
        async with content.ingest("x") as ingest:
            await ingest.write(b"half ")
    async with LocalContent.open(LocalContentConfig(), fake_host) as content:
        await content.recover()
        assert await content.get(sha256(b"kept")) == b"kept"
        async with content.ingest("x") as ingest:
            assert ingest.offset == 5
            await ingest.write(b"and half")
            await ingest.commit(sha256(b"half and half"))


async def test_bytes_of_a_former_try_are_verified_too(fake_host: FakeHost) -> None:
    async with LocalContent.open(LocalContentConfig(), fake_host) as content:
        async with content.ingest("x") as ingest:
            await ingest.write(b"rotten ")
        async with content.ingest("x") as ingest:
            await ingest.write(b"end")
            with pytest.raises(DataLoss, match="sha256"):
                await ingest.commit(sha256(b"sound   end"))


async def test_a_blob_is_synced_a_little_later(fake_host: FakeHost) -> None:
    async with LocalContent.open(LocalContentConfig(), fake_host) as content:
        digest = await content.put(b"x")
        marker = fake_host.state_dir / "unsynced" / digest.replace(":", "-")
        assert marker.exists()
        with trio.fail_after(10):
            while marker.exists():  # noqa: ASYNC110 - a file has no event
                await trio.sleep(0.05)
        assert await content.get(digest) == b"x"


async def test_blobs_torn_by_a_crash_of_the_machine_are_removed(fake_host: FakeHost) -> None:
    async with LocalContent.open(LocalContentConfig(), fake_host) as content:
        whole, torn = await content.put(b"whole"), await content.put(b"torn")
        for digest in (whole, torn):
            marker = fake_host.state_dir / "unsynced" / digest.replace(":", "-")
            marker.write_text("another boot")
        os.truncate(content.path(torn), 0)
        await content.recover()
        assert [blob.digest for blob in await content.list()] == [whole]


async def test_gc_spares_known_young_and_held_things(fake_host: FakeHost) -> None:
    config = LocalContentConfig(grace_s=100, ingest_expiry_s=100)
    async with LocalContent.open(config, fake_host) as content:
        known, old, young = [await content.put(text) for text in (b"known", b"old", b"young")]
        for digest in (known, old):
            os.utime(content.path(digest), (0, 0))
        for ref in ("stale", "held", "new"):
            async with content.ingest(ref) as ingest:
                await ingest.write(b"x")
                if ref != "new":
                    os.utime(ingest.path, (0, 0))
        async with content.ingest("held"):
            removed = await content.gc([known])
        assert len(removed) == 2
        assert old in removed
        assert {blob.digest for blob in await content.list()} == {known, young}
        for ref, offset in (("stale", 0), ("held", 1), ("new", 1)):
            async with content.ingest(ref) as ingest:
                assert ingest.offset == offset


async def test_a_cancelled_write_is_whole(fake_host: FakeHost) -> None:
    data = os.urandom(1 << 20)
    async with (
        LocalContent.open(LocalContentConfig(), fake_host) as content,
        content.ingest("x") as ingest,
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await ingest.write(data)
        assert ingest.offset in (0, len(data))


@pytest.mark.system
async def test_a_full_disk_is_out_of_space_and_nothing_half_made_is_seen(
    fake_host: FakeHost,
) -> None:
    disk = fake_host.state_dir
    await trio.run_process(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk])
    try:
        async with LocalContent.open(LocalContentConfig(), fake_host) as content:
            async with content.ingest("x") as ingest:
                await ingest.write(bytes(600_000))
                with pytest.raises(OutOfSpace, match=str(disk)):
                    await ingest.write(bytes(600_000))
                assert ingest.offset == 600_000
            with pytest.raises(OutOfSpace):
                await content.put(bytes(600_000))
            assert await content.list() == []
            assert len(list((disk / "ingest").iterdir())) == 1
    finally:
        await trio.run_process(["umount", "-l", disk])
