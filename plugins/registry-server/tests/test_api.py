"""The distribution-spec's endpoints, as a client sees them."""

import hashlib
import json
from typing import Any

import pytest
import trio

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BLOB = bytes(range(256)) * 1000
CONFIG = b"{}"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def codes(body: bytes) -> list[str]:
    return [error["code"] for error in json.loads(body)["errors"]]


def location(answer: Any) -> str:
    return str(answer.headers["Location"])


async def put_blob(api: Any, name: str, data: bytes) -> str:
    begun = await api("POST", f"/v2/{name}/blobs/uploads/")
    done = await api("PUT", f"{location(begun)}?digest={sha256(data)}", data)
    assert done.status == 201, done.body
    return sha256(data)


def manifest_of(blobs: list[bytes], **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": sha256(CONFIG), "size": len(CONFIG)},
        "layers": [
            {"mediaType": OCI_LAYER, "digest": sha256(layer), "size": len(layer)} for layer in blobs
        ],
        **more,
    }
    return json.dumps(document).encode()


async def put_image(api: Any, name: str, tag: str, **more: Any) -> bytes:
    for blob in (BLOB, CONFIG):
        await put_blob(api, name, blob)
    data = manifest_of([BLOB], **more)
    answer = await api("PUT", f"/v2/{name}/manifests/{tag}", data, Content_Type=OCI_MANIFEST)
    assert answer.status == 201, answer.body
    return data


# --- base


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_the_base_says_which_api_it_is(api: Any, path: str) -> None:
    answer = await api("GET", path)
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert json.loads(answer.body) == {}


async def test_an_unknown_path_is_404_and_an_unknown_method_405(api: Any) -> None:
    assert (await api("GET", "/")).status == 404
    assert (await api("GET", "/v2/app/what/ever")).status == 404
    answer = await api("PATCH", "/v2/app/manifests/1", b"{}")
    assert (answer.status, codes(answer.body)) == (405, ["UNSUPPORTED"])
    assert answer.headers["Allow"] == "GET, PUT, DELETE"


@pytest.mark.parametrize("name", ["App", "a//b", "-a", "a/", "%2e%2e", "a%2f..%2fb", "x" * 256])
async def test_a_bad_name_is_refused_everywhere(api: Any, name: str) -> None:
    for method, tail in (
        ("POST", "blobs/uploads/"),
        ("GET", "tags/list"),
        ("GET", "manifests/1"),
        ("GET", f"blobs/{sha256(BLOB)}"),
    ):
        answer = await api(method, f"/v2/{name}/{tail}")
        assert (answer.status, codes(answer.body)) == (400, ["NAME_INVALID"])


@pytest.mark.parametrize(
    "name", ["a", "blobs/uploads", "a/manifests/b", "tags/list", "a.b_c-d/e__f"]
)
async def test_names_may_look_like_endpoints(api: Any, name: str) -> None:
    data = await put_image(api, name, "1")
    assert (await api("GET", f"/v2/{name}/manifests/1")).body == data
    assert (await api("GET", f"/v2/{name}/blobs/{sha256(BLOB)}")).body == BLOB
    assert json.loads((await api("GET", f"/v2/{name}/tags/list")).body)["tags"] == ["1"]


# --- blobs


async def test_a_blob_is_pushed_by_post_and_put(api: Any) -> None:
    begun = await api("POST", "/v2/team/app/blobs/uploads/")
    assert begun.status == 202
    assert begun.headers["Range"] == "0-0"
    assert begun.headers["Docker-Upload-UUID"] in location(begun)
    done = await api("PUT", f"{location(begun)}?digest={sha256(BLOB)}", BLOB)
    assert done.status == 201
    assert location(done) == f"/v2/team/app/blobs/{sha256(BLOB)}"
    found = await api("GET", location(done))
    assert found.body == BLOB
    assert found.headers["Docker-Content-Digest"] == sha256(BLOB)
    assert api.uploads() == []


async def test_a_blob_is_pushed_by_one_post(api: Any) -> None:
    done = await api("POST", f"/v2/app/blobs/uploads/?digest={sha256(BLOB)}", BLOB)
    assert done.status == 201
    assert (await api("GET", location(done))).body == BLOB


