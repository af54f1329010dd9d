"""The kit for role ``content``. Subclass ``ContentConformance`` and set ``driver``."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from linkspan.sdk.drivers.content import BlobInfo, Content, ContentCap
from linkspan.sdk.errors import Conflict, DataLoss, InvalidArgument, NotFound, TooLarge, Unsupported
from linkspan.sdk.testing.host import FakeHost

HELLO = b"hello, blob"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class ContentConformance:
    """What every content driver must do."""

    driver: type[Content[Any]]

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    async def content(self, config: Any, fake_host: FakeHost) -> AsyncIterator[Content[Any]]:
        async with self.driver.open(config, fake_host) as content:
            await content.recover()
            yield content

    async def read(self, content: Content[Any], digest: str, offset: int = 0) -> bytes:
        async with content.open_blob(digest, offset=offset) as pieces:
            return b"".join([piece async for piece in pieces])

    async def test_what_is_put_can_be_read(self, content: Content[Any]) -> None:
        digest = await content.put(HELLO)
        assert digest == sha256(HELLO)
        assert await content.get(digest) == HELLO
        assert await content.info(digest) == BlobInfo(digest=digest, size_bytes=len(HELLO))
        assert await self.read(content, digest) == HELLO
        assert await content.put(HELLO) == digest
        assert [blob.digest for blob in await content.list()] == [digest]

    async def test_reading_begins_at_the_offset(self, content: Content[Any]) -> None:
        digest = await content.put(HELLO)
        assert await self.read(content, digest, 7) == b"blob"
        assert await self.read(content, digest, len(HELLO)) == b""
        with pytest.raises(InvalidArgument):
            await self.read(content, digest, len(HELLO) + 1)

    async def test_pieces_are_at_most_one_mebibyte(self, content: Content[Any]) -> None:
        digest = await content.put(bytes(3 << 20))
        async with content.open_blob(digest) as pieces:
            sizes = [len(piece) async for piece in pieces]
        assert max(sizes) <= 1 << 20
        assert sum(sizes) == 3 << 20

    async def test_a_missing_blob_is_not_found(self, content: Content[Any]) -> None:
        absent = sha256(b"absent")
        with pytest.raises(NotFound):
            await content.info(absent)
        with pytest.raises(NotFound):
            await content.get(absent)
        with pytest.raises(NotFound):
            await self.read(content, absent)
        await content.delete(absent)

    @pytest.mark.parametrize(
        "digest", ["", "sha256:", "sha256:ab", "md5:" + "a" * 32, "sha256:../../../../etc/passwd"]
    )
    async def test_what_is_no_digest_is_refused(self, content: Content[Any], digest: str) -> None:
        with pytest.raises(InvalidArgument):
            await content.get(digest)

    async def test_a_blob_beyond_the_limit_is_too_large(self, content: Content[Any]) -> None:
        digest = await content.put(HELLO)
        with pytest.raises(TooLarge):
            await content.get(digest, limit_bytes=len(HELLO) - 1)
        assert await content.get(digest, limit_bytes=len(HELLO)) == HELLO

    async def test_a_deleted_blob_is_gone(self, content: Content[Any]) -> None:
        digest = await content.put(HELLO)
        await content.delete(digest)
        assert await content.list() == []
        with pytest.raises(NotFound):
            await content.info(digest)

    async def test_an_ingest_becomes_a_blob_by_commit(self, content: Content[Any]) -> None:
        async with content.ingest("x") as ingest:
            await ingest.write(HELLO[:5])
            assert await content.list() == []
            await ingest.write(HELLO[5:])
            assert ingest.offset == len(HELLO)
            await ingest.commit(sha256(HELLO), size_bytes=len(HELLO))
        assert await content.get(sha256(HELLO)) == HELLO

    async def test_an_ingest_goes_on_where_it_stopped(self, content: Content[Any]) -> None:
        async with content.ingest("x") as ingest:
            await ingest.write(HELLO[:5])
        async with content.ingest("x") as ingest:
            assert ingest.offset == 5
            await ingest.write(HELLO[5:])
            await ingest.commit(sha256(HELLO))
        assert await content.get(sha256(HELLO)) == HELLO

    async def test_a_committed_ingest_starts_anew(self, content: Content[Any]) -> None:
        async with content.ingest("x") as ingest:
            await ingest.write(HELLO)
            await ingest.commit(sha256(HELLO))
            with pytest.raises(Conflict):
                await ingest.write(b"more")
        async with content.ingest("x") as ingest:
            assert ingest.offset == 0
            await ingest.write(HELLO)
            await ingest.commit(sha256(HELLO))
        assert await content.get(sha256(HELLO)) == HELLO

    async def test_restart_throws_away_what_is_here(self, content: Content[Any]) -> None:
        async with content.ingest("x") as ingest:
            await ingest.write(b"wrong")
            await ingest.restart()
            assert ingest.offset == 0
            await ingest.write(HELLO)
            await ingest.commit(sha256(HELLO))
        assert await content.get(sha256(HELLO)) == HELLO

    async def test_a_wrong_digest_is_data_loss_and_leaves_nothing(
        self, content: Content[Any]
    ) -> None:
        async with content.ingest("x") as ingest:
            await ingest.write(HELLO)
            with pytest.raises(DataLoss):
                await ingest.commit(sha256(b"other"))
        assert await content.list() == []
        async with content.ingest("x") as ingest:
            assert ingest.offset == 0

    async def test_a_wrong_size_is_data_loss(self, content: Content[Any]) -> None:
        async with content.ingest("x") as ingest:
            await ingest.write(HELLO)
            with pytest.raises(DataLoss):
                await ingest.commit(sha256(HELLO), size_bytes=3, verified=True)
        assert await content.list() == []

    async def test_sha512_blobs_are_kept_under_their_digest(self, content: Content[Any]) -> None:
        digest = "sha512:" + hashlib.sha512(HELLO).hexdigest()
        async with content.ingest("x") as ingest:
            await ingest.write(HELLO)
            await ingest.commit(digest)
        assert await content.get(digest) == HELLO

    async def test_two_ingests_of_one_ref_conflict(self, content: Content[Any]) -> None:
        async with content.ingest("x"):
            with pytest.raises(Conflict):
                async with content.ingest("x"):
                    pass
            async with content.ingest("y"):
                pass
        async with content.ingest("x"):
            pass

    async def test_many_ingests_of_one_digest_make_one_blob(self, content: Content[Any]) -> None:
        async def arrive(ref: str) -> None:
            async with content.ingest(ref) as ingest:
                await ingest.write(HELLO)
                await ingest.commit(sha256(HELLO))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(arrive, str(number))
        assert await content.list() == [BlobInfo(digest=sha256(HELLO), size_bytes=len(HELLO))]

    async def test_reading_survives_deletion(self, content: Content[Any]) -> None:
        digest = await content.put(bytes(2 << 20))
        async with content.open_blob(digest) as pieces:
            first = await anext(pieces)
            await content.delete(digest)
            rest = b"".join([piece async for piece in pieces])
        assert len(first) + len(rest) == 2 << 20

    async def test_local_paths_are_promised_or_refused(self, content: Content[Any]) -> None:
        digest = await content.put(HELLO)
        async with content.ingest("x") as ingest:
            if ContentCap.LOCAL_PATH in content.capabilities:
                assert content.path(digest).read_bytes() == HELLO
                with ingest.path.open("ab") as file:
                    file.write(b"by another")
                assert ingest.offset == 10
                await ingest.write(b" and us")
                await ingest.commit(sha256(b"by another and us"))
                assert await content.get(sha256(b"by another and us")) == b"by another and us"
            else:
                with pytest.raises(Unsupported):
                    content.path(digest)
                with pytest.raises(Unsupported):
                    _ = ingest.path

    async def test_an_ingest_tells_its_digest(self, content: Content[Any]) -> None:
        async with content.ingest("unknown") as ingest:
            await ingest.write(HELLO[:4])
            assert await ingest.digest() == sha256(HELLO[:4])
            await ingest.write(HELLO[4:])
            digest = await ingest.digest()
            await ingest.commit(digest, verified=True)
        assert digest == sha256(HELLO)
        assert await content.get(digest) == HELLO

    async def test_a_discarded_ingest_leaves_nothing(self, content: Content[Any]) -> None:
        async with content.ingest("gone") as ingest:
            await ingest.write(HELLO)
            await ingest.discard()
            with pytest.raises(Conflict):
                await ingest.write(HELLO)
        async with content.ingest("gone") as ingest:
            assert ingest.offset == 0
        assert await content.list() == []
