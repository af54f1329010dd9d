"""What a daemon answers when it has asked a registry: logins, what an image is there, searches."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread  # noqa: TID251 - a server of the test's own beside synchronous requests
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from daemon_harness.daemon import connection_to

Answer = tuple[int, Any]
"""Status, and the JSON of the answer (its text, if it is none)."""

_OCI: Final = "application/vnd.oci.image."
_DOCKER: Final = "application/vnd.docker.distribution.manifest."
_USER: Final = "Basic " + base64.b64encode(b"me:right").decode()
_REQUEST = re.compile(r"([A-Z]+) (/\S*)(?: (\{.*\}))?(?: AS (\S+):(\S+))?")


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _described(kind: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(data), "size": len(data), **more}


def _image(kind: str, config_kind: str, config: Mapping[str, Any]) -> tuple[str, bytes, bytes]:
    text = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": _described(config_kind, text),
        "layers": [],
    }
    return kind, json.dumps(manifest).encode(), text


def _contents() -> tuple[dict[str, tuple[str, bytes]], dict[str, bytes]]:
    """Manifests by ``NAME/TAG``, with their types, and blobs by digest."""
    plain = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "config": {}}
    single = _image(
        f"{_DOCKER}v2+json",
        "application/vnd.docker.container.image.v1+json",
        {**plain, "architecture": "amd64"},
    )
    other = _image(
        f"{_OCI}manifest.v1+json",
        f"{_OCI}config.v1+json",
        {**plain, "architecture": "arm64", "variant": "v8"},
    )
    of = ({"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux"})
    listed = [
        _described(image[0], image[1], platform=platform)
        for image, platform in zip((single, other), of, strict=True)
    ]
    listed[1]["platform"] = {**of[1], "variant": "v8", "os.version": "1", "os.features": ["a"]}
    index = f"{_OCI}index.v1+json"
    many = json.dumps({"schemaVersion": 2, "mediaType": index, "manifests": listed}).encode()
    fat = f"{_DOCKER}list.v2+json"
    docker_list = json.dumps({"schemaVersion": 2, "mediaType": fat, "manifests": listed}).encode()
    nothing = json.dumps({"schemaVersion": 2, "mediaType": index, "manifests": []}).encode()
    manifests = {
        "one/latest": single[:2],
        "oci/1.0": other[:2],
        "deep/er/down/latest": single[:2],
        "many/latest": (index, many),
        "fat/latest": (fat, docker_list),
        "nothing/latest": (index, nothing),
        "strange/latest": ("application/json", b"[]"),
    }
    by_digest = {
        f"{name.rpartition('/')[0]}/{_digest(found[1])}": found for name, found in manifests.items()
    }
    return {**manifests, **by_digest}, {_digest(i[2]): i[2] for i in (single, other)}


_FOUND: Final = [
    {"name": "one", "description": "The first", "star_count": 7, "is_official": True},
    {"name": "me/one", "description": "", "star_count": 3, "is_automated": True},
    {"name": "me/two", "description": "A line\nand more", "star_count": 0},
]


class _Registry(BaseHTTPRequestHandler):
    """Knows some images; private, it asks who calls."""

    protocol_version = "HTTP/1.1"
    manifests, blobs = _contents()

    def __init__(self, *args: Any, private: bool, **more: Any) -> None:
        self._private = private
        super().__init__(*args, **more)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if self._private and self.headers.get("Authorization") != _USER:
            return self._refuse(401, "UNAUTHORIZED", "authentication required")
        if url.path == "/v2/":
            return self._say(200, "application/json", b"{}")
        if url.path == "/v1/search" and not self._private:
            return self._search(parse_qs(url.query))
        match = re.fullmatch(r"/v2/(.*)/(manifests|blobs)/(.*)", url.path)
        if match is None:
            return self._say(404, "text/plain", b"404 page not found\n")
        name, kind, what = match.groups()
        if kind == "blobs" and what in self.blobs:
            return self._say(200, "application/octet-stream", self.blobs[what])
        manifest = self.manifests.get(f"{name}/{what}")
        if manifest is None:
            return self._refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return self._say(200, *manifest)

    def _search(self, query: Mapping[str, list[str]]) -> None:
        found = _FOUND[: int(query.get("n", ["25"])[0])]
        body = {"num_results": len(found), "query": query["q"][0], "results": found}
        self._say(200, "application/json", json.dumps(body).encode())

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        more = {"WWW-Authenticate": 'Basic realm="here"'} if status == 401 else {}
        self._say(status, "application/json", body, more)

    def _say(
        self, status: int, kind: str, body: bytes, more: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if "/manifests/" in self.path and status == 200:
            self.send_header("Docker-Content-Digest", _digest(body))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(private: bool) -> Iterator[str]:
    """A registry on loopback; gives ``HOST:PORT``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Registry, private=private))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def carry_out(script: Path, socket: str) -> dict[str, Answer]:
    """Ask what a script says, of two registries that live as long: one is open to all, one private.

    A line is ``METHOD PATH BODY AS USER:PASSWORD``, the last two if need be; ``{open}`` and ``{private}`` are the
    registries. What is answered is told with these names, too.
    """
    found = {}
    with ExitStack() as stack:
        hosts = {
            "open": stack.enter_context(serving(private=False)),
            "private": stack.enter_context(serving(private=True)),
        }
        for line in script.read_text().splitlines():
            match = _REQUEST.fullmatch(line)
            if match is None:
                assert not line or line.startswith("#"), line
                continue
            method, path, body, user, password = (
                text and re.sub(r"\{(open|private)\}", lambda name: hosts[name[1]], text)
                for text in match.groups()
            )
            login = {"username": user, "password": password} if user else None
            status, text = _ask(socket, method, path, body, login)
            for name, host in hosts.items():
                text = text.replace(host, f"{{{name}}}")
            try:
                found[line] = status, json.loads(text)
            except ValueError:
                found[line] = status, text.strip()
    return found


def _ask(
    socket: str, method: str, path: str, body: str | None, login: Mapping[str, str] | None
) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"} if body else {}
    if login is not None:
        told = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
        headers["X-Registry-Auth"] = told
    connection = connection_to(socket)
    try:
        connection.request(method, quote(path, safe="/?=&:%+,@"), body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def write(found: Mapping[str, Answer], path: Path) -> None:
    """Keep answers, one a line."""
    rows = (f"{json.dumps(line)}: {json.dumps(answer)}" for line, answer in found.items())
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")