async def test_a_blob_is_pushed_in_chunks(api: Any) -> None:
    at, start = location(await api("POST", "/v2/app/blobs/uploads/")), 0
    for chunk in (BLOB[:1000], BLOB[1000:50_000]):
        end = start + len(chunk) - 1
        answer = await api("PATCH", at, chunk, Content_Range=f"{start}-{end}")
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{end}")
        at, start = location(answer), end + 1
    status = await api("GET", at)
    assert (status.status, status.headers["Range"]) == (204, "0-49999")
    last = f"50000-{len(BLOB) - 1}"
    done = await api("PUT", f"{at}?digest={sha256(BLOB)}", BLOB[50_000:], Content_Range=last)
    assert done.status == 201
    assert (await api("GET", location(done))).body == BLOB


async def test_a_blob_is_streamed_without_a_length(api: Any) -> None:
    at = location(await api("POST", "/v2/app/blobs/uploads/"))
    parts = iter([BLOB[:100], BLOB[100:70_000], BLOB[70_000:]])
    answer = await api("PATCH", at, parts)
    assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(BLOB) - 1}")
    done = await api("PUT", f"{location(answer)}?digest={sha256(BLOB)}")
    assert done.status == 201
    assert (await api("GET", location(done))).body == BLOB


@pytest.mark.parametrize("content_range", ["5-104", "0-99", "200-299"])
async def test_a_chunk_out_of_order_is_refused_and_changes_nothing(
    api: Any, content_range: str
) -> None:
    at = location(await api("POST", "/v2/app/blobs/uploads/"))
    await api("PATCH", at, BLOB[:100], Content_Range="0-99")
    for method in ("PATCH", "PUT"):
        target = at if method == "PATCH" else f"{at}?digest={sha256(BLOB)}"
        answer = await api(method, target, BLOB[:100], Content_Range=content_range)
        assert (answer.status, answer.headers["Range"]) == (416, "0-99")
    assert (await api("GET", at)).headers["Range"] == "0-99"


@pytest.mark.parametrize("content_range", ["5-1", "x", "0-10"])
async def test_a_chunk_whose_range_makes_no_sense_is_refused(api: Any, content_range: str) -> None:
    at = location(await api("POST", "/v2/app/blobs/uploads/"))
    answer = await api("PATCH", at, BLOB[:100], Content_Range=content_range)
    assert answer.status == 400


async def test_a_wrong_digest_is_refused_in_every_form_of_upload(api: Any) -> None:
    wrong = sha256(b"other")
    at = location(await api("POST", "/v2/app/blobs/uploads/"))
    answers = [
        await api("PUT", f"{at}?digest={wrong}", BLOB),
        await api("POST", f"/v2/app/blobs/uploads/?digest={wrong}", BLOB),
    ]
    at = location(await api("POST", "/v2/app/blobs/uploads/"))
    await api("PATCH", at, BLOB)
    answers.append(await api("PUT", f"{at}?digest={wrong}"))
    for answer in answers:
        assert (answer.status, codes(answer.body)) == (400, ["DIGEST_INVALID"])
    assert (await api("GET", at)).status == 404, "the session is gone"
    assert api.uploads() == []
    assert api.blobs() == set()


@pytest.mark.parametrize(
    "digest", ["sha256:xyz", "sha256:" + "A" * 64, "md5:" + "0" * 32, "nonsense", "sha256:../x"]
)
async def test_a_digest_that_is_none_is_refused(api: Any, digest: str) -> None:
    at = location(await api("POST", "/v2/app/blobs/uploads/"))
    assert codes((await api("PUT", f"{at}?digest={digest}", BLOB)).body) == ["DIGEST_INVALID"]
    assert (await api("GET", f"/v2/app/blobs/{digest.replace('/', '%2f')}")).status in (400, 404)


async def test_a_put_needs_a_digest(api: Any) -> None:
    at = location(await api("POST", "/v2/app/blobs/uploads/"))
    assert codes((await api("PUT", at, BLOB)).body) == ["DIGEST_INVALID"]


