"""The four categories of the distribution-spec 1.1 (pull, push, discovery, management), by kinds of content.

Each kind goes the whole way: pushed, listed, looked at with HEAD and GET by tag and digest, referred to,
deleted. What single endpoints answer to single mistakes is in ``test_api.py``.
"""

import base64
import hashlib
import json
from typing import Any

import attrs
import pytest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
REPO = "conformance/one"
OTHER = "conformance/two"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def descriptor(media_type: str, data: bytes, algorithm: str = "sha256", **more: Any) -> Any:
    return {
        "mediaType": media_type,
        "digest": digest_of(data, algorithm),
        "size": len(data),
        **more,
    }


@attrs.define
class Content:
    """Blobs and manifests in the order in which they are pushed; the last manifest gets the tag."""

    blobs: list[bytes] = attrs.field(factory=list)
    manifests: list[tuple[str, bytes]] = attrs.field(factory=list)
    algorithm: str = "sha256"

    def blob(self, media_type: str, data: bytes, **more: Any) -> Any:
        self.blobs.append(data)
        return descriptor(media_type, data, self.algorithm, **more)

    def manifest(self, media_type: str, **fields: Any) -> Any:
        document = {"schemaVersion": 2, "mediaType": media_type, **fields}
        data = json.dumps(document).encode()
        self.manifests.append((media_type, data))
        return descriptor(media_type, data, self.algorithm)

    def image(self, layers: int = 2, **fields: Any) -> Any:
        config = self.blob(OCI_CONFIG, json.dumps({"n": len(self.blobs)}).encode())
        found = [self.blob(OCI_LAYER, b"layer %d" % n * 500) for n in range(layers)]
        return self.manifest(OCI_MANIFEST, config=config, layers=found, **fields)


def image() -> Content:
    content = Content()
    content.image()
    return content


def large_manifest() -> Content:
    content = Content()
    content.image(annotations={f"key.{n}": "x" * 100 for n in range(9000)})
    return content


def index() -> Content:
    content = Content()
    platforms = [{"os": "linux", "architecture": name} for name in ("amd64", "arm64")]
    entries = [{**content.image(n + 1), "platform": p} for n, p in enumerate(platforms)]
    content.manifest(OCI_INDEX, manifests=entries)
    return content


def nested_index() -> Content:
    content = index()
    _, inner = content.manifests[-1]
    content.manifest(OCI_INDEX, manifests=[descriptor(OCI_INDEX, inner)])
    return content


def empty_index() -> Content:
    content = Content()
    content.manifest(OCI_INDEX, manifests=[])
    return content


def artifact(**more: Any) -> Content:
    content = Content()
    empty = content.blob(OCI_EMPTY, b"{}")
    layers = [content.blob("application/vnd.example.data", b"some data")]
    content.manifest(
        OCI_MANIFEST,
        artifactType="application/vnd.example.thing",
        config=empty,
        layers=layers,
        **more,
    )
    return content


def artifact_without_layers() -> Content:
    content = Content()
    empty = content.blob(OCI_EMPTY, b"{}")
    content.manifest(OCI_MANIFEST, artifactType="example/x", config=empty, layers=[empty])
    return content


def artifact_index() -> Content:
    content = artifact()
    _, inner = content.manifests[-1]
    entry = descriptor(OCI_MANIFEST, inner, artifactType="application/vnd.example.thing")
    content.manifest(OCI_INDEX, artifactType="example/many", manifests=[entry])
    return content


def missing_subject() -> Content:
    return artifact(subject=descriptor(OCI_MANIFEST, b"never pushed"))


def data_field() -> Content:
    content = Content()
    config = content.blob(OCI_EMPTY, b"{}")
    config["data"] = base64.b64encode(b"{}").decode()
    content.manifest(OCI_MANIFEST, config=config, layers=[])
    return content


def foreign_layers() -> Content:
    content = Content()
    config = content.blob(OCI_CONFIG, b'{"foreign": 1}')
    elsewhere = descriptor(FOREIGN, b"not here", urls=["https://example.com/layer"])
    content.manifest(OCI_MANIFEST, config=config, layers=[elsewhere])
    return content


def custom_fields() -> Content:
    content = Content()
    content.image(**{"com.example.own": {"any": ["thing"]}})
    return content


def sha512() -> Content:
    content = Content(algorithm="sha512")
    content.image()
    return content


