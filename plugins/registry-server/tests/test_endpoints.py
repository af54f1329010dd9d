"""Every endpoint of the distribution-spec 1.1 with every status that its table gives it.

In the table's order and by its names (end-1 … end-13); what is behind an answer is in the other files. 401 and 429
are none of a registry without users or limits a client, nor is 404 where a push makes the repository: a manifest
whose blobs are missing is 400, as Docker's registry has it.
"""

import hashlib
import json
from typing import Any

import attrs
import pytest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
BLOB = b"cargo" * 1000
NEW = b"fresh" * 1000


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def image(*layers: bytes) -> bytes:
    parts = [{"mediaType": EMPTY, "digest": sha256(d), "size": len(d)} for d in (b"{}", *layers)]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
    return json.dumps(document).encode()


IMAGE = image(BLOB)
KNOWN, UNKNOWN, WRONG = sha256(BLOB), sha256(b"unknown"), "sha256:zz"
UPLOAD = "{upload}"
"""Stands for an upload that has begun."""


@attrs.frozen
class Row:
    """A request, and what is answered: status, error code, and names of headers that have to be there."""

    endpoint: str
    method: str
    target: str
    status: int
    code: str = ""
    body: bytes = b""
    sent: dict[str, str] = attrs.field(factory=dict)
    headers: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = self.target.replace(KNOWN, "KNOWN").replace(UNKNOWN, "UNKNOWN")
        return f"{self.endpoint} {self.method} {shown} {self.status}"


