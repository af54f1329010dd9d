"""Images: pull, push, tag, remove, on fakes."""

import pytest
import trio

from linkspan.sdk.errors import Conflict, DataLoss, InvalidArgument, NotFound
from linkspan.sdk.image_config import digest_of
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.image import Attachment
from linkspan.sdk.progress import Progress

from .conftest import IMAGE, World, layer, serve_image


async def test_a_pulled_image_has_tag_digest_and_layers(world: World) -> None:
    image = world.engine.images.inspect(IMAGE)
    assert image.repo_tags == (IMAGE,)
    assert image.repo_digests[0].startswith("registry.test/app@sha256:")
    assert len(image.chain_ids) == 2
    assert image.config.command == ("sleep", "60")


async def test_progress_is_told_in_dockers_words(open_world) -> None:
    said: list[Progress] = []
    async with open_world() as world:
        await world.engine.images.pull(IMAGE, progress=said.append)
        words = [p.status for p in said]
        assert words[0] == "Pulling from app"
        assert words.count("Pull complete") == 2
        assert words[-1] == f"Status: Downloaded newer image for {IMAGE}"
        said.clear()
        await world.engine.images.pull(IMAGE, progress=said.append)
        assert said[-1].status == f"Status: Image is up to date for {IMAGE}"


async def test_a_wrong_blob_is_refused_and_leaves_no_image(open_world) -> None:
    async with open_world() as world:
        repository = serve_image(world.registry, [layer({"a": b"b"})], name="registry.test/bad")
        blob = next(d for d, data in repository.blobs.items() if data[:2] == b"\x1f\x8b")
        repository.blobs[blob] = repository.blobs[blob][:-9] + b"\0" * 9
        with pytest.raises(DataLoss):
            await world.engine.images.pull("registry.test/bad:1")
        assert world.engine.images.list() == []


async def test_a_manifest_with_too_few_layers_is_refused(open_world) -> None:
    async with open_world() as world:
        repository = serve_image(world.registry, [layer({"a": b"b"})], name="registry.test/few")
        kind, data = next(iter(repository.manifests.values()))
        start = data.index(b'"layers": [') + len(b'"layers": [')
        repository.put_manifest("1", kind, data[:start] + b"]}")
        with pytest.raises(InvalidArgument, match="has 0 layers, but its config names 1"):
            await world.engine.images.pull("registry.test/few:1")


async def test_two_pulls_at_once_end_with_one_image(open_world) -> None:
    async with open_world() as world:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(world.engine.images.pull, IMAGE)
        assert len(world.engine.images.list()) == 1


async def test_push_sends_the_same_manifest_bytes(world: World) -> None:
    await world.engine.images.tag(IMAGE, "registry.test/other:2")
    result = await world.engine.images.push("registry.test/other:2")
    source = world.registry.repositories["registry.test/app"]
    assert result.digest == source.tags["1"]
    target = world.registry.repositories["registry.test/other"]
    assert set(target.blobs) == set(source.blobs)
    assert result.reference in world.engine.images.inspect("registry.test/other:2").repo_digests


async def test_a_tag_moves_from_one_image_to_the_other(world: World) -> None:
    serve_image(world.registry, [layer({"n": b"2"})], tag="2")
    other = await world.engine.images.pull("registry.test/app:2")
    await world.engine.images.tag("registry.test/app:2", IMAGE)
    assert world.engine.images.inspect(IMAGE).id == other.id


async def test_removing_the_last_tag_deletes_image_layers_and_blobs(world: World) -> None:
    image = world.engine.images.inspect(IMAGE)
    removed = await world.engine.images.remove(IMAGE)
    assert any(r.untagged == IMAGE for r in removed)
    assert any(r.deleted == image.id for r in removed)
    assert world.snapshots.store.layers == {}
    assert await world.content.list() == []
    with pytest.raises(NotFound, match=r"No such image: registry\.test/app:1"):
        world.engine.images.inspect(IMAGE)


async def test_layers_that_another_image_needs_stay(world: World) -> None:
    serve_image(world.registry, [layer({"bin/app": b"program"}), layer({"etc/z": b"z"})], tag="2")
    await world.engine.images.pull("registry.test/app:2")
    await world.engine.images.remove(IMAGE)
    other = world.engine.images.inspect("registry.test/app:2")
    assert set(world.snapshots.store.layers) == set(other.chain_ids)


async def test_an_image_in_use_is_not_removed_without_force(world: World) -> None:
    made = await world.engine.containers.create(ContainerSpec(image=IMAGE))
    with pytest.raises(Conflict, match=f"container {made.short_id} is using its referenced image"):
        await world.engine.images.remove(IMAGE)


async def test_an_image_is_found_by_id_prefix_and_not_by_an_ambiguous_one(world: World) -> None:
    image = world.engine.images.inspect(IMAGE)
    bare = image.id.removeprefix("sha256:")
    assert world.engine.images.inspect(bare[:12]).id == image.id
    assert world.engine.images.inspect(image.id).id == image.id