@pytest.mark.parametrize("hint", ["", "?digest-algorithm=sha512"])
async def test_sha512_is_spoken(api: Any, hint: str) -> None:
    digest = "sha512:" + hashlib.sha512(BLOB).hexdigest()
    at = location(await api("POST", f"/v2/app/blobs/uploads/{hint}"))
    done = await api("PUT", f"{at}?digest={digest}", BLOB)
    assert (done.status, done.headers["Docker-Content-Digest"]) == (201, digest)
    assert (await api("GET", f"/v2/app/blobs/{digest}")).body == BLOB


async def test_an_empty_blob_is_a_blob(api: Any) -> None:
    await put_blob(api, "app", b"")
    found = await api("GET", f"/v2/app/blobs/{sha256(b'')}")
    assert (found.status, found.body, found.headers["Content-Length"]) == (200, b"", "0")


async def test_head_and_get_agree(api: Any) -> None:
    await put_image(api, "app", "1")
    absent = sha256(b"absent")
    for target in (
        f"/v2/app/blobs/{sha256(BLOB)}",
        "/v2/app/manifests/1",
        f"/v2/app/blobs/{absent}",
        "/v2/app/manifests/none",
    ):
        head, get = await api("HEAD", target), await api("GET", target)
        assert head.status == get.status
        assert head.body == b""
        assert dict(head.headers) == dict(get.headers)
        assert int(get.headers["Content-Length"]) == len(get.body)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-99", (0, 100)),
        ("bytes=1000-1999", (1000, 2000)),
        ("bytes=255000-", (255_000, 256_000)),
        ("bytes=255000-999999999", (255_000, 256_000)),
        ("bytes=-100", (255_900, 256_000)),
        ("bytes=-9999999", (0, 256_000)),
    ],
)
async def test_a_part_of_a_blob_is_given(api: Any, asked: str, expected: tuple[int, int]) -> None:
    await put_blob(api, "app", BLOB)
    answer = await api("GET", f"/v2/app/blobs/{sha256(BLOB)}", Range=asked)
    start, end = expected
    assert answer.status == 206
    assert answer.body == BLOB[start:end]
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(BLOB)}"


@pytest.mark.parametrize("asked", ["bytes=256000-", "bytes=500-0", "bytes=-0"])
async def test_a_part_that_is_not_there_is_416(api: Any, asked: str) -> None:
    await put_blob(api, "app", BLOB)
    answer = await api("GET", f"/v2/app/blobs/{sha256(BLOB)}", Range=asked)
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(BLOB)}")


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "x"])
async def test_other_ranges_give_the_whole(api: Any, asked: str) -> None:
    await put_blob(api, "app", BLOB)
    answer = await api("GET", f"/v2/app/blobs/{sha256(BLOB)}", Range=asked)
    assert (answer.status, answer.body) == (200, BLOB)


async def test_what_the_client_has_is_not_sent_again(api: Any) -> None:
    await put_image(api, "app", "1")
    for target in (f"/v2/app/blobs/{sha256(BLOB)}", "/v2/app/manifests/1"):
        etag = (await api("GET", target)).headers["ETag"]
        answer = await api("GET", target, If_None_Match=f'"x", {etag}')
        assert (answer.status, answer.body) == (304, b"")


async def test_a_blob_belongs_to_its_repository(api: Any) -> None:
    await put_blob(api, "one", BLOB)
    answer = await api("GET", f"/v2/two/blobs/{sha256(BLOB)}")
    assert (answer.status, codes(answer.body)) == (404, ["BLOB_UNKNOWN"])
    assert len(api.blobs()) == 1


async def test_a_blob_is_mounted_from_a_repository_that_has_it(api: Any) -> None:
    await put_blob(api, "one", BLOB)
    answer = await api("POST", f"/v2/two/blobs/uploads/?mount={sha256(BLOB)}&from=one")
    assert (answer.status, location(answer)) == (201, f"/v2/two/blobs/{sha256(BLOB)}")
    assert (await api("GET", location(answer))).body == BLOB


