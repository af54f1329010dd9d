"""Archives that want out of where they are unpacked, at each door that takes one."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

Entry = tuple[tarfile.TarInfo, bytes]
LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
UP = "../" * 12


def entry(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "", **more: object
) -> Entry:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, len(data), to
    for key, value in more.items():
        setattr(made, key, value)
    return made, data


def packed(*entries: Entry) -> bytes:
    """Without the blocks at its end, so that more may follow."""
    return b"".join(
        made.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
        for made, data in entries
    )


def hostile(outside: Path) -> dict[str, bytes]:
    """Each would write to, read from or fill what it must not, if anybody let it."""
    mark, folder = f"{outside}/mark", str(outside)
    return {
        "a name that climbs": packed(entry(UP + mark[1:], b"x")),
        "a name from the top": packed(entry(mark, b"x")),
        "a name that climbs, said twice": packed(
            entry("a", b"x", pax_headers={"path": UP + mark[1:]})
        ),
        "a link, then something below it": packed(entry("l", kind=LINK, to=folder), entry("l/mark", b"x")),
        "a link that climbs": packed(entry("l", kind=LINK, to=UP + folder[1:]), entry("l/mark", b"x")),
        "a link in place of a file": packed(entry("f", kind=LINK, to=mark), entry("f", b"x")),
        "a hard link to a link": packed(
            entry("l", kind=LINK, to=mark), entry("h", kind=HARD, to="l"), entry("h", b"x")
        ),
        "a hard link out": packed(entry("h", kind=HARD, to=f"{folder}/secret")),
        "a hard link that climbs": packed(entry("h", kind=HARD, to=f"{UP}{folder[1:]}/secret")),
        "a hard link through a link": packed(
            entry("l", kind=LINK, to=folder), entry("h", kind=HARD, to="l/secret")
        ),
        "links in a circle": packed(
            entry("a", kind=LINK, to="b"), entry("b", kind=LINK, to="a"), entry("a/x", b"x")
        ),
        "the root as a link": packed(entry(".", kind=LINK, to=folder), entry("./mark", b"x")),
        "a device": packed(entry("disk", kind=tarfile.BLKTYPE, devmajor=8, devminor=0)),
        "an owner of 41 bits": packed(entry("u", b"x", uid=2**40)),
        "a name without an end": packed(entry("a" * 5000, b"x")),
        "folders without an end": packed(entry("d/" * 3000 + "f", b"x")),
        "a size of 62 bits": packed(entry("x", b"x", pax_headers={"size": str(2**62)})),
        "a size below zero": packed(entry("x", b"x", pax_headers={"size": "-5"})),
        "a hole of a petabyte": packed(
            entry("x", b"x", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                                          "GNU.sparse.name": "y", "GNU.sparse.realsize": str(2**50)})
        ),
        "a header of 9 MB": packed(entry("x", b"x", pax_headers={"comment": "a" * 9_000_000})),
        "a name with a zero byte": packed(entry("x", b"x", pax_headers={"path": "a\0b"})),
        "an unknown kind": packed(entry("x", b"x", kind=b"Z")),
        "ten thousand headers": packed(entry("d/", kind=tarfile.DIRTYPE)) * 10_000,
        "a header that is none": os.urandom(2048),
        "a file that ends too early": packed(entry("x", bytes(5000)))[:1500],
    }  # fmt: skip


END = bytes(2 * tarfile.BLOCKSIZE)


def put(daemon: Daemon, tar: bytes) -> tuple[int, str]:
    return ask(daemon, "PUT", "/containers/box/archive?path=/", tar + END)


def build(daemon: Daemon, tar: bytes) -> tuple[int, str]:
    dockerfile = packed(entry("Dockerfile", b"FROM busybox\nCOPY . /context/\n"))
    return ask(daemon, "POST", "/build?t=made", dockerfile + tar + END)


def load(daemon: Daemon, tar: bytes) -> tuple[int, str]:
    layer = tar + END
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }
    manifest = [{"Config": "config", "RepoTags": ["made:latest"], "Layers": ["layer"]}]
    archive = packed(
        entry("manifest.json", json.dumps(manifest).encode()),
        entry("config", json.dumps(config).encode()),
        entry("layer", layer),
    )
    return ask(daemon, "POST", "/images/load", archive + END)


def load_itself(daemon: Daemon, tar: bytes) -> tuple[int, str]:
    return ask(daemon, "POST", "/images/load", tar + END)


def bring_in(daemon: Daemon, tar: bytes) -> tuple[int, str]:
    return ask(daemon, "POST", "/images/create?fromSrc=-&repo=made", gzip.compress(tar + END, 1))


DOORS: tuple[Callable[[Daemon, bytes], tuple[int, str]], ...] = (
    put, build, load, load_itself, bring_in
)  # fmt: skip


def ask(daemon: Daemon, method: str, target: str, body: bytes) -> tuple[int, str]:
    with daemon.connect() as connection:
        connection.request(method, target, body, {"Content-Type": "application/x-tar"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder of the machine, named in the archives."""
    folder = Path(os.environ["TMPDIR"]) / "outside"
    folder.mkdir()
    (folder / "secret").write_text("secret")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["secret"], "something got out"
    assert (folder / "secret").stat().st_nlink == 1, "something got in"
    (folder / "secret").unlink()
    folder.rmdir()


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_nothing_gets_out_of_where_it_is_unpacked(
    daemon: Daemon, outside: Path, door: Callable[[Daemon, bytes], tuple[int, str]]
) -> None:
    daemon.docker("create", "--name", "box", "busybox")
    before = daemon.images()
    for what, tar in hostile(outside).items():
        status, said = door(daemon, tar)
        refused = status >= 400 or '"error"' in said
        assert "internal error" not in said, (what, said)
        assert refused or status == 200, (what, said)
        if refused:
            assert daemon.images() == before, what
        elif door is not put:
            daemon.docker("rmi", "-f", "made")
        # What it left in a root, if anything, is in the way of nobody.
        assert ask(daemon, "GET", "/_ping", b"") == (200, "OK")
    staging = daemon.data_root / "snapshots-overlay/staging"
    until("nothing half-made is left", lambda: not any(staging.iterdir()))
    assert not daemon.complaints()


def test_a_bomb_ends_at_the_limit_and_its_files_go(daemon: Daemon) -> None:
    """A gzip of zeros, whose tar says that they are more than a layer may have."""
    made = entry("bomb")[0]
    made.size = 1 << 40
    body = io.BytesIO()
    with gzip.GzipFile(fileobj=body, mode="wb", compresslevel=9) as packer:
        packer.write(made.tobuf(tarfile.GNU_FORMAT))
        packer.write(bytes(8 << 20))
    status, said = ask(daemon, "POST", "/images/create?fromSrc=-&repo=made", body.getvalue())
    assert status >= 400 or '"error"' in said
    assert "more than" in said, said
    assert not any((daemon.data_root / "snapshots-overlay/staging").iterdir())
    assert not daemon.complaints()
