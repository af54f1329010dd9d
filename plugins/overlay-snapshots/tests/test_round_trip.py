"""Random changes to a root: committed, packed, applied again they give the same root. Needs root."""

import os
import random
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
from linkspan.plugins.overlay_snapshots.driver import OverlaySnapshots
from linkspan.sdk.drivers.snapshots import ApplyRequest, Layer
from linkspan.sdk.testing.host import FakeHost

pytestmark = pytest.mark.system

NAMES = ["a", "b", "c", "ä", "n" * 110, "with space", "line\nbreak"]


def change(root: Path, chance: random.Random) -> None:
    """Do one thing somewhere in the tree."""
    folders = [root, *(path for path in root.rglob("*") if _is(path, stat.S_ISDIR))]
    files = [path for path in root.rglob("*") if _is(path, stat.S_ISREG)]
    place = chance.choice(folders) / chance.choice(NAMES)
    existing = chance.choice(files) if files else None
    actions: list[Callable[[], object]] = [
        lambda: place.mkdir(mode=chance.choice([0o755, 0o700, 0o1777, 0o2775])),
        lambda: _create(place, chance.randbytes(chance.choice([0, 1, 511, 512, 513, 300_000]))),
        lambda: place.symlink_to(chance.choice(["a", "/etc", "../.."])),
        lambda: os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        lambda: os.mkfifo(place),
        lambda: _remove(place),
        lambda: _remove(chance.choice(folders[1:] or [place])),
        lambda: place.rename(chance.choice(folders) / chance.choice(NAMES)),
    ]
    if existing is not None:
        actions += [
            lambda: place.hardlink_to(existing),
            lambda: existing.unlink(),
            lambda: existing.write_text("changed"),
            lambda: existing.chmod(chance.choice([0o600, 0o4755, 0o444])),
            lambda: os.chown(existing, chance.randrange(70_000), 3_000_000),
            lambda: os.setxattr(existing, "user.x", chance.randbytes(20)),
        ]
    try:
        chance.choice(actions)()
    except OSError:
        # It is there already, or not there, or a folder moved into itself: another one then.
        return


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    return kind(path.lstat().st_mode)


def _create(path: Path, data: bytes) -> None:
    # Exclusively: a fifo would block, a device or a link must not be written through.
    with path.open("xb") as file:
        file.write(data)


def _remove(path: Path) -> None:
    if _is(path, stat.S_ISDIR):
        shutil.rmtree(path)
    else:
        path.unlink()


def described(root: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    links: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        facts: list[object] = [oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev]
        if path.is_symlink():
            facts.append(path.readlink())
        else:
            attributes = sorted(os.listxattr(path))
            facts += [(key, os.getxattr(path, key)) for key in attributes]
        if stat.S_ISREG(status.st_mode):
            facts += [path.read_bytes(), links.setdefault(status.st_ino, name)]
        facts.append(int(status.st_mtime))
        found[name] = tuple(facts)
    return found


async def pieces(path: Path) -> AsyncIterator[bytes]:
    yield path.read_bytes()


async def build(
    snapshots: OverlaySnapshots, parent: str, target: Path, chance: random.Random, changes: int
) -> Layer:
    await snapshots.prepare("a", parent)
    await snapshots.mount("a", target, volatile=True)
    try:
        for _ in range(changes):
            change(target, chance)
    finally:
        await snapshots.unmount("a")
    return await snapshots.commit("a", parent=parent)


@pytest.mark.parametrize("seed", range(8))
async def test_layers_survive_packing(fake_host: FakeHost, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as snapshots:
        made, again = "", ""
        for number in range(3):
            layer = await build(snapshots, made, tmp_path / "root", chance, 60)
            blob = tmp_path / f"blob{number}"
            digest, size = await snapshots.compress(layer.name, blob)
            request = ApplyRequest(ref="x", digest=digest, size_bytes=size, diff_id=layer.diff_id)
            await snapshots.apply(request, pieces(blob))
            name = f"again{number}"
            await snapshots.commit_applied("x", name=name, parent=again)
            made, again = layer.name, name
            async with snapshots.view(made) as one, snapshots.view(again) as two:
                assert described(two) == described(one)
            await snapshots.compress(again, tmp_path / f"packed{number}")
            assert (tmp_path / f"packed{number}").read_bytes() == blob.read_bytes()
