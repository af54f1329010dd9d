"""The images that engines are measured with, made from Debian packages and pushed to a registry.

``tiny`` is busybox in one layer. ``app`` has eight layers: a small Debian, Python and git on top of it, and six
layers of application files; some 26,000 files, 570 MB, 210 MB compressed. ``many`` is busybox under 39 layers
of a few files.
"""

import gzip
import hashlib
import http.client
import io
import json
import random
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

SUITE: Final = "bookworm"
PACKAGES: Final = "python3 python3-pip python3-venv git ca-certificates"
_APP_LAYERS: Final = 6
_SMALL_LAYERS: Final = 39
_FILES_A_LAYER: Final = 1500
_MEAN_BYTES: Final = 12000
_TIME: Final = 1_700_000_000
_DOCKER: Final = "application/vnd.docker"
_MANIFEST: Final = f"{_DOCKER}.distribution.manifest.v2+json"


def make_layers(folder: Path) -> None:
    """Make both images' layers below a folder, unless they are there; needs the Debian mirror."""
    folder.mkdir(exist_ok=True)
    tiny, app = [folder / "busybox.tar"], [folder / "base.tar", folder / "python.tar"]
    app += [folder / f"app{number}.tar" for number in range(_APP_LAYERS)]
    missing = [tar for tar in (*tiny, *app, *_many(folder)) if not _compressed(tar).exists()]
    if tiny[0] in missing:
        busybox(tiny[0])
    if {*app[:2]} & {*missing}:
        _debian(folder, *app[:2])
    for number, tar in enumerate(app[2:]):
        if tar in missing:
            _application(number, tar)
    for number, tar in enumerate(_many(folder)):
        if tar in missing:
            _small(number, tar)
    with ProcessPoolExecutor() as workers:
        for tar in workers.map(_compress, missing):
            tar.unlink()


def _many(folder: Path) -> list[Path]:
    return [folder / f"small{number}.tar" for number in range(_SMALL_LAYERS)]


def _small(number: int, tar: Path) -> None:
    chance = random.Random(2000 + number)
    with tarfile.open(tar, "w") as archive:
        _add(archive, f"opt/small{number}", kind=tarfile.DIRTYPE, mode=0o755)
        for item in range(5):
            _add(archive, f"opt/small{number}/file{item}", chance.randbytes(2000))


def push(folder: Path, registry: str) -> dict[str, str]:
    """Put both images into a registry; return their references by name."""
    tiny, app = [folder / "busybox.tar"], [folder / "base.tar", folder / "python.tar"]
    app += [folder / f"app{number}.tar" for number in range(_APP_LAYERS)]
    _push(registry, "bench/tiny", tiny, ["sh"])
    _push(registry, "bench/app", app, ["python3"])
    _push(registry, "bench/many", [*tiny, *_many(folder)], ["sh"])
    return {name: f"{registry}/bench/{name}:1" for name in ("tiny", "app", "many")}


# -- layers -----------------------------------------------------------------------------------


