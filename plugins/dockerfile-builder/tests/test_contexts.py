"""Where the files of a build come from."""
# ruff: noqa: PTH118, PTH208

import gzip
import os
from pathlib import Path

import pytest
import trio
import trio.testing
from dockerfiles import dockerfile

from linkspan.plugins.dockerfile_builder.config import DockerfileBuilderConfig
from linkspan.plugins.dockerfile_builder.driver import DockerfileBuilder
from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.sdk.errors import (
    InvalidArgument,
    LinkspanError,
    TooLarge,
)
from linkspan.sdk.testing.lending import lent

# Contexts


async def test_a_large_context_is_refused(workshop):
    config = DockerfileBuilderConfig(max_context_bytes=20_000, max_context_entries=10)
    async with DockerfileBuilder.open(config, workshop.host) as driver:
        workshop.driver = driver
        with pytest.raises(TooLarge):
            await workshop.build(dockerfile("FROM scratch", big="x" * 30_000))
        with pytest.raises(TooLarge, match="too many entries"):
            await workshop.build(dockerfile("FROM scratch", **{str(n): "" for n in range(12)}))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
async def test_a_context_that_is_lent_is_read_like_any_other(workshop, pack):
    data = workshop.tar(dockerfile("FROM scratch", "COPY . /all/", a="A" * 300_000, b="B"))
    # What follows the end of a tar belongs to the stream.
    async with lent(pack(data) + bytes(20_000 if pack is bytes else 0)) as source:
        result, _ = await workshop.build(source)
    assert source.reports[0]["framing"]["done"]
    root = workshop.root(result.image_id)
    assert sorted(os.listdir(f"{root}/all")) == ["Dockerfile", "a", "b"]
    assert (Path(root) / "all/a").stat().st_size == 300_000


async def test_a_lent_context_is_given_back_whatever_becomes_of_it(workshop):
    data = workshop.tar(dockerfile("FROM scratch", a="A" * 10_000))
    async with lent(data, missing=1) as source:
        with pytest.raises(ConnectionError, match="gone"):
            await workshop.build(source)
    async with lent(b"no tar" * 1000) as source:
        with pytest.raises(LinkspanError):
            await workshop.build(source)
    assert not source.reports[0]["fault"]
    async with lent(data, missing=1, stays=True) as source, trio.open_nursery() as nursery:
        nursery.start_soon(workshop.build, source)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert len(source.reports) == 1


async def test_the_ignored_dockerfile_of_a_sent_context_is_not_copied(workshop):
    files = dockerfile("FROM scratch", "COPY . /all/", a="A")
    files[".dockerignore"] = "Dockerfile\n.dockerignore\n"
    result, _ = await workshop.build(files)
    assert os.listdir(workshop.root(result.image_id) + "/all") == ["a"]


async def test_a_folder_is_filtered_by_its_dockerignore(workshop, tmp_path):
    folder = tmp_path / "context"
    (folder / "keep" / "deep").mkdir(parents=True)
    (folder / "drop").mkdir()
    for name in ("keep/deep/x.txt", "keep/deep/y.log", "drop/z", "drop/but-this", "top.log"):
        (folder / name).write_text(name)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (folder / ".dockerignore").write_text(
        "**/*.log\ndrop\n!drop/but-this\nDockerfile\n.dockerignore\n"
    )
    result, _ = await workshop.build(folder)
    root = workshop.root(result.image_id)
    found = sorted(
        os.path.relpath(os.path.join(where, name), root)
        for where, _, names in os.walk(root)
        for name in names
    )
    assert found == ["drop/but-this", "keep/deep/x.txt"]


async def test_an_ignore_file_beside_the_dockerfile_wins(workshop, tmp_path):
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "a").write_text("")
    (folder / "b").write_text("")
    (folder / "app.Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (folder / "app.Dockerfile.dockerignore").write_text("a\napp*\n.dockerignore\n")
    (folder / ".dockerignore").write_text("b\n")
    result, _ = await workshop.build(folder, file="app.Dockerfile")
    assert os.listdir(workshop.root(result.image_id)) == ["b"]


async def test_a_context_that_is_no_folder_is_named(workshop, tmp_path):
    with pytest.raises(InvalidArgument, match="no directory"):
        await workshop.build(tmp_path / "nothing")


async def test_a_bad_ignore_file_is_named(workshop, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / ".dockerignore").write_text("[\n")
    with pytest.raises(DockerfileError, match=r"\.dockerignore: syntax error in pattern"):
        await workshop.build(tmp_path)


async def test_what_a_crash_left_is_removed(workshop):
    await workshop.snapshots.prepare("build-x", "")
    for left in (workshop.host.state_dir / "in-work", workshop.host.run_dir / "mnt" / "build-x"):
        left.mkdir(parents=True)
    (workshop.host.state_dir / "in-work" / "build-x").touch()
    await workshop.driver.recover()
    assert workshop.snapshots.open_keys == {}
    assert list((workshop.host.state_dir / "in-work").iterdir()) == []
    assert list((workshop.host.run_dir / "mnt").iterdir()) == []


async def test_nothing_is_noted_as_left_when_a_build_has_ended(workshop):
    await workshop.build(dockerfile("FROM scratch", "RUN echo 1"))
    with pytest.raises(LinkspanError):
        await workshop.build(dockerfile("FROM scratch", "RUN exit 1"))
    assert list((workshop.host.state_dir / "in-work").iterdir()) == []


# Named contexts


async def test_a_named_folder_is_a_source(workshop, tmp_path):
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "a").write_text("A")
    (lib / "left").write_text("L")
    (lib / ".dockerignore").write_text("left\n")
    text = dockerfile(
        "FROM scratch", "COPY --from=Lib . /d/", "RUN --mount=from=lib,target=/m echo x"
    )
    _, _ = await workshop.build(text, contexts={"lib": lib}, tags=("app",))
    assert sorted(os.listdir(workshop.root("app") + "/d")) == [".dockerignore", "a"]
    again, _ = await workshop.build(text, contexts={"lib": lib})
    assert again.cached_steps == 2


async def test_a_named_context_wins_over_stage_and_image(workshop):
    await workshop.build(dockerfile("FROM scratch", "LABEL is=other"), tags=("other",))
    text = dockerfile("FROM scratch AS base", "LABEL is=stage", "FROM base", "LABEL x=y")
    result, said = await workshop.build(text, contexts={"base": "other"})
    assert workshop.image(result.image_id).config.labels["is"] == "other"
    assert "is=stage" not in said


async def test_a_folder_is_no_base_image(workshop, tmp_path):
    error = await workshop.fails("FROM lib", contexts={"lib": tmp_path})
    assert "cannot be a base image" in str(error)
    error = await workshop.fails(
        "FROM scratch", error=InvalidArgument, contexts={"lib": tmp_path / "no"}
    )
    assert error.code == "context_missing"


async def test_only_named_stages_are_run_anew(workshop):
    text = dockerfile(
        "FROM scratch AS one", "RUN echo 1", "FROM scratch", "RUN echo 2", "COPY --from=one / /"
    )
    await workshop.build(text)
    runs = len(workshop.engine.runs)
    result, _ = await workshop.build(text, no_cache_stages=("One",))
    assert [run.args[-1] for run in workshop.engine.runs[runs:]] == ["echo 1"]
    assert result.cached_steps == 2
