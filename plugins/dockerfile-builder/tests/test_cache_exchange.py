"""Caches that travel: inside the image itself, and as images of their own."""

import json
from pathlib import Path

import pytest

from linkspan.sdk.drivers.builder import CacheExport, CacheImport, PruneRequest
from linkspan.sdk.model.image import Credentials

STAGES = {
    "Dockerfile": "FROM scratch AS tool\nRUN write /t 1\nRUN write /t 2\n"
    "FROM scratch\nCOPY --from=tool /t /t\nRUN write /x 1\nWORKDIR /\n"
}
CACHE = "linkspan.build.cache"


async def on_another_machine(workshop):
    """Forget everything but the layers of images in the registry, which a pull would bring."""
    images = workshop.engine.images
    images.stored.clear()
    for config, chain in images.remote.values():
        images.put(config, chain)
    await workshop.driver.prune(PruneRequest())
    images.stored.clear()
    images.tags.clear()
    workshop.engine.runs.clear()


async def test_an_inline_cache_has_the_steps_of_the_image_itself(workshop):
    images = workshop.engine.images
    first, _ = await workshop.build(
        STAGES, args={"BUILDKIT_INLINE_CACHE": "1"}, tags=("reg.test/app:1",)
    )
    assert workshop.aux[-1] == {"ID": first.image_id}
    document = workshop.image(first.image_id).config.raw[CACHE]
    assert [step[3] for step in document["steps"] if "write /x" in step[3]]
    assert not [step for step in document["steps"] if "write /t" in step[3]]
    chain = images.inspect("reg.test/app:1").chain_ids
    images.remote["reg.test/app:1"] = (images.documents[first.image_id], chain)
    await on_another_machine(workshop)
    again, said = await workshop.build(
        STAGES,
        args={"BUILDKIT_INLINE_CACHE": "1"},
        cache_from=(CacheImport(reference="reg.test/app:1"),),
    )
    # The tool's steps run; what they make is the same, so that all that follows is there.
    assert [run.args[-1] for run in workshop.engine.runs] == ["write /t 1", "write /t 2"]
    assert said.count("Using cache") == 2
    assert images.documents[again.image_id] == images.documents[first.image_id]
    assert images.tags == {}, "the image was only brought for its cache"


async def test_a_base_with_a_cache_does_not_hand_it_down(workshop):
    await workshop.build(STAGES, args={"BUILDKIT_INLINE_CACHE": "1"}, tags=("base",))
    child, _ = await workshop.build({"Dockerfile": "FROM base\nRUN write /y 1\n"})
    assert CACHE not in workshop.image(child.image_id).config.raw


@pytest.mark.parametrize(("every_stage", "runs"), [(False, 2), (True, 0)])
async def test_a_registry_cache_has_the_result_or_every_stage(workshop, every_stage, runs):
    login = Credentials(username="u", password="p")
    first, _ = await workshop.build(
        STAGES,
        tags=("app",),
        credentials={"reg.test": login},
        cache_to=(CacheExport(reference="reg.test/c:main", every_stage=every_stage, push=True),),
    )
    pushed = ["reg.test/c:main", "reg.test/c:main-1"][: 1 + every_stage]
    assert workshop.engine.images.pushed == [(name, login) for name in pushed]
    assert workshop.engine.images.tags == {"app:latest": first.image_id}
    assert CACHE not in workshop.image("app").config.raw
    await on_another_machine(workshop)
    again, _ = await workshop.build(
        STAGES,
        credentials={"reg.test": login},
        cache_from=(CacheImport(reference="reg.test/c:main", fresh=True),),
    )
    assert len(workshop.engine.runs) == runs
    assert again.image_id == first.image_id
    assert {credentials for _, credentials in workshop.engine.images.pulled} == {login}


async def test_a_cache_that_stays_here_is_told_of(workshop):
    await workshop.build(STAGES, cache_to=(CacheExport(reference="kept:1", every_stage=True),))
    told = [fact["cache"] for fact in workshop.aux if "cache" in fact]
    assert told == [["docker.io/library/kept:1", "docker.io/library/kept:1-1"]]
    assert sorted(workshop.engine.images.tags) == ["kept:1", "kept:1-1"]


