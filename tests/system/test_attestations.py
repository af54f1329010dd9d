"""An SBOM and a provenance lie beside the image in its registry, whether that knows referrers or not."""

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.registry import debian_registry

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

STATUS = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n"
PIPELINE = """\
linkspan: v1
jobs:
  a:
    steps:
      - {id: build, uses: build, with: {sbom: true, args: {VERSION: "1"}}}
      - id: push
        uses: push
        with:
          image: ${{ steps.build.outputs.id }}
          tags: ["REGISTRY/app:1", "REGISTRY/app:2"]
          provenance: true
"""
SPDX = "application/spdx+json"
IN_TOTO = "application/vnd.in-toto+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def fetch(url: str) -> Any:
    request = Request(
        url, headers={"Accept": f"{INDEX}, application/vnd.oci.image.manifest.v1+json"}
    )
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


def write(folder: Path, registry: str) -> str:
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY status /var/lib/dpkg/status\n")
    (folder / "status").write_text(STATUS)
    (folder / "p.yaml").write_text(PIPELINE.replace("REGISTRY", registry))
    return str(folder / "p.yaml")


def documents(registry: str, index: Any) -> dict[str, Any]:
    """By kind: what the referrers of a list hold."""
    found = {}
    for each in index["manifests"]:
        manifest = fetch(f"http://{registry}/v2/app/manifests/{each['digest']}")
        (layer,) = manifest["layers"]
        assert each["artifactType"] == manifest["artifactType"] == layer["mediaType"]
        found[each["artifactType"]] = fetch(f"http://{registry}/v2/app/blobs/{layer['digest']}")
    return found


def check(found: dict[str, Any], digest: str) -> None:
    assert sorted(found) == sorted([SPDX, IN_TOTO])
    names = [package["name"] for package in found[SPDX]["packages"]]
    assert "libc6" in names
    statement = found[IN_TOTO]
    assert statement["subject"][0]["digest"] == {"sha256": digest.removeprefix("sha256:")}
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["args"] == {"VERSION": "1"}
    assert definition["resolvedDependencies"][0]["uri"].startswith("pkg:docker/busybox@latest?")


def test_what_is_known_of_an_image_is_pushed_with_it(daemon: Daemon, tmp_path: Path) -> None:
    registry = daemon.registry
    path = write(tmp_path, registry)
    assert "no_provenance" not in daemon.cli("workflow", "plan", path).out
    for _ in range(2):
        daemon.cli("workflow", "run", path)
    steps = {s["id"]: s for s in daemon.json("workflow", "show", "last")["jobs"][0]["steps"]}
    digest = steps["push"]["outputs"]["digest"]
    index = fetch(f"http://{registry}/v2/app/referrers/{digest}")
    # The second build says the same about its packages, and something new about itself.
    kinds = sorted(each["artifactType"] for each in index["manifests"])
    assert kinds == [SPDX, IN_TOTO, IN_TOTO]
    check(documents(registry, index), digest)
    # An image that this daemon did not build has nothing to say.
    (tmp_path / "q.yaml").write_text(
        "linkspan: v1\njobs: {a: {steps: [{uses: push, with: {image: busybox, "
        f"tags: ['{registry}/other:1'], provenance: true}}}}]}}}}\n"
    )
    said = daemon.cli("workflow", "plan", str(tmp_path / "q.yaml"), status=None)
    assert "nothing is known about how" in said.said


def test_a_registry_that_keeps_no_list_of_referrers_gets_the_tag_for_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    with debian_registry() as registry:
        daemon.cli("workflow", "run", write(tmp_path, registry))
        (_, push) = daemon.json("workflow", "show", "last")["jobs"][0]["steps"]
        digest = push["outputs"]["digest"]
        tag = digest.replace(":", "-")
        check(documents(registry, fetch(f"http://{registry}/v2/app/manifests/{tag}")), digest)