PLACED = ("Location", "Docker-Content-Digest")
TYPED = {"Content-Type": MANIFEST}
PART = {"Content-Range": "0-4999"}
ROWS = [
    Row("end-1", "GET", "/v2/", 200),
    *(
        row
        for method in ("GET", "HEAD")
        for row in (
            Row("end-2", method, f"/v2/app/blobs/{KNOWN}", 200, headers=("Docker-Content-Digest",)),
            Row("end-2", method, f"/v2/app/blobs/{UNKNOWN}", 404, "BLOB_UNKNOWN"),
            Row("end-2", method, f"/v2/app/blobs/{WRONG}", 400, "DIGEST_INVALID"),
            Row("end-3", method, "/v2/app/manifests/1", 200, headers=("Docker-Content-Digest",)),
            Row("end-3", method, f"/v2/app/manifests/{sha256(IMAGE)}", 200),
            Row("end-3", method, "/v2/app/manifests/2", 404, "MANIFEST_UNKNOWN"),
            Row("end-3", method, f"/v2/app/manifests/{UNKNOWN}", 404, "MANIFEST_UNKNOWN"),
            Row("end-3", method, "/v2/none/manifests/1", 404, "NAME_UNKNOWN"),
        )
    ),
    Row(
        "end-2",
        "GET",
        f"/v2/app/blobs/{KNOWN}",
        206,
        sent={"Range": "bytes=10-19"},
        headers=("Content-Range",),
    ),
    Row(
        "end-2",
        "GET",
        f"/v2/app/blobs/{KNOWN}",
        416,
        "SIZE_INVALID",
        sent={"Range": "bytes=9999-"},
    ),
    Row("end-4a", "POST", "/v2/app/blobs/uploads/", 202, headers=("Location",)),
    Row("end-4a", "POST", "/v2/BAD/blobs/uploads/", 400, "NAME_INVALID"),
    Row(
        "end-4b",
        "POST",
        f"/v2/app/blobs/uploads/?digest={sha256(NEW)}",
        201,
        body=NEW,
        headers=PLACED,
    ),
    Row("end-4b", "POST", f"/v2/app/blobs/uploads/?digest={UNKNOWN}", 400, "DIGEST_INVALID", NEW),
    Row("end-5", "PATCH", UPLOAD, 202, body=NEW, headers=("Location", "Range")),
    Row("end-5", "PATCH", UPLOAD, 202, body=NEW, sent=PART, headers=("Location", "Range")),
    Row("end-5", "PATCH", "/v2/app/blobs/uploads/none", 404, "BLOB_UPLOAD_UNKNOWN", NEW),
    Row("end-5", "PATCH", UPLOAD, 416, "BLOB_UPLOAD_INVALID", NEW, {"Content-Range": "7-5006"}),
    Row("end-6", "PUT", UPLOAD + f"?digest={sha256(NEW)}", 201, body=NEW, headers=PLACED),
    Row("end-6", "PUT", UPLOAD + f"?digest={UNKNOWN}", 400, "DIGEST_INVALID", NEW),
    Row(
        "end-6",
        "PUT",
        f"/v2/app/blobs/uploads/none?digest={UNKNOWN}",
        404,
        "BLOB_UPLOAD_UNKNOWN",
        NEW,
    ),
    Row("end-7", "PUT", "/v2/app/manifests/2", 201, body=IMAGE, sent=TYPED, headers=PLACED),
    Row(
        "end-7",
        "PUT",
        f"/v2/app/manifests/{sha256(IMAGE)}",
        201,
        body=IMAGE,
        sent=TYPED,
        headers=PLACED,
    ),
    Row(
        "end-7",
        "PUT",
        "/v2/app/manifests/2",
        400,
        "MANIFEST_BLOB_UNKNOWN",
        image(b"unknown"),
        TYPED,
    ),
    Row("end-7", "PUT", "/v2/app/manifests/2", 400, "MANIFEST_INVALID", b"{", TYPED),
    Row("end-7", "PUT", "/v2/app/manifests/2", 413, "SIZE_INVALID", b" " * (5 << 20), TYPED),
    Row("end-8a", "GET", "/v2/app/tags/list", 200),
    Row("end-8a", "GET", "/v2/none/tags/list", 404, "NAME_UNKNOWN"),
    Row("end-8b", "GET", "/v2/app/tags/list?n=1&last=0", 200),
    Row("end-8b", "GET", "/v2/none/tags/list?n=1&last=0", 404, "NAME_UNKNOWN"),
    Row("end-9", "DELETE", f"/v2/app/manifests/{sha256(IMAGE)}", 202),
    Row("end-9", "DELETE", "/v2/app/manifests/1", 202),
    Row("end-9", "DELETE", f"/v2/app/manifests/{UNKNOWN}", 404, "MANIFEST_UNKNOWN"),
    Row("end-10", "DELETE", f"/v2/app/blobs/{KNOWN}", 202),
    Row("end-10", "DELETE", f"/v2/app/blobs/{UNKNOWN}", 404, "BLOB_UNKNOWN"),
    Row("end-11", "POST", f"/v2/two/blobs/uploads/?mount={KNOWN}&from=app", 201, headers=PLACED),
    Row(
        "end-11",
        "POST",
        f"/v2/two/blobs/uploads/?mount={UNKNOWN}&from=app",
        202,
        headers=("Location",),
    ),
    Row("end-12a", "GET", f"/v2/app/referrers/{sha256(IMAGE)}", 200, headers=("Content-Type",)),
    Row("end-12a", "GET", f"/v2/app/referrers/{UNKNOWN}", 200, headers=("Content-Type",)),
    Row("end-12a", "GET", f"/v2/app/referrers/{WRONG}", 400, "DIGEST_INVALID"),
    Row(
        "end-12b",
        "GET",
        f"/v2/app/referrers/{UNKNOWN}?artifactType=x/y",
        200,
        headers=("OCI-Filters-Applied",),
    ),
    Row("end-13", "GET", UPLOAD, 204, headers=("Location", "Range")),
    Row("end-13", "GET", "/v2/app/blobs/uploads/none", 404, "BLOB_UPLOAD_UNKNOWN"),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_an_endpoint_answers_as_the_specification_says(start: Any, row: Row) -> None:
    api = await start(manifest_limit_bytes=4 << 20)
    for blob in (b"{}", BLOB):
        made = await api("POST", f"/v2/app/blobs/uploads/?digest={sha256(blob)}", blob)
        assert made.status == 201
    assert (await api("PUT", "/v2/app/manifests/1", IMAGE, Content_Type=MANIFEST)).status == 201
    target = row.target
    if UPLOAD in target:
        begun = await api("POST", "/v2/app/blobs/uploads/")
        target = target.replace(UPLOAD, begun.headers["Location"])
    sent = {name.replace("-", "_"): value for name, value in row.sent.items()}
    answer = await api(row.method, target, row.body or None, **sent)
    assert answer.status == row.status, answer.body
    assert {name for name in row.headers if name not in answer.headers} == set()
    if row.code and row.method != "HEAD":
        (error,) = json.loads(answer.body)["errors"]
        assert error["code"] == row.code
        assert error["message"]
    if row.endpoint.startswith("end-12") and row.status == 200:
        assert answer.headers["Content-Type"] == INDEX


@pytest.mark.parametrize("target", [f"blobs/{KNOWN}", "manifests/1"])
async def test_a_registry_that_deletes_nothing_says_405(start: Any, target: str) -> None:
    """end-9 and end-10, for content that is there or not."""
    api = await start(delete=False)
    answer = await api("DELETE", f"/v2/app/{target}")
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (405, "UNSUPPORTED")


def test_no_endpoint_of_the_specification_is_left_out() -> None:
    named = {row.endpoint for row in ROWS}
    split = {4: "ab", 8: "ab", 12: "ab"}
    assert named == {f"end-{n}{part}" for n in range(1, 14) for part in split.get(n, [""])}
