"""The kit for role ``builder``. Subclass ``BuilderConformance`` and set ``driver``.

The kit lends the driver an image store in memory. A driver that needs more of the host (snapshots, an
engine that runs commands) overrides the fixture ``builder_host``.
"""

import io
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from linkspan.sdk.drivers.builder import (
    Builder,
    BuilderCap,
    BuildRequest,
    BuildResult,
    CacheImport,
    PruneRequest,
)
from linkspan.sdk.errors import InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.host import NewImage
from linkspan.sdk.image_config import digest_of, parse_image_config
from linkspan.sdk.model.image import Image
from linkspan.sdk.progress import Progress
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.host import FakeHost


@attrs.define
class BuiltImages:
    """The part of ``host.Images`` that builders use, in memory.

    Attributes:
        stored: Id → image.
        names: Familiar reference → id.
    """

    stored: dict[str, Image] = attrs.field(factory=dict)
    names: dict[str, str] = attrs.field(factory=dict)

    async def add(self, new: NewImage, *, tags: Sequence[str] = ()) -> Image:
        """Store and name an image."""
        await trio.lowlevel.checkpoint()
        image = Image(
            id=digest_of(new.config),
            config=parse_image_config(new.config),
            chain_ids=new.chain_ids,
        )
        self.stored[image.id] = image
        for tag in tags:
            self.names[parse_reference(tag).with_default_tag().familiar] = image.id
        return image

    def inspect(self, ref: str) -> Image:
        """By id or reference."""
        if ref in self.stored:
            return self.stored[ref]
        try:
            return self.stored[self.names[parse_reference(ref).with_default_tag().familiar]]
        except KeyError:
            raise NotFound(f"No such image: {ref}") from None

    def list(self) -> Sequence[Image]:
        """All."""
        return list(self.stored.values())


@attrs.define
class BuildEngine:
    """An engine that has images and nothing else."""

    images: BuiltImages = attrs.field(factory=BuiltImages)


