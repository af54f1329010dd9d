"""Our registry server with clients of others, and on a disk that fills up."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from linkspan.plugins.distribution_registry.config import DistributionConfig
from linkspan.plugins.distribution_registry.driver import DistributionRegistry
from linkspan.plugins.registry_server.component import serve_registry
from linkspan.plugins.registry_server.config import RegistryServerConfig
from linkspan.sdk.errors import OutOfSpace
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import parse_reference
from linkspan.sdk.testing.conformance.registry import HttpRemote, describe, sha256, source_of
from linkspan.sdk.testing.host import FakeHost

pytestmark = pytest.mark.system

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=tmp_path / "server", nursery=nursery)
        config = RegistryServerConfig(listen="127.0.0.1:0")
        yield await nursery.start(serve_registry, config, host)
        nursery.cancel_scope.cancel()


def write_image(layout: Path) -> None:
    """An OCI layout with one image of two layers, tagged ``1``."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digits = hashlib.sha256(data).hexdigest()
        (blobs / digits).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digits}", "size": len(data)}

    # Two empty tar archives of different length: a client that copies does not look inside.
    layers = [bytes(1024), bytes(3 << 20)]
    rootfs = {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [
            put(gzip.compress(layer, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
            for layer in layers
        ],
    }
    entry = put(json.dumps(manifest).encode(), OCI_MANIFEST)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


async def skopeo(*arguments: str) -> str:
    if shutil.which("skopeo") is None:
        pytest.skip("Debian's package skopeo is not installed")
    done = await trio.run_process(
        ["skopeo", *arguments], capture_stdout=True, capture_stderr=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def contents(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


async def test_skopeo_copies_to_and_from_it(address: str, tmp_path: Path) -> None:
    write_image(tmp_path / "one")
    image = f"docker://{address}/team/app:1"
    await skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/one:1", image)
    await skopeo("copy", "--src-tls-verify=false", image, f"oci:{tmp_path}/two:1")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    listed = json.loads(
        await skopeo("list-tags", "--tls-verify=false", f"docker://{address}/team/app")
    )
    assert listed["Tags"] == ["1"]


async def test_skopeo_mounts_converts_and_deletes(address: str, tmp_path: Path) -> None:
    write_image(tmp_path / "one")
    image, other = f"docker://{address}/team/app:1", f"docker://{address}/team/other:docker"
    await skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/one:1", image)
    both = ("--src-tls-verify=false", "--dest-tls-verify=false")
    await skopeo("copy", "--format=v2s2", *both, image, other)
    raw = json.loads(await skopeo("inspect", "--raw", "--tls-verify=false", other))
    assert raw["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    await skopeo("delete", "--tls-verify=false", image)
    listed = json.loads(
        await skopeo("list-tags", "--tls-verify=false", f"docker://{address}/team/app")
    )
    assert listed["Tags"] == []


async def test_skopeo_syncs_all_tags_of_a_repository_out_and_back(
    address: str, tmp_path: Path
) -> None:
    write_image(tmp_path / "one")
    for tag in ("1", "2"):
        image = f"docker://{address}/team/app:{tag}"
        await skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/one:1", image)
    out = ("sync", "--src-tls-verify=false", "--src=docker", "--dest=dir")
    await skopeo(*out, f"{address}/team/app", str(tmp_path / "synced"))
    back = ("sync", "--dest-tls-verify=false", "--src=dir", "--dest=docker")
    await skopeo(*back, str(tmp_path / "synced"), f"{address}/again")
    tags = await skopeo("list-tags", "--tls-verify=false", f"docker://{address}/again/app")
    assert json.loads(tags)["Tags"] == ["1", "2"]
    both = ("--src-tls-verify=false", "--dest-tls-verify=false")
    there = f"docker://{address}/again/app:2"
    await skopeo("copy", "--preserve-digests", *both, there, f"docker://{address}/third:2")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_disk_reaches_the_pusher_and_leaves_nothing(
    small_disk: Path, fake_host: FakeHost, tmp_path: Path
) -> None:
    host = FakeHost(root=small_disk, nursery=fake_host.nursery)
    config = RegistryServerConfig(listen="127.0.0.1:0")
    address = await fake_host.nursery.start(serve_registry, config, host)
    reference, anonymous = parse_reference(f"{address}/app:1"), Credentials()
    large, small = os.urandom(6 << 20), os.urandom(1 << 20)
    client = DistributionConfig(docker_config=tmp_path / "none.json", retry_delay_s=0.01)
    async with DistributionRegistry.open(client, fake_host) as registry:
        with pytest.raises(OutOfSpace) as caught:
            await registry.push_blob(reference, describe(large), source_of(large), anonymous)
        assert caught.value.code == "registry_full"
        assert "no space left on device" in caught.value.message
        assert await HttpRemote(address).blob("app", sha256(large)) is None
        uploads = small_disk / "state" / "registry" / "uploads"
        assert list(uploads.iterdir()) == []
        outcome = await registry.push_blob(reference, describe(small), source_of(small), anonymous)
        assert outcome == "pushed"
