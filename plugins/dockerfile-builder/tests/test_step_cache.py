"""Which steps run again, and which are taken from the cache."""

import pytest
import trio
from dockerfiles import dockerfile

from linkspan.plugins.dockerfile_builder.config import DockerfileBuilderConfig
from linkspan.plugins.dockerfile_builder.driver import DockerfileBuilder


async def test_what_does_not_reach_a_step_does_not_invalidate_it(workshop):
    lines = ["FROM scratch", "COPY a /a", "RUN echo 1"]
    await workshop.build(dockerfile(*lines, a="A", other="1"))
    again, said = await workshop.build(
        dockerfile(
            "# note",
            "FROM scratch AS x",
            "LABEL l=1",
            "COPY a /a",
            "CMD x",
            "RUN echo 1",
            a="A",
            other="2",
        )
    )
    assert again.cached_steps == 2
    assert said.count(" ---> Using cache\n") == 2
    assert len(workshop.engine.runs) == 1


@pytest.mark.parametrize(
    "changed",
    [
        ["FROM scratch", "COPY a /a", "ENV X=1", "RUN echo 1"],
        ["FROM scratch", "COPY a /a", "USER 5", "RUN echo 1"],
        ["FROM scratch", "COPY a /a", "WORKDIR /w", "RUN echo 1"],
        ["FROM scratch", "COPY a /a", "ARG X=1", "RUN echo 1"],
        ["FROM scratch", "COPY a /a", "RUN --network=none echo 1"],
        ["FROM scratch", "COPY a /b", "RUN echo 1"],
    ],
)
async def test_what_reaches_a_command_invalidates_it(workshop, changed):
    await workshop.build(dockerfile("FROM scratch", "COPY a /a", "RUN echo 1", a="A"))
    await workshop.build(dockerfile(*changed, a="A"))
    assert len(workshop.engine.runs) == 2


async def test_content_and_mode_invalidate_a_copy(workshop):
    lines = ["FROM scratch", "COPY a /a"]
    await workshop.build(dockerfile(*lines, a="A"))
    other, _ = await workshop.build(dockerfile(*lines, a="B"))
    moded, _ = await workshop.build(dockerfile("FROM scratch", "COPY --chmod=600 a /a", a="A"))
    assert (other.cached_steps, moded.cached_steps) == (0, 0)


async def test_a_rebuilt_stage_with_the_same_output_does_not_invalidate_its_copies(workshop):
    lines = [
        "FROM scratch AS one",
        "COPY src /src",
        "RUN write /out same",
        "FROM scratch",
        "COPY --from=one /out /out",
        "RUN echo end",
    ]
    await workshop.build(dockerfile(*lines, src="1"))
    again, _ = await workshop.build(dockerfile(*lines, src="2"))
    # Source and RUN of the first stage are new; what is copied out of it is not.
    assert again.cached_steps == 2


async def test_no_cache_runs_everything_and_remembers_it(workshop):
    lines = ["FROM scratch", "RUN echo 1"]
    await workshop.build(dockerfile(*lines))
    anew, _ = await workshop.build(dockerfile(*lines), no_cache=True)
    assert anew.cached_steps == 0
    assert len(workshop.engine.runs) == 2
    cached, _ = await workshop.build(dockerfile(*lines))
    assert cached.cached_steps == 1


async def test_the_cache_outlives_the_driver(workshop):
    first, _ = await workshop.build(dockerfile("FROM scratch", "RUN echo 1"))
    async with DockerfileBuilder.open(DockerfileBuilderConfig(), workshop.host) as driver:
        workshop.driver = driver
        again, _ = await workshop.build(dockerfile("FROM scratch", "RUN echo 1"))
        assert again == type(again)(image_id=first.image_id, steps=2, cached_steps=1)


async def test_a_step_whose_layer_is_gone_runs_again(workshop):
    await workshop.build(dockerfile("FROM scratch", "RUN echo 1"))
    (layer,) = await workshop.snapshots.layers()
    await workshop.snapshots.remove_layer(layer.name)
    again, _ = await workshop.build(dockerfile("FROM scratch", "RUN echo 1"))
    assert again.cached_steps == 0
    assert len(workshop.engine.runs) == 2


async def test_the_same_step_of_two_builds_runs_once(workshop):
    gate, results = workshop.gate(), []

    async def one():
        results.append((await workshop.build(dockerfile("FROM scratch", "RUN slow")))[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
        await gate.began.wait()
        await trio.sleep(0.1)
        gate.open.set()
    assert len(workshop.engine.runs) == 1
    assert results[0].image_id == results[1].image_id


async def test_a_waiting_build_does_the_step_when_the_first_is_cancelled(workshop):
    gate, scope = workshop.gate(), trio.CancelScope()

    async def first():
        with scope:
            await workshop.build(dockerfile("FROM scratch", "RUN slow"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await gate.began.wait()
        nursery.start_soon(workshop.build, dockerfile("FROM scratch", "RUN slow"))
        await trio.sleep(0.1)
        assert len(workshop.engine.runs) == 1
        gate.open = trio.Event()
        gate.open.set()
        scope.cancel()
    assert len(workshop.engine.runs) == 2
    assert len(workshop.engine.images.stored) == 1


async def test_gc_forgets_steps_without_a_layer(workshop):
    await workshop.build(dockerfile("FROM scratch", "RUN echo 1"))
    for layer in await workshop.snapshots.layers():
        await workshop.snapshots.remove_layer(layer.name)
    assert len(await workshop.driver.gc([])) == 1
    assert await workshop.driver.cached_layers() == []