async def test_images_are_there_again_after_a_restart(open_world) -> None:
    async with open_world() as first:
        pulled = await first.engine.images.pull(IMAGE)
    async with open_world() as second:
        assert second.said == []
        found = second.engine.images.inspect(IMAGE)
        assert found.id == pulled.id
        assert found.config == pulled.config


async def test_a_document_stays_with_its_image_until_another_takes_its_place(open_world) -> None:
    old, new, other = (
        Attachment(media_type=kind, data=data)
        for kind, data in (("a/b", b"old"), ("a/b", b"new"), ("c/d", b"other"))
    )

    async def blobs(world: World) -> set[str]:
        return {blob.digest for blob in await world.content.list()}

    async with open_world() as world:
        await world.engine.images.pull(IMAGE)
        before = await blobs(world)
        for each in (old, other, new):
            await world.engine.images.attach(IMAGE, each)
        assert digest_of(b"old") not in await blobs(world)
        with pytest.raises(NotFound):
            await world.engine.images.attach("no/such", old)
    async with open_world() as world:
        await world.engine.images.pull(IMAGE)
        await world.engine.gc()
        found = await world.engine.images.attachments(IMAGE)
        assert sorted(each.data for each in found) == [b"new", b"other"]
        assert await blobs(world) >= before
        await world.engine.images.remove(IMAGE)
        assert await blobs(world) == set()


async def test_gc_takes_what_a_failed_pull_left(open_world) -> None:
    async with open_world() as world:
        tars = [layer({"one": b"1"}), layer({"two": b"2"})]
        repository = serve_image(world.registry, tars, name="registry.test/half")
        gone = [d for d, data in repository.blobs.items() if data[:2] == b"\x1f\x8b"][1]
        del repository.blobs[gone]
        with pytest.raises(NotFound):
            await world.engine.images.pull("registry.test/half:1")
        await world.engine.gc()
        assert world.snapshots.store.layers == {}
        assert await world.content.list() == []


async def test_a_layer_that_stands_twice_in_an_image_is_pulled(open_world) -> None:
    async with open_world() as world:
        base, other = layer({"a": b"1"}), layer({"b": b"2"})
        serve_image(world.registry, [base, other, base, other, base], name="registry.test/twice")
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(world.engine.images.pull, "registry.test/twice:1")
        image = world.engine.images.inspect("registry.test/twice:1")
        assert len(image.chain_ids) == 5
        assert world.snapshots.merged(image.chain_ids[-1]).keys() == {"a", "b"}


async def test_a_pull_that_fails_leaves_no_staging_area(open_world) -> None:
    async with open_world() as world:
        repository = serve_image(
            world.registry, [layer({"a": b"1"}), layer({"b": b"2"})], name="registry.test/half"
        )
        blobs = [d for d, data in repository.blobs.items() if data[:2] == b"\x1f\x8b"]
        repository.blobs[blobs[0]] = b"\x1f\x8bbroken"
        with pytest.raises(DataLoss):
            await world.engine.images.pull("registry.test/half:1")
        assert world.snapshots._staging == {}


async def test_an_id_with_several_names_needs_force(world: World) -> None:
    image = world.engine.images.inspect(IMAGE)
    await world.engine.images.tag(IMAGE, "registry.test/app:2")
    with pytest.raises(Conflict, match="referenced in multiple repositories"):
        await world.engine.images.remove(image.id)
    await world.engine.images.remove(image.id, force=True)
    assert world.engine.images.list() == []


async def test_an_image_with_children_is_only_untagged(world: World) -> None:
    base = world.engine.images.inspect(IMAGE)
    box = await world.engine.containers.create(ContainerSpec(image=IMAGE))
    child = await world.engine.containers.commit(box.id)
    await world.engine.containers.remove(box.id)
    with pytest.raises(Conflict, match="has dependent child images"):
        await world.engine.images.remove(base.id, force=True)
    await world.engine.images.remove(IMAGE)
    assert world.engine.images.inspect(base.id).repo_tags == ()
    # The child takes it along.
    await world.engine.images.remove(child.id)
    assert world.engine.images.list() == []
    assert world.snapshots.store.layers == {}


async def test_nothing_is_left_of_a_failed_pull_and_its_second_try(open_world) -> None:
    async with open_world() as world:
        repository = serve_image(
            world.registry, [layer({"a": b"1"}), layer({"b": b"2"})], name="registry.test/half"
        )
        blobs = [d for d, data in repository.blobs.items() if data[:2] == b"\x1f\x8b"]
        good = repository.blobs[blobs[1]]
        repository.blobs[blobs[1]] = b"\x1f\x8bbroken"
        with pytest.raises(DataLoss):
            await world.engine.images.pull("registry.test/half:1")
        repository.blobs[blobs[1]] = good
        await world.engine.images.pull("registry.test/half:1")
        await world.engine.images.remove("registry.test/half:1")
        await world.engine.gc()
        assert world.content.blobs == {}
