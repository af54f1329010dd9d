"""Commands of other platforms: which this machine runs, and what is said of those it does not."""

import pytest

from linkspan.plugins.dockerfile_builder import emulation
from linkspan.plugins.dockerfile_builder.emulation import runs_here
from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.sdk.drivers.builder import BuildRequest, CacheImport
from linkspan.sdk.model.image import Platform

AARCH64 = """\
enabled
interpreter /usr/bin/qemu-aarch64-static
flags: OCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


@pytest.fixture
def binfmt(tmp_path, monkeypatch):
    monkeypatch.setattr(emulation, "host_platform", lambda: Platform(architecture="amd64"))
    folder = tmp_path / "binfmt"
    folder.mkdir()
    (folder / "status").write_text("enabled\n")
    (folder / "register").touch()
    return folder


def runs(folder, architecture, os_name="linux"):
    return runs_here(Platform(os=os_name, architecture=architecture), folder=folder)


def test_a_machine_runs_its_own_and_what_a_handler_takes(binfmt):
    assert runs(binfmt, "amd64")
    assert runs(binfmt, "386")
    assert not runs(binfmt, "arm64")
    (binfmt / "qemu-aarch64").write_text(AARCH64)
    assert runs(binfmt, "arm64")
    assert not runs(binfmt, "s390x")
    assert not runs(binfmt, "arm64", "windows")


@pytest.mark.parametrize(
    "text",
    [
        AARCH64.replace("enabled", "disabled"),
        AARCH64.replace("magic 7f", "magic zz"),
        "enabled\ninterpreter /usr/bin/jar\nflags:\nextension .jar\n",
        "",
    ],
)
def test_a_handler_that_is_off_or_for_something_else_does_not_count(binfmt, text):
    (binfmt / "other").write_text(text)
    assert not runs(binfmt, "arm64")


def test_without_handlers_nothing_foreign_runs(binfmt, tmp_path):
    (binfmt / "qemu-aarch64").write_text(AARCH64)
    (binfmt / "status").write_text("disabled\n")
    assert not runs(binfmt, "arm64")
    assert not runs(tmp_path / "none", "arm64")


FILE = """\
FROM --platform=$BUILDPLATFORM scratch AS tools
RUN compile
FROM scratch AS base
COPY . /
FROM base AS app
RUN configure
FROM base AS plain
COPY --from=tools /out /out
"""


@pytest.fixture
def preflight(workshop, tmp_path):
    """``riscv`` is an architecture of which nobody has an emulator."""

    async def ask(target="", platform="linux/riscv", **more):
        (tmp_path / "context").mkdir(exist_ok=True)
        (tmp_path / "context" / "Dockerfile").write_text(FILE)
        request = BuildRequest(
            context=tmp_path / "context", target=target, platform=platform, **more
        )
        await workshop.driver.preflight(request)
        assert workshop.engine.images.list() == []

    return ask


async def test_a_command_that_this_machine_cannot_run_is_named_before_anything_is_built(preflight):
    with pytest.raises(DockerfileError, match="no emulator for commands of linux/riscv") as caught:
        await preflight("app")
    assert caught.value.line == 6
    assert "BUILDPLATFORM" in caught.value.help
    # What others have run may be in their cache.
    await preflight("app", cache_from=(CacheImport(reference="r.example.test/app:cache"),))
    await preflight("app", platform="")


async def test_stages_of_this_machine_and_files_alone_need_no_emulator(preflight):
    await preflight("plain")
    await preflight("tools")


async def test_a_command_that_failed_for_want_of_an_emulator_says_so(workshop):
    files = {"Dockerfile": "FROM scratch\nRUN exit 8\n"}
    with pytest.raises(DockerfileError, match="no emulator for commands of linux/riscv"):
        await workshop.build(files, platform="linux/riscv")
