"""``linkspan build -``: what stands on stdin."""

import io
import json
import tarfile
from typing import Any

import pytest

DIGEST = f"sha256:{'d' * 64}"


@pytest.fixture
def daemon(fake: Any) -> Any:
    fake.on("POST", "/build", lambda _r, c: c.stream({"aux": {"ID": DIGEST}}))
    with fake.running():
        yield fake


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def archive(mode: Any, names: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_a_dockerfile_alone_is_a_context_of_its_own(
    daemon: Any, linkspan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, b"FROM scratch\n")
    assert linkspan("build", "-q", "--rm=true", "--compress", "-") == (0, f"{DIGEST}\n", "")
    request = daemon.asked("POST", "/build")
    assert request.query["dockerfile"] == "Dockerfile"
    assert "remote" not in request.query
    with tarfile.open(fileobj=io.BytesIO(request.body)) as tar:
        assert tar.extractfile("Dockerfile").read() == b"FROM scratch\n"  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_is_sent_as_it_is(
    daemon: Any, linkspan: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    data = archive(mode, {"sub/Dockerfile": b"FROM scratch\n", "big": bytes(600_000)})
    give(monkeypatch, data)
    words = ["-f", "sub/Dockerfile", "-c", "512", "--cpuset-cpus", "0", "--memory-swap", "1g"]
    assert linkspan("build", "-q", *words, "-").status == 0
    request = daemon.asked("POST", "/build")
    assert request.body == data
    assert request.query["dockerfile"] == "sub/Dockerfile"
    limits = [request.query[name] for name in ("cpushares", "cpusetcpus", "memswap")]
    assert limits == ["512", "0", str(1 << 30)]


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        (b"", [], "nothing on stdin"),
        (b"FROM scratch\n", ["-f", "x"], "stdin holds no archive, and so no 'x'"),
        (bytes([7]) * (9 << 20), [], "neither an archive nor a Dockerfile"),
    ],
    ids=["empty", "file", "noise"],
)
def test_what_is_no_context_is_wrong_usage(
    linkspan: Any,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    words: list[str],
    message: str,
) -> None:
    give(monkeypatch, data)
    result = linkspan("build", *words, "-")
    assert (result.status, result.out) == (2, "")
    assert message in result.err


def test_a_fault_in_the_dockerfile_is_shown_with_its_line(
    fake: Any, linkspan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    details = {"line": 1, "file": "Dockerfile", "diagnostic": "LS0202"}
    fault = {"message": "Dockerfile:1: unknown instruction", "details": details}
    fake.on("POST", "/build", fault, 400)
    give(monkeypatch, json.dumps("FRM").strip('"').encode())
    with fake.running():
        result = linkspan("build", "-")
    assert "error[LS0202]: unknown instruction\n --> Dockerfile:1\n  |\n  | FRM" in result.err


def test_content_trust_cannot_be_asked_for(linkspan: Any) -> None:
    result = linkspan("pull", "--disable-content-trust=false", "x")
    assert (result.status, result.out) == (2, "")
    assert "cannot be verified" in result.err
