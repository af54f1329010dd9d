"""What the cache shows of itself, and what pruning takes of it."""

from dockerfiles import dockerfile

from linkspan.plugins.dockerfile_builder.config import DockerfileBuilderConfig
from linkspan.plugins.dockerfile_builder.driver import DockerfileBuilder
from linkspan.sdk.drivers.builder import PruneRequest


async def test_prune_keeps_layers_of_images(workshop):
    await workshop.build(
        dockerfile("FROM scratch AS one", "RUN write /x 1", "FROM scratch", "COPY --from=one /x /y")
    )
    assert len(await workshop.snapshots.layers()) == 2
    pruned = await workshop.driver.prune(PruneRequest())
    assert pruned.freed_bytes > 0
    (left,) = await workshop.snapshots.layers()
    assert left.name in workshop.engine.images.list()[0].chain_ids
    assert await workshop.driver.cached_layers() == []


async def test_the_cache_shows_what_it_holds_and_how_often_it_helped(workshop):
    text = dockerfile(
        "FROM scratch AS one",
        "RUN write /x 1",
        "RUN write /y 2",
        "FROM scratch",
        "COPY --from=one /x /y",
        "RUN --mount=type=cache,target=/c,id=mine echo x",
    )
    await workshop.build(text)
    await workshop.build(text)
    entries = {entry.description: entry for entry in await workshop.driver.cache_entries()}
    assert set(entries) == {
        "RUN /bin/sh -c write /x 1",
        "RUN /bin/sh -c write /y 2",
        "COPY --from=one /x /y",
        "RUN /bin/sh -c echo x",
        "cache mount mine",
    }
    below, above = entries["RUN /bin/sh -c write /x 1"], entries["RUN /bin/sh -c write /y 2"]
    assert above.parent == below.id
    assert (below.shared, entries["COPY --from=one /x /y"].shared) == (False, True)
    assert below.uses == 1
    assert entries["cache mount mine"].kind == "exec.cachemount"


async def test_pruning_takes_the_longest_unused_and_never_what_others_stand_on(workshop):
    for name in ("old", "new"):
        await workshop.build(
            dockerfile("FROM scratch AS one", f"RUN write /{name} 1", f"RUN write /{name} 2")
        )
    images = workshop.engine.images
    images.stored.clear()
    entries = await workshop.driver.cache_entries()
    sizes = {entry.id: entry.size_bytes for entry in entries}
    half = sum(sizes.values()) // 2
    pruned = await workshop.driver.prune(PruneRequest(max_used_bytes=half))
    assert pruned.removed
    gone = [entry.description for entry in entries if entry.id in pruned.removed]
    assert all("/old" in step for step in gone)
    base = next(e for e in entries if e.description.endswith("write /new 1"))
    stuck = await workshop.driver.prune(PruneRequest(wants=lambda entry: entry.id == base.id))
    assert stuck.removed == ()


async def test_the_cache_keeps_to_its_limit_by_itself(fake_host, workshop):
    config = DockerfileBuilderConfig(max_cache_bytes=1)
    async with DockerfileBuilder.open(config, fake_host) as driver:
        small = type(workshop)(driver, workshop.engine, workshop.snapshots, fake_host)
        await small.build(dockerfile("FROM scratch AS a", "RUN write /x 1", "FROM scratch"))
        await small.build(
            dockerfile("FROM scratch AS a", "RUN write /x 1", "FROM scratch", "COPY --from=a / /")
        )
        assert [e.shared for e in await driver.cache_entries()] == [True]