@pytest.mark.parametrize("source", ["&from=none", "", "&from="])
async def test_a_mount_that_does_not_work_opens_an_upload(api: Any, source: str) -> None:
    await put_blob(api, "one", BLOB)
    answer = await api("POST", f"/v2/two/blobs/uploads/?mount={sha256(BLOB)}{source}")
    assert answer.status == 202
    done = await api("PUT", f"{location(answer)}?digest={sha256(BLOB)}", BLOB)
    assert done.status == 201


async def test_an_upload_is_cancelled(api: Any) -> None:
    at = location(await api("POST", "/v2/app/blobs/uploads/"))
    await api("PATCH", at, BLOB)
    assert (await api("DELETE", at)).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        answer = await api(method, at)
        assert (answer.status, codes(answer.body)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    assert api.uploads() == []


async def test_an_upload_belongs_to_its_repository(api: Any) -> None:
    at = location(await api("POST", "/v2/one/blobs/uploads/"))
    assert (await api("GET", at.replace("/one/", "/two/"))).status == 404


async def test_the_same_blob_arrives_several_times_at_once(api: Any) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(put_blob, api, "app", BLOB)
    assert (await api("GET", f"/v2/app/blobs/{sha256(BLOB)}")).body == BLOB
    assert api.uploads() == []


# --- manifests


async def test_a_manifest_comes_back_byte_by_byte(api: Any) -> None:
    data = await put_image(api, "app", "1")
    for name in ("1", sha256(data)):
        found = await api("GET", f"/v2/app/manifests/{name}")
        assert found.body == data
        assert found.headers["Content-Type"] == OCI_MANIFEST
        assert found.headers["Docker-Content-Digest"] == sha256(data)


async def test_a_manifest_is_put_by_digest_with_tags(api: Any) -> None:
    data = await put_image(api, "app", "1", annotations={"a": "b"})
    target = f"/v2/app/manifests/{sha256(data)}?tag=2&tag=3"
    answer = await api("PUT", target, data, Content_Type=OCI_MANIFEST)
    assert answer.status == 201
    assert json.loads((await api("GET", "/v2/app/tags/list")).body)["tags"] == ["1", "2", "3"]


async def test_a_tag_moves(api: Any) -> None:
    first = await put_image(api, "app", "1")
    second = await put_image(api, "app", "1", annotations={"a": "b"})
    assert (await api("GET", "/v2/app/manifests/1")).body == second
    assert (await api("GET", f"/v2/app/manifests/{sha256(first)}")).body == first


@pytest.mark.parametrize(
    ("data", "content_type", "code"),
    [
        (b"", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"{", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"[]", OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"[" * 100_000, OCI_MANIFEST, "MANIFEST_INVALID"),
        (b"{}", "", "MANIFEST_INVALID"),
        (b'{"schemaVersion":2}', OCI_MANIFEST, "MANIFEST_INVALID"),
        (manifest_of([]), OCI_INDEX, "MANIFEST_INVALID"),
        (manifest_of([], manifests=[]), OCI_MANIFEST, "MANIFEST_INVALID"),
        (manifest_of([], schemaVersion=1), OCI_MANIFEST, "MANIFEST_INVALID"),
        (manifest_of([], config={}), OCI_MANIFEST, "MANIFEST_INVALID"),
        (manifest_of([], config={"digest": "sha256:x"}), OCI_MANIFEST, "DIGEST_INVALID"),
        (manifest_of([], layers=[{"size": 1}]), OCI_MANIFEST, "MANIFEST_INVALID"),
        (manifest_of([b"absent"]), OCI_MANIFEST, "MANIFEST_BLOB_UNKNOWN"),
        (
            b'{"schemaVersion":1}',
            "application/vnd.docker.distribution.manifest.v1+json",
            "MANIFEST_INVALID",
        ),
    ],
)
async def test_a_manifest_that_is_none_is_refused(
    api: Any, data: bytes, content_type: str, code: str
) -> None:
    await put_blob(api, "app", CONFIG)
    headers = {"Content_Type": content_type} if content_type else {}
    answer = await api("PUT", "/v2/app/manifests/1", data, **headers)
    assert (answer.status, codes(answer.body)) == (400, [code])
    assert (await api("GET", "/v2/app/manifests/1")).status == 404


async def test_a_manifest_under_a_wrong_digest_is_refused(api: Any) -> None:
    data = await put_image(api, "app", "1")
    target = f"/v2/app/manifests/{sha256(b'other')}"
    answer = await api("PUT", target, data, Content_Type=OCI_MANIFEST)
    assert (answer.status, codes(answer.body)) == (400, ["DIGEST_INVALID"])


async def test_a_huge_manifest_is_refused(api: Any) -> None:
    answer = await api("PUT", "/v2/app/manifests/1", bytes(9 << 20), Content_Type=OCI_MANIFEST)
    assert (answer.status, codes(answer.body)) == (413, ["SIZE_INVALID"])


async def test_a_large_manifest_is_accepted(api: Any) -> None:
    data = await put_image(api, "app", "big", annotations={"a": "x" * (4 << 20)})
    assert (await api("GET", "/v2/app/manifests/big")).body == data


@pytest.mark.parametrize("tag", [".1", "-x", "a%20b", "x" * 129])
async def test_a_bad_tag_is_refused(api: Any, tag: str) -> None:
    answer = await api("PUT", f"/v2/app/manifests/{tag}", b"{}", Content_Type=OCI_MANIFEST)
    assert (answer.status, codes(answer.body)) == (400, ["TAG_INVALID"])


async def test_layers_that_are_not_distributed_may_be_missing(api: Any) -> None:
    await put_blob(api, "app", CONFIG)
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": sha256(b"elsewhere"),
        "size": 9,
        "urls": ["https://vendor.test/layer"],
    }
    data = manifest_of([], layers=[foreign])
    answer = await api("PUT", "/v2/app/manifests/1", data, Content_Type=OCI_MANIFEST)
    assert answer.status == 201