KINDS = [
    image,
    large_manifest,
    index,
    nested_index,
    empty_index,
    artifact,
    artifact_without_layers,
    artifact_index,
    missing_subject,
    data_field,
    foreign_layers,
    custom_fields,
    sha512,
]


async def push(api: Any, content: Content, repository: str = REPO, tag: str = "t") -> str:
    """Blobs in turn by POST and PUT, by one POST, and in chunks; the last manifest's digest."""
    for at, data in enumerate(content.blobs):
        digest = digest_of(data, content.algorithm)
        uploads = f"/v2/{repository}/blobs/uploads/?digest-algorithm={content.algorithm}"
        if at % 3 == 1:
            done = await api("POST", f"{uploads}&digest={digest}", data)
        else:
            begun = await api("POST", uploads)
            assert begun.status == 202, begun.body
            place = begun.headers["Location"]
            if at % 3 == 2:
                half = len(data) // 2
                part = await api("PATCH", place, data[:half], Content_Range=f"0-{half - 1}")
                assert (part.status, part.headers["Range"]) == (202, f"0-{half - 1}")
                place, data = part.headers["Location"], data[half:]
            joint = "&" if "?" in place else "?"
            done = await api("PUT", f"{place}{joint}digest={digest}", data)
        assert (done.status, done.headers["Docker-Content-Digest"]) == (201, digest), done.body
    digest = ""
    for media_type, data in content.manifests:
        digest = digest_of(data, content.algorithm)
        put = await api(
            "PUT", f"/v2/{repository}/manifests/{digest}", data, Content_Type=media_type
        )
        assert (put.status, put.headers["Docker-Content-Digest"]) == (201, digest), put.body
        subject = json.loads(data).get("subject")
        assert put.headers["OCI-Subject"] == (subject and subject["digest"])
    media_type, data = content.manifests[-1]
    if content.algorithm == "sha256":
        put = await api("PUT", f"/v2/{repository}/manifests/{tag}", data, Content_Type=media_type)
    else:
        target = f"/v2/{repository}/manifests/{digest}?tag={tag}"
        put = await api("PUT", target, data, Content_Type=media_type)
    assert put.status == 201
    return digest


@pytest.mark.parametrize("kind", KINDS)
async def test_content_goes_the_whole_way(api: Any, kind: Any) -> None:
    content = kind()
    digest = await push(api, content)
    media_type, data = content.manifests[-1]
    assert json.loads((await api("GET", f"/v2/{REPO}/tags/list")).body)["tags"] == ["t"]
    for reference in ("t", digest):
        head = await api("HEAD", f"/v2/{REPO}/manifests/{reference}")
        got = await api("GET", f"/v2/{REPO}/manifests/{reference}")
        assert (head.status, got.status, got.body) == (200, 200, data)
        for name in ("Content-Type", "Content-Length", "Docker-Content-Digest"):
            assert head.headers[name] == got.headers[name]
        assert got.headers["Content-Type"] == media_type
        assert got.headers["Docker-Content-Digest"] == digest
    for blob in content.blobs:
        target = f"/v2/{REPO}/blobs/{digest_of(blob, content.algorithm)}"
        assert (await api("GET", target)).body == blob
        assert (await api("HEAD", target)).headers["Content-Length"] == str(len(blob))
    referrers = await api("GET", f"/v2/{REPO}/referrers/{digest}")
    assert json.loads(referrers.body)["manifests"] == []
    assert (await api("DELETE", f"/v2/{REPO}/manifests/t")).status == 202
    assert (await api("GET", f"/v2/{REPO}/manifests/t")).status == 404
    assert (await api("GET", f"/v2/{REPO}/manifests/{digest}")).status == 200
    assert (await api("DELETE", f"/v2/{REPO}/manifests/{digest}")).status == 202
    assert (await api("GET", f"/v2/{REPO}/manifests/{digest}")).status == 404
    for blob in set(content.blobs):
        target = f"/v2/{REPO}/blobs/{digest_of(blob, content.algorithm)}"
        assert (await api("DELETE", target)).status == 202
        assert (await api("HEAD", target)).status == 404


