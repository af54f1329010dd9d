"""An archive that a real dockerd wrote is loaded as it was, and saved as that daemon saved it.

It lies in ``archives/``; its README says how it was recorded.
"""

import gzip
import json
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard
from daemon_harness import archives
from daemon_harness.daemon import Daemon

pytestmark = pytest.mark.system

HERE = Path(__file__).parent / "archives"
PACKED = HERE / "docker.tar.gz"


def _without(names: set[str], path: Path, to: Path) -> Path:
    """A copy of an archive that lacks some files."""
    with tarfile.open(path) as old, tarfile.open(to, "w") as new:
        for member in old:
            if member.name not in names:
                new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return to


def test_dockers_archive_is_loaded_and_saved_again(daemon: Daemon, tmp_path: Path) -> None:
    recorded = json.loads((HERE / "docker.json").read_text())
    said = daemon.docker("load", "-i", PACKED).out
    assert sorted(said.split("\n")) == sorted(
        ["", *(f"Loaded image: {name}" for name in archives.IMAGES)]
    )
    assert archives.told(daemon.environment) == recorded
    daemon.docker("save", "-o", tmp_path / "again.tar", "ship", "boat:1")
    assert archives.facts_of(tmp_path / "again.tar") == archives.facts_of(PACKED)
    daemon.docker("rmi", *archives.IMAGES)
    assert not daemon.images() & set(archives.IMAGES)
    daemon.docker("load", "-i", tmp_path / "again.tar")
    assert archives.told(daemon.environment) == recorded
    daemon.docker("rmi", *archives.IMAGES)


def test_archives_of_each_kind_and_packing_hold_the_same(daemon: Daemon, tmp_path: Path) -> None:
    recorded = json.loads((HERE / "docker.json").read_text())
    plain = tmp_path / "plain.tar"
    plain.write_bytes(gzip.decompress(PACKED.read_bytes()))
    old = _without({"index.json", "oci-layout"}, plain, tmp_path / "old.tar")
    oci = _without({"manifest.json", "repositories"}, plain, tmp_path / "oci.tar")
    squeezed = tmp_path / "plain.tar.xz"
    squeezed.write_bytes(lzma.compress(plain.read_bytes()))
    other = tmp_path / "plain.tar.zst"
    other.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
    for archive in (old, oci, squeezed, other):
        daemon.docker("load", "-q", "-i", archive)
        assert archives.told(daemon.environment) == recorded, archive
        daemon.docker("rmi", *archives.IMAGES)


def test_only_the_platform_that_is_asked_for_is_loaded_and_saved(
    daemon: Daemon, tmp_path: Path
) -> None:
    recorded = json.loads((HERE / "docker.json").read_text())
    refused = daemon.docker("load", "--platform", "linux/s390x", "-i", PACKED, status=1)
    assert "is for linux/amd64, not for linux/s390x" in refused.err
    assert not daemon.images() & set(archives.IMAGES)
    daemon.docker("load", "-q", "--platform", "linux/amd64", "-i", PACKED)
    assert archives.told(daemon.environment) == recorded
    to = tmp_path / "saved.tar"
    daemon.docker("save", "--platform", "linux/amd64", "-o", to, "ship", "boat:1")
    assert archives.facts_of(to) == archives.facts_of(PACKED)
    none = daemon.docker("save", "--platform", "linux/s390x", "-o", to, "ship", status=1)
    assert "no suitable export target found for platform linux/s390x" in none.err
    daemon.docker("rmi", *archives.IMAGES)