async def test_an_index_may_name_manifests_that_are_not_here(api: Any) -> None:
    child = {"mediaType": OCI_MANIFEST, "digest": sha256(b"absent"), "size": 6}
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    answer = await api("PUT", "/v2/app/manifests/1", data, Content_Type=OCI_INDEX)
    assert answer.status == 201


async def test_what_is_unknown_has_its_code(api: Any) -> None:
    for target, code in (
        ("/v2/none/manifests/1", "NAME_UNKNOWN"),
        ("/v2/none/tags/list", "NAME_UNKNOWN"),
        (f"/v2/none/blobs/{sha256(BLOB)}", "BLOB_UNKNOWN"),
    ):
        answer = await api("GET", target)
        assert (answer.status, codes(answer.body)) == (404, [code])
    await put_image(api, "app", "1")
    answer = await api("GET", "/v2/app/manifests/2")
    assert codes(answer.body) == ["MANIFEST_UNKNOWN"]


# --- discovery


@pytest.mark.parametrize(
    ("query", "expected", "following"),
    [
        ("", ["a", "b", "c", "d"], ""),
        ("?n=2", ["a", "b"], "/v2/app/tags/list?last=b&n=2"),
        ("?n=2&last=b", ["c", "d"], ""),
        ("?n=1&last=b", ["c"], "/v2/app/tags/list?last=c&n=1"),
        ("?n=0", [], ""),
        ("?n=4", ["a", "b", "c", "d"], ""),
        ("?last=zz", [], ""),
    ],
)
async def test_tags_come_in_pages(
    api: Any, query: str, expected: list[str], following: str
) -> None:
    for tag in "dbca":
        await put_image(api, "app", tag)
    answer = await api("GET", f"/v2/app/tags/list{query}")
    assert json.loads(answer.body) == {"name": "app", "tags": expected}
    link = answer.headers.get("Link", "")
    assert link == (f'<{following}>; rel="next"' if following else "")


async def test_a_page_of_what_is_no_number_is_refused(api: Any) -> None:
    answer = await api("GET", "/v2/_catalog?n=x")
    assert codes(answer.body) == ["PAGINATION_NUMBER_INVALID"]


async def test_the_catalog_has_what_can_be_pulled(api: Any) -> None:
    assert json.loads((await api("GET", "/v2/_catalog")).body) == {"repositories": []}
    await put_image(api, "team/b", "1")
    await put_image(api, "team/a/deep", "1")
    await put_blob(api, "only-blobs", BLOB)
    answer = await api("GET", "/v2/_catalog?n=1")
    assert json.loads(answer.body) == {"repositories": ["team/a/deep"]}
    following = answer.headers["Link"].partition(">")[0].lstrip("<")
    assert json.loads((await api("GET", following)).body) == {"repositories": ["team/b"]}


