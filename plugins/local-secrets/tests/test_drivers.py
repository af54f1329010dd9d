"""The kit on both drivers, and what is the file's own."""

import errno
import os
import stat

import pytest

from linkspan.plugins.local_secrets.environment import Environment
from linkspan.plugins.local_secrets.sealed_file import SealedFile, SealedFileConfig
from linkspan.sdk.errors import DataLoss, OutOfSpace
from linkspan.sdk.testing.conformance.secrets import SecretsConformance


class TestSealedFile(SecretsConformance):
    driver = SealedFile


class TestEnvironment(SecretsConformance):
    driver = Environment

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch):
        self.monkeypatch = monkeypatch

    async def keep(self, store, key, value):
        self.monkeypatch.setenv(f"LINKSPAN_SECRET_{key}", value)


@pytest.fixture
async def store(fake_host):
    async with SealedFile.open(SealedFileConfig(), fake_host) as made:
        yield made


async def test_the_disk_has_no_value_in_the_clear_and_is_for_root_alone(store, fake_host):
    await store.put("A", "hunter2hunter2")
    files = [path for path in fake_host.state_dir.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"key", "secrets.sealed"}
    for path in files:
        assert b"hunter2" not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_key_may_lie_elsewhere(fake_host, tmp_path):
    config = SealedFileConfig(key_file=str(tmp_path / "elsewhere"))
    async with SealedFile.open(config, fake_host) as made:
        await made.put("A", "one")
        assert await made.get("A") == "one"
    assert len((tmp_path / "elsewhere").read_bytes()) == 32
    assert not (fake_host.state_dir / "key").exists()


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "other-key", "no-key"])
async def test_what_was_tampered_with_is_not_opened(store, fake_host, change):
    await store.put("A", "one")
    sealed, key = fake_host.state_dir / "secrets.sealed", fake_host.state_dir / "key"
    data = sealed.read_bytes()
    match change:
        case "flip":
            sealed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "cut":
            sealed.write_bytes(data[:20])
        case "empty":
            sealed.write_bytes(b"")
        case "other-key":
            key.write_bytes(os.urandom(32))
        case "no-key":
            key.unlink()
    before = sealed.read_bytes()
    with pytest.raises(DataLoss, match="key"):
        await store.get("A")
    with pytest.raises(DataLoss):
        await store.put("B", "two")
    assert sealed.read_bytes() == before


async def test_a_full_disk_keeps_the_old_value(store, monkeypatch):
    await store.put("A", "one")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutOfSpace):
            await store.put("A", "two")
    assert await store.get("A") == "one"
