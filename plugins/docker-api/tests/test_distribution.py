import json

import pytest

from linkspan.sdk.testing.fakes.registry import FakeRegistry, digest_of

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def registry(api) -> FakeRegistry:
    found = FakeRegistry()
    api.host.drivers["registry", ""] = found
    repository = found.repository("docker.io/library/tool")
    config = json.dumps({"architecture": "arm64", "os": "linux", "variant": "v8"}).encode()
    repository.blobs[digest_of(config)] = config
    manifest = {
        "config": {"mediaType": "c", "digest": digest_of(config), "size": len(config)},
        "layers": [],
    }
    repository.put_manifest("1", MANIFEST, json.dumps(manifest).encode())
    platforms = [{"architecture": "amd64", "os": "linux"}, {"architecture": "s390x", "os": "linux"}]
    index = {"manifests": [{"platform": platform} for platform in platforms]}
    repository.put_manifest("many", INDEX, json.dumps(index).encode())
    return found


async def test_an_image_is_looked_at_without_a_pull(api, registry) -> None:
    seen = (await api.ask("GET", "/distribution/tool:1/json")).json
    assert seen["Descriptor"]["mediaType"] == MANIFEST
    assert seen["Descriptor"]["digest"].startswith("sha256:")
    assert seen["Platforms"] == [{"architecture": "arm64", "os": "linux", "variant": "v8"}]


async def test_an_index_names_its_platforms(api, registry) -> None:
    seen = (await api.ask("GET", "/distribution/tool:many/json")).json
    assert [p["architecture"] for p in seen["Platforms"]] == ["amd64", "s390x"]


async def test_what_the_registry_does_not_have_is_404_and_what_it_refuses_401(
    api, registry
) -> None:
    assert (await api.ask("GET", "/distribution/tool:2/json")).status == 404
    registry.password = "secret"
    assert (await api.ask("GET", "/distribution/tool:1/json")).status == 401


async def test_login(api, registry) -> None:
    registry.password = "secret"
    body = {"username": "a", "password": "secret", "serveraddress": "h:5000"}
    assert (await api.ask("POST", "/auth", body)).json["Status"] == "Login Succeeded"
    wrong = await api.ask("POST", "/auth", {**body, "password": "guess"})
    assert (wrong.status, wrong.message) == (401, "access denied")


async def test_a_search_is_passed_on_and_filtered(api, registry) -> None:
    found = await api.ask("GET", "/images/search?term=tool")
    assert [item["name"] for item in found.json] == ["docker.io/library/tool"]
    registry.repository("h:5000/tool")
    here = await api.ask("GET", "/images/search?term=h:5000/tool")
    assert "tool" in [item["name"] for item in here.json]
    starred = await api.ask("GET", '/images/search?term=tool&filters={"stars":["1"]}')
    assert starred.json == []
    for query in ("", "?term=x&limit=101", '?term=x&filters={"stars":["many"]}'):
        assert (await api.ask("GET", f"/images/search{query}")).status == 400