# --- referrers and deletion


async def put_referrer(api: Any, subject: bytes, kind: str) -> str:
    data = manifest_of(
        [],
        artifactType=kind,
        annotations={"k": "v"},
        subject={"mediaType": OCI_MANIFEST, "digest": sha256(subject), "size": len(subject)},
    )
    target = f"/v2/app/manifests/{sha256(data)}"
    answer = await api("PUT", target, data, Content_Type=OCI_MANIFEST)
    assert answer.headers["OCI-Subject"] == sha256(subject)
    return sha256(data)


async def test_referrers_are_listed_and_filtered(api: Any) -> None:
    subject = await put_image(api, "app", "1")
    empty = await api("GET", f"/v2/app/referrers/{sha256(subject)}")
    assert (empty.status, json.loads(empty.body)["manifests"]) == (200, [])
    one = await put_referrer(api, subject, "application/one")
    two = await put_referrer(api, subject, "application/two")
    found = await api("GET", f"/v2/app/referrers/{sha256(subject)}")
    assert found.headers["Content-Type"] == OCI_INDEX
    listed = json.loads(found.body)["manifests"]
    assert {d["digest"] for d in listed} == {one, two}
    assert listed[0]["annotations"] == {"k": "v"}
    filtered = await api("GET", f"/v2/app/referrers/{sha256(subject)}?artifactType=application/one")
    assert [d["digest"] for d in json.loads(filtered.body)["manifests"]] == [one]
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert (await api("DELETE", f"/v2/app/manifests/{one}")).status == 202
    left = await api("GET", f"/v2/app/referrers/{sha256(subject)}")
    assert [d["digest"] for d in json.loads(left.body)["manifests"]] == [two]
    assert (await api("GET", "/v2/app/referrers/nonsense")).status == 400


async def test_a_deleted_manifest_takes_its_tags_along(api: Any) -> None:
    data = await put_image(api, "app", "1")
    await put_image(api, "app", "2")
    assert (await api("DELETE", f"/v2/app/manifests/{sha256(data)}")).status == 202
    for name in ("1", "2", sha256(data)):
        assert (await api("GET", f"/v2/app/manifests/{name}")).status == 404
    assert json.loads((await api("GET", "/v2/app/tags/list")).body)["tags"] == []
    assert (await api("DELETE", f"/v2/app/manifests/{sha256(data)}")).status == 404


async def test_a_deleted_tag_leaves_the_manifest(api: Any) -> None:
    data = await put_image(api, "app", "1")
    assert (await api("DELETE", "/v2/app/manifests/1")).status == 202
    assert (await api("GET", "/v2/app/manifests/1")).status == 404
    assert (await api("GET", f"/v2/app/manifests/{sha256(data)}")).body == data


async def test_a_blob_goes_with_the_last_repository_that_names_it(api: Any) -> None:
    await put_blob(api, "one", BLOB)
    await put_blob(api, "two", BLOB)
    assert (await api("DELETE", f"/v2/one/blobs/{sha256(BLOB)}")).status == 202
    assert (await api("GET", f"/v2/one/blobs/{sha256(BLOB)}")).status == 404
    assert (await api("GET", f"/v2/two/blobs/{sha256(BLOB)}")).body == BLOB
    assert (await api("DELETE", f"/v2/two/blobs/{sha256(BLOB)}")).status == 202
    assert api.blobs() == set()
    assert (await api("DELETE", f"/v2/two/blobs/{sha256(BLOB)}")).status == 404


async def test_deleting_can_be_switched_off(start: Any) -> None:
    api = await start(delete=False)
    data = await put_image(api, "app", "1")
    for target in (f"/v2/app/manifests/{sha256(data)}", f"/v2/app/blobs/{sha256(BLOB)}"):
        answer = await api("DELETE", target)
        assert (answer.status, codes(answer.body)) == (405, ["UNSUPPORTED"])