def busybox(tar: Path) -> None:
    """Write the root of ``tiny``."""
    busybox = Path("/bin/busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    with tarfile.open(tar, "w") as archive:
        for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "www"):
            _add(archive, name, kind=tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
        _add(archive, "bin/busybox", busybox.read_bytes(), mode=0o755)
        for applet in listed.stdout.split():
            if applet != "busybox":
                _add(archive, f"bin/{applet}", kind=tarfile.SYMTYPE, target="busybox")
        _add(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        _add(archive, "etc/group", b"root:x:0:\n")
        _add(archive, "www/index.html", b"ok\n")


def _debian(folder: Path, base: Path, python: Path) -> None:
    root = folder / "root"
    if not (root / "etc/debian_version").exists():
        subprocess.run(
            ["debootstrap", "--variant=minbase", SUITE, str(root)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    _tar_tree(root, base)
    upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
    for path in (upper, work, merged):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    options = f"lowerdir={root},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    try:
        shutil.copy("/etc/resolv.conf", merged / "etc/resolv.conf")
        script = (
            "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "
            f"--no-install-recommends {PACKAGES} && "
            "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb"
        )
        subprocess.run(
            ["chroot", str(merged), "/bin/sh", "-c", script],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    finally:
        subprocess.run(["umount", str(merged)], check=True)
    _tar_tree(upper, python)
    for path in (root, upper, work):
        shutil.rmtree(path)


def _tar_tree(root: Path, tar: Path) -> None:
    """Pack a folder; what overlayfs marks as removed becomes an OCI whiteout."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(root):
            name = path.relative_to(root)
            status = path.lstat()
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                _add(archive, str(name.with_name(f".wh.{name.name}")))
            elif not stat.S_ISSOCK(status.st_mode):
                archive.add(path, str(name), recursive=False)


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _application(number: int, tar: Path) -> None:
    """Files of mixed sizes: mostly text, one in eight not to be compressed; the same every time."""
    chance = random.Random(1000 + number)
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 10))) for _ in range(6000)]
    weights = [1 / (place + 1) for place in range(6000)]
    text = " ".join(chance.choices(words, weights=weights, k=900_000)).encode()
    with tarfile.open(tar, "w") as archive:
        known: set[str] = set()
        for item in range(_FILES_A_LAYER):
            folder = f"srv/app{number}/pkg{item % 37}/mod{item % 11}"
            parts = folder.split("/")
            for depth in range(1, len(parts) + 1):
                parent = "/".join(parts[:depth])
                if parent not in known:
                    known.add(parent)
                    _add(archive, parent, kind=tarfile.DIRTYPE, mode=0o755)
            size = max(40, min(1 << 20, int(chance.lognormvariate(0, 1.2) * _MEAN_BYTES / 2)))
            if item % 8 == 0:
                _add(archive, f"{folder}/file{item}.bin", chance.randbytes(size))
            else:
                begin = chance.randrange(len(text) - size)
                _add(archive, f"{folder}/file{item}.txt", text[begin : begin + size])


def _add(
    archive: tarfile.TarFile,
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    target: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime, entry.size = kind, mode, _TIME, len(data)
    entry.linkname = target
    archive.addfile(entry, io.BytesIO(data))


def _compressed(tar: Path) -> Path:
    return tar.with_suffix(".tar.gz")


def _compress(tar: Path) -> Path:
    """Compress a layer as registries hold them, and note its digest without compression."""
    digest = hashlib.sha256()
    part = tar.with_suffix(".part")
    with tar.open("rb") as source, gzip.open(part, "wb", compresslevel=6) as target:
        while piece := source.read(1 << 20):
            digest.update(piece)
            target.write(piece)
    tar.with_suffix(".diffid").write_text(f"sha256:{digest.hexdigest()}")
    part.rename(_compressed(tar))
    return tar


# -- the registry -----------------------------------------------------------------------------


def _push(registry: str, repository: str, tars: list[Path], command: list[str]) -> None:
    connection = http.client.HTTPConnection(registry, timeout=60)

    def call(method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, str]:
        headers = {"Content-Type": kind} if kind else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("Location", "")

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        status, _ = call("HEAD", f"/v2/{repository}/blobs/{digest}")
        if status != 200:
            _, place = call("POST", f"/v2/{repository}/blobs/uploads/")
            place = "/" + place.split("/", 3)[3]
            status, _ = call("PUT", f"{place}&digest={digest}", data, "application/octet-stream")
            assert status == 201, f"PUT of a blob: {status}"
        return {"mediaType": kind, "size": len(data), "digest": digest}

    gzipped = f"{_DOCKER}.image.rootfs.diff.tar.gzip"
    layers = [blob(_compressed(tar).read_bytes(), gzipped) for tar in tars]
    created = "2023-11-14T22:13:20Z"
    config = {
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [tar.with_suffix(".diffid").read_text() for tar in tars],
        },
        "history": [{"created": created, "created_by": tar.stem} for tar in tars],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": blob(json.dumps(config).encode(), f"{_DOCKER}.container.image.v1+json"),
        "layers": layers,
    }
    path = f"/v2/{repository}/manifests/1"
    status, _ = call("PUT", path, json.dumps(manifest).encode(), _MANIFEST)
    assert status == 201, f"PUT of a manifest: {status}"
    connection.close()
