"""What an archive of images holds, and what a daemon says of its images."""

import gzip
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

IMAGES: Final = ("ship:latest", "ship:1", "boat:1")
"""Those of the recorded archive."""

_TOLD: Final = (
    *("Id", "RepoTags", "Created", "Author", "Config", "Architecture", "Os", "RootFS", "Size"),
    "Comment",
)
_NAME: Final = "io.containerd.image.name"
_REF: Final = "org.opencontainers.image.ref.name"


def facts_of(path: Path) -> dict[str, Any]:
    """What an archive says; its layers by the digests of their tars, however they are packed."""
    with tarfile.open(path) as archive:
        files = {
            member.name: found.read()
            for member in archive
            if (found := archive.extractfile(member)) is not None
        }
    index = json.loads(files["index.json"])
    listed = []
    for entry in index["manifests"]:
        manifest = json.loads(files[_blob(entry["digest"])])
        listed.append(
            {
                "names": [entry["annotations"][_NAME], entry["annotations"][_REF]],
                "config": manifest["config"]["digest"],
                "layers": [_digest_of_tar(files[_blob(x["digest"])]) for x in manifest["layers"]],
            }
        )
    old = [
        {
            "config": "sha256:" + entry["Config"].rpartition("/")[2],
            "names": sorted(entry["RepoTags"]),
            "layers": [_digest_of_tar(files[name]) for name in entry["Layers"]],
        }
        for entry in json.loads(files["manifest.json"])
    ]
    blobs = {name for name in files if name.startswith("blobs/sha256/")}
    assert all(hashlib.sha256(files[n]).hexdigest() == n.rpartition("/")[2] for n in blobs)
    return {
        "layout": json.loads(files["oci-layout"]),
        "index": sorted(listed, key=lambda each: str(each["names"])),
        "manifest": sorted(old, key=lambda each: str(each["config"])),
        "repositories": {
            name: sorted(tags) for name, tags in json.loads(files["repositories"]).items()
        },
        "others": sorted(files.keys() - blobs),
    }


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _digest_of_tar(data: bytes) -> str:
    tar = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    return f"sha256:{hashlib.sha256(tar).hexdigest()}"


def told(environment: Mapping[str, str], names: Iterable[str] = IMAGES) -> dict[str, Any]:
    """What ``docker image inspect`` says, by name, of what does not depend on the daemon."""
    found = {}
    for name in names:
        done = subprocess.run(
            ["docker", "image", "inspect", name],
            env=dict(environment),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        (image,) = json.loads(done.stdout)
        found[name] = {key: image.get(key) for key in _TOLD} | {
            "RepoTags": sorted(image["RepoTags"])
        }
    return found
