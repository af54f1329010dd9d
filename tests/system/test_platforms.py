"""Images of several platforms under one name, in our registry and in Debian's."""

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.registry import debian_registry

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFESTS = (
    f"{INDEX}, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
PIPELINE = """\
linkspan: v1
jobs:
  a:
    steps:
      - id: base
        uses: build
        with: {file: Base, platforms: [linux/amd64, linux/arm64], tags: ["REGISTRY/base:1"]}
      - {id: send, uses: push, with: {image: "REGISTRY/base:1"}}
      - {id: forget, uses: remove-image, with: {image: "REGISTRY/base:1"}}
      - id: app
        uses: build
        with: {platforms: [linux/amd64, linux/arm64], sbom: true, tags: ["REGISTRY/app:1"]}
      - {id: push, uses: push, with: {image: "REGISTRY/app:1", provenance: true}}
"""


def fetch(url: str) -> Any:
    with urlopen(Request(url, headers={"Accept": MANIFESTS}), timeout=30) as answer:
        return json.load(answer)


def write(folder: Path, registry: str) -> str:
    (folder / "Base").write_text(
        "FROM scratch\nARG TARGETARCH\nCOPY status.$TARGETARCH /var/lib/dpkg/status\n"
    )
    for name in ("amd64", "arm64"):
        (folder / f"status.{name}").write_text(
            f"Package: of-{name}\nStatus: install ok installed\nVersion: 1\nArchitecture: {name}\n"
        )
    (folder / "Dockerfile").write_text(f"FROM {registry}/base:1\nCOPY Base /\n")
    (folder / "p.yaml").write_text(PIPELINE.replace("REGISTRY", registry))
    return str(folder / "p.yaml")


def test_one_name_has_an_image_for_each_platform_with_its_own_packages(
    daemon: Daemon, tmp_path: Path
) -> None:
    registry = daemon.registry
    daemon.cli("workflow", "run", write(tmp_path, registry))
    steps = {s["id"]: s for s in daemon.json("workflow", "show", "last")["jobs"][0]["steps"]}
    index = fetch(f"http://{registry}/v2/app/manifests/{steps['push']['outputs']['digest']}")
    assert index["mediaType"] == INDEX
    built = steps["app"]["outputs"]["images"]
    for member in index["manifests"]:
        name = member["platform"]["architecture"]
        manifest = fetch(f"http://{registry}/v2/app/manifests/{member['digest']}")
        assert manifest["config"]["digest"] == built[f"linux/{name}"]
        about = fetch(f"http://{registry}/v2/app/referrers/{member['digest']}")["manifests"]
        (sbom,) = [each for each in about if each["artifactType"] == "application/spdx+json"]
        (layer,) = fetch(f"http://{registry}/v2/app/manifests/{sbom['digest']}")["layers"]
        document = fetch(f"http://{registry}/v2/app/blobs/{layer['digest']}")
        assert [p["name"] for p in document["packages"][1:]] == [f"of-{name}"]
        assert len(about) == 2
    assert [m["platform"]["architecture"] for m in index["manifests"]] == ["arm64", "amd64"]
    # What is pulled by the name is what this machine runs.
    daemon.docker("rmi", f"{registry}/app:1")
    daemon.docker("pull", f"{registry}/app:1")
    said = daemon.docker("image", "inspect", "--format", "{{.Architecture}}", f"{registry}/app:1")
    assert said.out.strip() == "amd64"
    # Undone, nothing of it is left here or under its names there.
    daemon.cli("workflow", "undo", "last", "--yes")
    assert not [image for image in daemon.images() if registry in image]


def test_another_registry_takes_the_index_too(daemon: Daemon, tmp_path: Path) -> None:
    with debian_registry() as registry:
        daemon.cli("workflow", "run", write(tmp_path, registry))
        index = fetch(f"http://{registry}/v2/app/manifests/1")
        assert len(index["manifests"]) == 2


def test_commands_that_nobody_can_run_here_are_found_by_the_plan(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    (tmp_path / "p.yaml").write_text(
        "linkspan: v1\njobs: {a: {steps: [{uses: build, with: {platforms: [linux/amd64, linux/riscv]}}]}}\n"
    )
    for command in ("plan", "run"):
        said = daemon.cli("workflow", command, str(tmp_path / "p.yaml"), status=None)
        assert said.status != 0
        assert "no emulator for commands of linux/riscv" in said.said