def tar_of(files: Mapping[str, str]) -> bytes:
    """A build context."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(data), 1000):
        await trio.lowlevel.checkpoint()
        yield data[at : at + 1000]


class BuilderConformance:
    """What every builder must do.

    Attributes:
        good: A build file with two stages, ``one`` and the last, that needs the file ``hello``.
        broken: A build file with a fault in its second line.
        failing: A build file whose command ends with status 3; None if the driver runs none.
    """

    driver: type[Builder[Any]]
    good = (
        "FROM scratch AS one\nLABEL stage=one\nFROM scratch\nCOPY hello /hello\nLABEL stage=two\n"
    )
    broken = "FROM scratch\nCOPPY hello /hello\n"
    failing: str | None = "FROM scratch\nRUN exit 3\n"

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    def builder_host(self, fake_host: FakeHost) -> FakeHost:
        """The host that the driver gets; its engine must have ``images``."""
        fake_host.fake_engine = BuildEngine()  # type: ignore[assignment]
        return fake_host

    @pytest.fixture
    async def builder(self, config: Any, builder_host: FakeHost) -> AsyncIterator[Builder[Any]]:
        async with self.driver.open(config, builder_host) as builder:
            await builder.recover()
            yield builder

    async def build(
        self, builder: Builder[Any], text: str, *, hello: str = "hello", **request: Any
    ) -> tuple[BuildResult, str]:
        """Build from a tar; return the result and the text of the stream."""
        said: list[Progress] = []
        data = tar_of({"Dockerfile": text, "hello": hello})
        async with aclosing(_pieces(data)) as context:
            result = await builder.build(BuildRequest(context=context, **request), said.append)
        return result, "".join(progress.stream for progress in said)

    async def test_the_image_is_stored_and_tagged(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        result, said = await self.build(builder, self.good, tags=("app", "reg.test/app:2"))
        images = builder_host.engine.images
        assert images.inspect("app:latest").id == result.image_id
        assert images.inspect("reg.test/app:2").id == result.image_id
        assert result.steps > 0
        assert f"Successfully built {result.image_id[7:19]}\n" in said
        assert "Successfully tagged app:latest\n" in said
        assert "Successfully tagged reg.test/app:2\n" in said

    async def test_a_result_is_delivered_in_place_of_an_image(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        found: dict[str, str] = {}

        async def deliver(root: Path) -> None:
            for path in await trio.to_thread.run_sync(lambda: list(root.iterdir())):
                found[path.name] = await trio.Path(path).read_text()

        text = "FROM scratch\nCOPY hello hi\n"
        result, _ = await self.build(builder, text, deliver=deliver)
        assert found == {"hi": "hello"}
        assert result.image_id == ""
        assert builder_host.engine.images.list() == []

    async def test_the_last_stage_is_the_result(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        result, _ = await self.build(builder, self.good)
        image = builder_host.engine.images.inspect(result.image_id)
        assert image.config.labels["stage"] == "two"

    async def test_labels_of_the_request_win(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        result, _ = await self.build(builder, self.good, labels={"stage": "mine", "x": "y"})
        labels = builder_host.engine.images.inspect(result.image_id).config.labels
        assert (labels["stage"], labels["x"]) == ("mine", "y")

    async def test_the_same_again_is_the_same_image_out_of_the_cache(
        self, builder: Builder[Any]
    ) -> None:
        first, _ = await self.build(builder, self.good)
        again, _ = await self.build(builder, self.good)
        assert again.image_id == first.image_id
        if BuilderCap.CACHE in builder.capabilities:
            assert first.cached_steps == 0
            assert again.cached_steps > 0
            anew, _ = await self.build(builder, self.good, no_cache=True)
            assert anew.cached_steps == 0

    async def test_steps_come_from_the_images_named_alone_if_that_is_asked(
        self, builder: Builder[Any]
    ) -> None:
        if BuilderCap.CACHE not in builder.capabilities:
            pytest.skip("no capability CACHE")
        await self.build(builder, self.good, tags=("kit-cache:1",))
        for name, is_cached in (("kit-cache:none", False), ("kit-cache:1", True)):
            again, _ = await self.build(
                builder, self.good, cache_from=(CacheImport(reference=name),), cache_from_only=True
            )
            assert (again.cached_steps > 0) is is_cached

    async def test_other_content_is_another_image(self, builder: Builder[Any]) -> None:
        first, _ = await self.build(builder, self.good)
        other, _ = await self.build(builder, self.good, hello="other")
        assert other.image_id != first.image_id

    async def test_a_folder_is_a_context_and_is_not_changed(
        self, builder: Builder[Any], tmp_path: Path
    ) -> None:
        folder = tmp_path / "context"
        folder.mkdir()
        (folder / "Dockerfile").write_text(self.good)
        (folder / "hello").write_text("hello")
        result = await builder.build(BuildRequest(context=folder), lambda _: None)
        assert result.image_id
        assert {path.name for path in folder.iterdir()} == {"Dockerfile", "hello"}

    async def test_a_fault_names_file_and_line_and_leaves_nothing(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        with pytest.raises(InvalidArgument, match=r"Dockerfile:2: ") as caught:
            await self.build(builder, self.broken, tags=("app",))
        assert caught.value.code == "dockerfile"
        assert builder_host.engine.images.list() == []

    async def test_a_check_complains_about_a_line_and_builds_nothing(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        if BuilderCap.CHECK not in builder.capabilities:
            pytest.skip("the builder has no checks")
        text = self.good.replace("LABEL stage=two", "label stage=two")
        for file, complaints in ((self.good, 0), (text, 1)):
            data = tar_of({"Dockerfile": file, "hello": "hello"})
            async with aclosing(_pieces(data)) as context:
                found = await builder.check(BuildRequest(context=context))
            assert len(found) == complaints
        assert found[0].severity == "warning"
        assert found[0].primary is not None
        assert found[0].primary.span.line == 5
        assert builder_host.engine.images.list() == []

    async def test_a_missing_build_file_is_named(self, builder: Builder[Any]) -> None:
        with pytest.raises(InvalidArgument, match=r"app\.build"):
            await self.build(builder, self.good, file="app.build")

    async def test_a_bad_tag_is_refused(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        with pytest.raises(InvalidArgument):
            await self.build(builder, self.good, tags=("Not A Tag",))
        assert builder_host.engine.images.list() == []

    async def test_a_failing_command_tells_its_status(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        if self.failing is None:
            pytest.skip("the driver runs no commands")
        with pytest.raises(LinkspanError, match="returned a non-zero code: 3") as caught:
            await self.build(builder, self.failing, tags=("app",))
        assert caught.value.code == "build_failed"
        assert caught.value.details["exit_code"] == 3
        assert builder_host.engine.images.list() == []

    async def test_quiet_says_the_id_alone(self, builder: Builder[Any]) -> None:
        result, said = await self.build(builder, self.good, quiet=True)
        assert said == f"{result.image_id}\n"

    async def test_a_target_ends_the_build_there(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        if BuilderCap.TARGET not in builder.capabilities:
            pytest.skip("the driver has no TARGET")
        result, _ = await self.build(builder, self.good, target="one")
        image = builder_host.engine.images.inspect(result.image_id)
        assert image.config.labels["stage"] == "one"
        with pytest.raises(InvalidArgument, match="nowhere"):
            await self.build(builder, self.good, target="nowhere")

    async def test_pruning_empties_the_cache(self, builder: Builder[Any]) -> None:
        await self.build(builder, self.good)
        entries = await builder.cache_entries()
        if BuilderCap.CACHE in builder.capabilities:
            assert entries
        pruned = await builder.prune(PruneRequest())
        assert set(pruned.removed) == {entry.id for entry in entries}
        assert pruned.freed_bytes >= 0
        assert await builder.cache_entries() == []
        assert await builder.cached_layers() == []
        again, _ = await self.build(builder, self.good)
        assert again.cached_steps == 0

    async def test_pruning_takes_what_is_wanted_and_stops_at_its_limit(
        self, builder: Builder[Any]
    ) -> None:
        await self.build(builder, self.good)
        await self.build(builder, self.good, hello="other")
        entries = await builder.cache_entries()
        assert (await builder.prune(PruneRequest(wants=lambda _: False))).removed == ()
        assert (await builder.prune(PruneRequest(keep_bytes=1 << 40))).removed == ()
        assert (await builder.prune(PruneRequest(max_used_bytes=1 << 40))).removed == ()
        assert await builder.cache_entries() == entries
        if entries:
            chosen = entries[-1].id
            some = await builder.prune(PruneRequest(wants=lambda entry: entry.id == chosen))
            assert some.removed == (chosen,)
            assert chosen not in {entry.id for entry in await builder.cache_entries()}

    async def test_a_cancelled_build_leaves_no_image(
        self, builder: Builder[Any], builder_host: FakeHost
    ) -> None:
        async def endless() -> AsyncGenerator[bytes, None]:
            yield tar_of({"Dockerfile": self.good})[:512]
            await trio.sleep_forever()

        with trio.move_on_after(0.1) as scope:
            async with aclosing(endless()) as context:
                await builder.build(BuildRequest(context=context, tags=("app",)), lambda _: None)
        assert scope.cancelled_caught
        assert builder_host.engine.images.list() == []

    async def test_single_instructions_change_a_config(self, builder: Builder[Any]) -> None:
        before = {"Labels": {"a": "1"}, "User": "x"}
        after = builder.change_config(before, ["LABEL b=2"])
        assert after == {"Labels": {"a": "1", "b": "2"}, "User": "x"}
        with pytest.raises(InvalidArgument, match="is not a valid change command"):
            builder.change_config(before, ["RUN true"])