async def test_a_cache_that_cannot_be_had_is_a_warning(workshop):
    await workshop.build(STAGES, tags=("plain",))
    result, said = await workshop.build(
        STAGES,
        no_cache=True,
        cache_from=(
            CacheImport(reference="reg.test/none:1"),
            CacheImport(reference="plain"),
            CacheImport(reference="Not A Name"),
        ),
    )
    assert result.image_id
    assert said.count("[Warning] the cache of ") == 3
    assert "the image plain carries no build cache" in said


@pytest.mark.parametrize(
    "document",
    [
        {"version": 2, "steps": []},
        {"version": 1, "steps": "x"},
        {"version": 1, "steps": [["k", 7, "", "", ""], ["k", -2, "", "", ""], [1, 0], "x", None]},
        {"version": 1, "steps": [], "more": [1, "self:latest"]},
        [],
    ],
)
async def test_a_strange_cache_does_no_harm(workshop, document):
    raw = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
        CACHE: document,
    }
    image = workshop.engine.images.put(json.dumps(raw).encode(), ())
    workshop.engine.images.tags["self:latest"] = image.id
    before = len(await workshop.driver.cache_entries())
    await workshop.build(
        {"Dockerfile": "FROM scratch\nLABEL a=b\n"}, cache_from=(CacheImport(reference="self"),)
    )
    assert len(await workshop.driver.cache_entries()) == before


async def test_steps_are_taken_from_the_images_named_alone_if_that_is_asked(workshop):
    steps = {"Dockerfile": 'FROM scratch\nENV A=1\nRUN write /a 1\nCOPY f /f\nCMD ["x"]\n', "f": ""}
    other = {**steps, "Dockerfile": "FROM scratch\nENV A=1\nRUN write /a 1\nRUN write /b 1\n"}
    named, none = CacheImport(reference="one"), CacheImport(reference="nosuch")
    first, _ = await workshop.build(steps, tags=("one",))
    _, said = await workshop.build(steps, cache_from=(named, none), cache_from_only=True)
    assert (said.count("Using cache"), "Warning" in said) == (4, False)
    again, said = await workshop.build(other, cache_from=(named,), cache_from_only=True)
    assert said.count("Using cache") == 2
    assert again.cached_steps == 1
    workshop.engine.runs.clear()
    _, said = await workshop.build(steps, cache_from=(none,), cache_from_only=True)
    assert (said.count("Using cache"), len(workshop.engine.runs)) == (0, 1)
    assert first.image_id == workshop.engine.images.inspect("one").id


async def test_an_image_named_has_its_steps_after_they_were_run_again(workshop):
    async def write_another_each_time(run, folder, say):
        Path(folder, run.args[-1]).write_text(str(len(workshop.engine.runs)))
        return 0

    workshop.engine.runner = write_another_each_time
    steps = {"Dockerfile": "FROM scratch\nRUN a\nRUN b\n"}
    first, _ = await workshop.build(steps, tags=("one",))
    second, _ = await workshop.build(
        steps, tags=("two",), cache_from=(CacheImport(reference="nosuch"),), cache_from_only=True
    )
    assert workshop.image(first.image_id).chain_ids != workshop.image(second.image_id).chain_ids
    for name, made in (("one", first), ("two", second), ("one", first)):
        again, _ = await workshop.build(
            steps, cache_from=(CacheImport(reference=name),), cache_from_only=True
        )
        assert (again.cached_steps, again.image_id) == (2, made.image_id)


async def test_a_stage_is_copied_from_the_cache_only_if_the_images_named_have_it(workshop):
    await workshop.build(STAGES, tags=("one",))
    named, none = CacheImport(reference="one"), CacheImport(reference="nosuch")
    result, _ = await workshop.build(STAGES, cache_from=(none,), cache_from_only=True)
    assert result.cached_steps == 0
    result, said = await workshop.build(STAGES, cache_from=(named,), cache_from_only=True)
    assert "Using cache" in said
