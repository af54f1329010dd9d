"""The images that recorded scripts use, in whatever daemon the environment names."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon_harness.daemon import BUSYBOX


def build_busybox() -> None:
    """Build it with the docker CLI; the classic builder knows no ``--chmod``."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy("/bin/busybox", folder)
        (Path(folder) / "Dockerfile").write_text(BUSYBOX.replace("--chmod=0755 ", ""))
        subprocess.run(
            ["docker", "build", "-q", "-t", "busybox", folder],
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            check=True,
        )


_CREATED = "2024-05-06T07:08:09.123456789Z"
_COMMAND = {"created": _CREATED, "created_by": 'CMD ["sh"]', "empty_layer": True}
_BUSYBOX: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": _CREATED,
    "author": "somebody",
    "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
    "history": [
        {"created": _CREATED, "created_by": "COPY busybox /bin/busybox", "comment": "made"},
        _COMMAND,
    ],
}
_RICH: dict[str, Any] = {
    **_BUSYBOX,
    "config": {
        "User": "1:1",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/bin", "A=1"],
        "Entrypoint": ["sleep"],
        "Cmd": ["1000"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 3_600_000_000_000},
        "Volumes": {"/v": {}},
        "WorkingDir": "/w",
        "OnBuild": ["RUN true"],
        "Labels": {"a": "1"},
        "StopSignal": "SIGINT",
        "Shell": ["sh", "-c"],
    },
    "history": [
        *_BUSYBOX["history"],
        {"created": _CREATED, "created_by": "WORKDIR /w"},
        {"created": _CREATED, "created_by": "LABEL a=1", "empty_layer": True},
    ],
}


def write_archive(path: Path) -> None:
    """Write what ``docker save`` would of ``busybox`` and ``rich``, the same on each machine."""
    base = _layer({"bin/busybox": Path("/bin/busybox").read_bytes()}, applets=True)
    above = _layer({"w/file": b"hello\n"}, applets=False)
    entries = []
    with tarfile.open(path, "w") as archive:
        for number, layer in enumerate((base, above)):
            _add(archive, f"layer{number}.tar", layer)
        for name, config, layers in (("busybox", _BUSYBOX, [base]), ("rich", _RICH, [base, above])):
            ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
            whole = {**config, "rootfs": {"type": "layers", "diff_ids": ids}}
            _add(archive, f"{name}.json", json.dumps(whole).encode())
            entries.append(
                {
                    "Config": f"{name}.json",
                    "RepoTags": [f"{name}:latest"],
                    "Layers": [f"layer{number}.tar" for number in range(len(layers))],
                }
            )
        _add(archive, "manifest.json", json.dumps(entries).encode())


def _layer(files: Mapping[str, bytes], *, applets: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name, content in files.items():
            _add(layer, name, content, mode=0o755)
        if applets:
            listed = subprocess.run(["/bin/busybox", "--list"], capture_output=True, check=True)
            for applet in listed.stdout.decode().split():
                if applet != "busybox":
                    link = tarfile.TarInfo(f"bin/{applet}")
                    link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                    layer.addfile(link)
            _add(layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
            _add(layer, "etc/group", b"root:x:0:\n")
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def load_archive(environment: Mapping[str, str]) -> None:
    """Load these images with the docker CLI."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "images.tar"
        write_archive(archive)
        subprocess.run(
            ["docker", "load", "-q", "-i", str(archive)],
            env=dict(environment),
            check=True,
            capture_output=True,
        )
