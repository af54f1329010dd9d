"""Whole builds on the overlay driver, with commands that really run."""

from pathlib import Path

import pytest

from linkspan.sdk.drivers.builder import PruneRequest

pytestmark = pytest.mark.system

BUSYBOX = Path("/bin/busybox")


@pytest.fixture
def busybox():
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    return BUSYBOX.read_bytes()


def context(busybox, *lines, **files):
    return {
        "Dockerfile": "\n".join(
            [
                "FROM scratch AS base",
                "COPY --chmod=755 busybox /bin/busybox",
                'RUN ["/bin/busybox", "--install", "-s", "/bin"]',
                *lines,
            ]
        ),
        "busybox": busybox,
        **files,
    }


async def test_what_commands_change_is_in_the_layers(overlay_workshop, busybox):
    files = context(
        busybox,
        "RUN mkdir /work && echo one > /work/file && echo gone > /work/gone",
        "RUN rm /work/gone && echo two >> /work/file && ln -s file /work/link",
        "FROM scratch",
        "COPY --from=base /work /result/",
    )
    await overlay_workshop.build(files, tags=("app",))
    async with overlay_workshop.tree("app") as root:
        found = sorted(path.name for path in Path(root, "result").iterdir())
        assert found == ["file", "link"]
        assert Path(root, "result/file").read_text() == "one\ntwo\n"
        assert Path(root, "result/link").readlink() == Path("file")


async def test_the_same_again_makes_the_same_image_without_a_layer(overlay_workshop, busybox):
    files = context(busybox, "WORKDIR /w", "COPY a .", "RUN cat /w/a", 'CMD ["cat", "a"]', a="A")
    first, said = await overlay_workshop.build(files)
    assert "A" in said
    layers = await overlay_workshop.snapshots.layers()
    again, said = await overlay_workshop.build(files)
    assert again.image_id == first.image_id
    assert again.cached_steps == 5
    assert said.count("Using cache") == 6  # CMD says so, too, but has no layer to be kept
    assert await overlay_workshop.snapshots.layers() == layers


async def test_a_failed_command_leaves_its_output_and_nothing_else(overlay_workshop, busybox):
    with pytest.raises(Exception, match="returned a non-zero code: 4"):
        await overlay_workshop.build(context(busybox, "RUN echo almost; exit 4"), tags=("app",))
    assert "almost\n" in overlay_workshop.said
    assert overlay_workshop.engine.images.stored == {}


async def test_links_of_an_image_do_not_lead_out_of_it(overlay_workshop, busybox, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    files = context(
        busybox,
        f"RUN ln -s {outside} /out && ln -s ../../../../../../{outside} /up",
        "COPY a /out/one",
        "COPY a /up/two",
        "WORKDIR /out/three",
        a="A",
    )
    await overlay_workshop.build(files, tags=("app",))
    assert list(outside.iterdir()) == []
    async with overlay_workshop.tree("app") as root:
        inside = Path(f"{root}{outside}")
        assert sorted(path.name for path in inside.iterdir()) == ["one", "three", "two"]


async def test_prune_frees_what_no_image_needs(overlay_workshop, busybox):
    await overlay_workshop.build(
        context(busybox, "RUN echo x > /x", "FROM scratch", "COPY --from=base /x /y"), tags=("app",)
    )
    assert (await overlay_workshop.driver.prune(PruneRequest())).freed_bytes > 1000
    (left,) = await overlay_workshop.snapshots.layers()
    assert overlay_workshop.image("app").chain_ids == (left.name,)