@pytest.mark.parametrize("subject", [image, index])
async def test_referrers_are_told_filtered_and_forgotten(api: Any, subject: Any) -> None:
    content = subject()
    digest = await push(api, content)
    media_type, data = content.manifests[-1]
    about = descriptor(media_type, data)
    notes = {"org.example": "note"}
    first = await push(api, artifact(subject=about, annotations=notes), tag="first")
    other = Content()
    other.image(1, subject=about)
    second = await push(api, other, tag="second")
    third = Content()
    third.manifest(OCI_INDEX, artifactType="example/list", manifests=[], subject=about)
    last = await push(api, third, tag="third")

    async def asked(query: str = "") -> tuple[dict[str, Any], Any]:
        answer = await api("GET", f"/v2/{REPO}/referrers/{digest}{query}")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == OCI_INDEX
        found = {entry["digest"]: entry for entry in json.loads(answer.body)["manifests"]}
        return found, answer.headers.get("OCI-Filters-Applied")

    found, filtered = await asked()
    assert (set(found), filtered) == ({first, second, last}, None)
    assert found[first]["artifactType"] == "application/vnd.example.thing"
    assert found[first]["annotations"] == notes
    assert found[second]["artifactType"] == OCI_CONFIG
    assert found[last]["artifactType"] == "example/list"
    found, filtered = await asked("?artifactType=example/list")
    assert (set(found), filtered) == ({last}, "artifactType")
    assert (await api("DELETE", f"/v2/{REPO}/manifests/{first}")).status == 202
    assert set((await asked())[0]) == {second, last}
    # A subject that is deleted or was never here has its referrers still.
    await api("DELETE", f"/v2/{REPO}/manifests/{digest}")
    assert set((await asked())[0]) == {second, last}


async def test_an_image_whose_digest_is_wrong_is_refused(api: Any) -> None:
    content = image()
    media_type, data = content.manifests[-1]
    for blob in content.blobs:
        await api("POST", f"/v2/{REPO}/blobs/uploads/?digest={digest_of(blob)}", blob)
    wrong = digest_of(data + b" ")
    put = await api("PUT", f"/v2/{REPO}/manifests/{wrong}", data, Content_Type=media_type)
    assert put.status == 400
    assert json.loads(put.body)["errors"][0]["code"] == "DIGEST_INVALID"
    assert (await api("GET", f"/v2/{REPO}/manifests/{wrong}")).status == 404


@pytest.mark.parametrize("origin", [REPO, "", "conformance/nowhere"])
async def test_blobs_are_mounted_or_an_upload_begins(api: Any, origin: str) -> None:
    content = image()
    await push(api, content)
    digest = digest_of(content.blobs[0])
    source = f"&from={origin}" if origin else ""
    answer = await api("POST", f"/v2/{OTHER}/blobs/uploads/?mount={digest}{source}")
    if origin == REPO:
        assert answer.status == 201
        assert answer.headers["Location"].endswith(f"/v2/{OTHER}/blobs/{digest}")
        assert (await api("GET", f"/v2/{OTHER}/blobs/{digest}")).body == content.blobs[0]
    else:
        # Without a source a registry may find it itself; with a wrong one it opens an upload.
        assert answer.status in ((201, 202) if not origin else (202,))
        assert "Location" in answer.headers


@pytest.mark.parametrize("count", [0, 1, 3, 100])
async def test_tags_are_listed_in_pages_to_the_end(api: Any, count: int) -> None:
    content = image()
    tags = [f"tag-{n}" for n in range(7)]
    for tag in reversed(tags):
        await push(api, content, tag=tag)
    target, seen = f"/v2/{REPO}/tags/list?n={count}", []
    for _ in range(10):
        answer = await api("GET", target)
        seen += json.loads(answer.body)["tags"]
        link = answer.headers.get("Link")
        if link is None:
            break
        assert link.endswith('; rel="next"')
        target = link.partition(">")[0].removeprefix("<")
    assert seen == (tags if count else [])
    last = await api("GET", f"/v2/{REPO}/tags/list?n=2&last=tag-3")
    assert json.loads(last.body)["tags"] == ["tag-4", "tag-5"]


async def test_an_empty_registry_answers_before_any_push(api: Any) -> None:
    assert (await api("GET", "/v2/")).status == 200
    assert (await api("GET", f"/v2/{REPO}/tags/list")).status == 404
    referrers = await api("GET", f"/v2/{REPO}/referrers/{digest_of(b'x')}")
    assert (referrers.status, json.loads(referrers.body)["manifests"]) == (200, [])
