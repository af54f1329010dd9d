"""The contract of role ``volume``, sentence by sentence.

Subclass ``VolumeConformance``, set ``driver``, and override the fixture ``config`` where the driver needs
more, and ``options`` with a valid set of options of the driver (or none)::

    class TestLocal(VolumeConformance):
        driver = LocalVolumes
"""

import os
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from linkspan.sdk.drivers.volume import VolumeCap, VolumeDriver
from linkspan.sdk.errors import Conflict, InvalidArgument, NotFound, Unsupported
from linkspan.sdk.model.volume import VolumeSpec
from linkspan.sdk.testing.host import FakeHost


class VolumeConformance:
    """See the module."""

    driver: ClassVar[type[VolumeDriver[Any]]]

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    def options(self) -> Mapping[str, str]:
        return {}

    @pytest.fixture
    async def volumes(self, config: Any, fake_host: FakeHost) -> AsyncIterator[VolumeDriver[Any]]:
        async with self.driver.open(config, fake_host) as driver:
            await driver.recover()
            yield driver

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        """A container's root with something at /var/lib/app, and links that try to leave it."""
        root = tmp_path / "image"
        app = root / "var/lib/app"
        (app / "sub").mkdir(parents=True)
        (app / "file").write_text("content")
        (app / "file").chmod(0o640)
        (app / "sub/deep").write_text("deep")
        (app / "link").symlink_to("/etc/passwd")
        os.utime(app / "file", ns=(10**18, 10**18))
        app.chmod(0o750)
        (root / "data").symlink_to("/var/lib/app")
        (root / "out").symlink_to("../../../../../../../../etc")
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("secret")
        (root / "absolute").symlink_to(outside)
        return root

    async def test_a_volume_is_made_found_and_listed(self, volumes: VolumeDriver[Any]) -> None:
        made = await volumes.create(VolumeSpec(name="data", labels={"tier": "db"}))
        assert made.name == "data"
        assert made.labels == {"tier": "db"}
        assert not made.anonymous
        assert made.created_at.endswith("Z")
        assert await volumes.get("data") == made
        await volumes.create(VolumeSpec(name="a.b-c_1"), anonymous=True)
        found = {volume.name: volume for volume in await volumes.list()}
        assert set(found) == {"data", "a.b-c_1"}
        assert found["a.b-c_1"].anonymous

    async def test_the_same_name_is_the_same_volume(self, volumes: VolumeDriver[Any]) -> None:
        made = await volumes.create(VolumeSpec(name="data"))
        (await volumes.mount("data", "c1") / "file").write_text("kept")
        assert await volumes.create(VolumeSpec(name="data")) == made
        assert (await volumes.mount("data", "c1") / "file").read_text() == "kept"

    async def test_other_options_are_a_conflict(
        self, volumes: VolumeDriver[Any], options: Mapping[str, str]
    ) -> None:
        if not options:
            pytest.skip("this driver has no options")
        await volumes.create(VolumeSpec(name="plain"))
        with pytest.raises(Conflict):
            await volumes.create(VolumeSpec(name="plain", options=options))
        made = await volumes.create(VolumeSpec(name="special", options=options))
        assert made.options == options
        assert await volumes.create(VolumeSpec(name="special", options=options)) == made

    async def test_an_unknown_option_is_named_and_nothing_is_left(
        self, volumes: VolumeDriver[Any]
    ) -> None:
        with pytest.raises(InvalidArgument, match="no-such-option"):
            await volumes.create(VolumeSpec(name="data", options={"no-such-option": "1"}))
        with pytest.raises(NotFound):
            await volumes.get("data")
        assert await volumes.list() == []

    async def test_an_unknown_name_is_not_found(
        self, volumes: VolumeDriver[Any], image: Path
    ) -> None:
        for call in (
            volumes.get("none"),
            volumes.remove("none"),
            volumes.mount("none", "c1"),
            volumes.populate("none", image, "/var/lib/app"),
            volumes.usage("none"),
        ):
            with pytest.raises(NotFound):
                await call
        await volumes.unmount("none", "c1")

    async def test_content_is_shared_and_outlives_containers(
        self, volumes: VolumeDriver[Any]
    ) -> None:
        await volumes.create(VolumeSpec(name="data"))
        first = await volumes.mount("data", "c1")
        assert first == await volumes.mount("data", "c1")
        (first / "file").write_text("shared")
        assert (await volumes.mount("data", "c2") / "file").read_text() == "shared"
        await volumes.unmount("data", "c1")
        await volumes.unmount("data", "c2")
        await volumes.unmount("data", "c2")
        assert (await volumes.mount("data", "c3") / "file").read_text() == "shared"

    async def test_a_mounted_volume_is_not_removed(self, volumes: VolumeDriver[Any]) -> None:
        await volumes.create(VolumeSpec(name="data"))
        await volumes.mount("data", "c1")
        await volumes.mount("data", "c2")
        await volumes.unmount("data", "c1")
        with pytest.raises(Conflict):
            await volumes.remove("data")
        await volumes.unmount("data", "c2")
        await volumes.remove("data")
        with pytest.raises(NotFound):
            await volumes.get("data")
        await volumes.create(VolumeSpec(name="data"))
        assert list((await volumes.mount("data", "c1")).iterdir()) == []

    async def test_volumes_and_their_users_survive_a_restart(
        self, volumes: VolumeDriver[Any], config: Any, fake_host: FakeHost
    ) -> None:
        made = await volumes.create(VolumeSpec(name="data", labels={"a": "b"}))
        (await volumes.mount("data", "c1") / "file").write_text("kept")
        async with self.driver.open(config, fake_host) as second:
            await second.recover()
            assert await second.get("data") == made
            with pytest.raises(Conflict):
                await second.remove("data")
            await second.unmount("data", "c1")
            assert (await second.mount("data", "c2") / "file").read_text() == "kept"

    async def test_an_empty_volume_takes_over_the_images_content(
        self, volumes: VolumeDriver[Any], image: Path
    ) -> None:
        await volumes.create(VolumeSpec(name="data"))
        folder = await volumes.mount("data", "c1")
        assert await volumes.populate("data", image, "/var/lib/app")
        assert (folder / "file").read_text() == "content"
        info = (folder / "file").stat()
        assert stat.S_IMODE(info.st_mode) == 0o640
        assert info.st_mtime_ns == 10**18
        assert (folder / "sub/deep").read_text() == "deep"
        assert (folder / "link").readlink() == Path("/etc/passwd")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750

    async def test_a_volume_with_content_keeps_it(
        self, volumes: VolumeDriver[Any], image: Path
    ) -> None:
        await volumes.create(VolumeSpec(name="data"))
        folder = await volumes.mount("data", "c1")
        (folder / "mine").write_text("mine")
        assert not await volumes.populate("data", image, "/var/lib/app")
        assert [path.name for path in folder.iterdir()] == ["mine"]

    async def test_links_are_followed_inside_the_root_only(
        self, volumes: VolumeDriver[Any], image: Path
    ) -> None:
        for path, expected in (
            ("/data", {"file", "sub", "link"}),
            ("/var/lib/../lib/app", {"file", "sub", "link"}),
            ("/out", set()),
            ("/absolute", set()),
            ("/no/such/path", set()),
            ("/var/lib/app/file", set()),
        ):
            name = f"v{abs(hash(path))}"
            await volumes.create(VolumeSpec(name=name))
            assert await volumes.populate(name, image, path) == bool(expected)
            folder = await volumes.mount(name, "c1")
            assert {entry.name for entry in folder.iterdir()} == expected

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
    async def test_a_part_is_within_the_volume(self, volumes: VolumeDriver[Any]) -> None:
        made = await volumes.create(VolumeSpec(name="data"))
        folder = Path(made.mountpoint)
        (folder / "in").mkdir()
        (folder / "in/file").write_text("x")
        (folder / "out").symlink_to("..")
        await volumes.mount("data", "c1")
        try:
            part = await volumes.mount_part("data", "c1", "in")
        except Unsupported:
            pytest.skip("the driver cannot mount parts")
        assert (part / "file").read_text() == "x"
        with pytest.raises(InvalidArgument):
            await volumes.mount_part("data", "c1", "out/x")
        with pytest.raises(NotFound):
            await volumes.mount_part("data", "c1", "missing")
        await volumes.unmount("data", "c1")
        await volumes.remove("data")

    async def test_usage_does_what_the_capability_says(self, volumes: VolumeDriver[Any]) -> None:
        await volumes.create(VolumeSpec(name="data"))
        folder = await volumes.mount("data", "c1")
        assert VolumeCap.USAGE in volumes.capabilities
        assert (await volumes.usage("data")).size_bytes == 0
        (folder / "sub").mkdir()
        (folder / "sub/file").write_bytes(b"x" * 1000)
        assert (await volumes.usage("data")).size_bytes == 1000
