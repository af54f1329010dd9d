"""pull, push, build: progress, credentials, the context that is sent."""

import base64
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from linkspan.core.cli.build_context import context_tar
from linkspan.core.cli.build_view import Steps
from linkspan.core.cli.image import split_reference

DIGEST = "sha256:" + "d" * 64


def pull_stream(layers: int) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = [{"status": "Pulling from library/postgres", "id": "16"}]
    for number in range(layers):
        identifier = f"{number:012x}"
        if number < 3:
            records.append({"status": "Already exists", "id": identifier})
            continue
        records.append({"status": "Pulling fs layer", "id": identifier})
        for current in range(0, 100, 5):
            detail = {"current": current, "total": 100}
            records.append({"status": "Downloading", "id": identifier, "progressDetail": detail})
        records.append({"status": "Pull complete", "id": identifier})
    records.append({"status": f"Digest: {DIGEST}"})
    records.append({"status": "Status: Downloaded newer image for postgres:16"})
    return records


def test_a_pull_of_14_layers_is_two_lines_in_a_pipe(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/images/create", lambda _r, c: c.stream(*pull_stream(14)))
    fake.on("GET", "/images/postgres%3A16/json", {"Size": 151_000_000})
    with fake.running():
        result = linkspan("pull", "postgres:16")
        quiet = linkspan("pull", "-q", "postgres:16")
    assert result.err == "pulling postgres:16\n"
    assert result.out.startswith(
        "✓ postgres:16  sha256:dddddddddddd  151MB, 3 of 14 layers were here  "
    )
    assert len(result.out.splitlines()) == 1
    assert quiet == (0, "postgres:16\n", "")


def test_json_progress_passes_on_what_the_daemon_says(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/images/create", lambda _r, c: c.stream(*pull_stream(4)))
    fake.on("GET", "/images/postgres%3A16/json", {"Size": 1})
    with fake.running():
        result = linkspan("--progress", "json", "pull", "postgres:16")
    assert [json.loads(line) for line in result.err.splitlines()] == pull_stream(4)


def test_an_error_in_the_stream_is_the_commands_error(fake: Any, linkspan: Any) -> None:
    message = "pull access denied for x: 401"
    problem = {"errorDetail": {"message": message}, "error": message}
    fake.on("POST", "/images/create", lambda _r, c: c.stream({"status": "…"}, problem))
    with fake.running():
        result = linkspan("pull", "x")
    assert result == (1, "", f"pulling x\nerror[LS0102]: {message}\n")


def test_the_live_view_comes_from_rich_and_leaves_the_summary(fake: Any, linkspan: Any) -> None:
    def slow(_request: Any, connection: Any) -> None:
        import time

        connection.head(200, {"Transfer-Encoding": "chunked"})
        for record in pull_stream(6):
            connection.chunk(json.dumps(record).encode())
            time.sleep(0.005)
        connection.sock.sendall(b"0\r\n\r\n")

    fake.on("POST", "/images/create", slow)
    fake.on("GET", "/images/postgres%3A16/json", {"Size": 151_000_000})
    with fake.running():
        result = linkspan("--progress", "live", "pull", "postgres:16")
    assert "postgres:16" in result.err
    assert "were here" in result.err
    assert "\x1b" not in result.out


def test_credentials_come_from_dockers_config(
    fake: Any, linkspan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = base64.b64encode(b"ana:secret").decode()
    config = {"auths": {"127.0.0.1:5000": {"auth": secret}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    stream = [
        {"status": "The push refers to repository [127.0.0.1:5000/web]"},
        {"status": "Preparing", "id": "a"},
        {"status": "Layer already exists", "id": "a"},
        {"status": f"1: digest: {DIGEST} size: 1234"},
        {"aux": {"Tag": "1", "Digest": DIGEST, "Size": 1234}},
    ]
    path = "/images/127.0.0.1%3A5000%2Fweb/push"
    fake.on("POST", path, lambda _r, c: c.stream(*stream))
    with fake.running():
        result = linkspan("push", "127.0.0.1:5000/web:1")
    request = fake.asked("POST", path)
    sent = json.loads(base64.urlsafe_b64decode(request.headers["x-registry-auth"]))
    assert (sent["username"], sent["password"]) == ("ana", "secret")
    assert request.query == {"tag": "1"}
    assert "sha256:dddddddddddd  1 of 1 layers were there" in result.out
    assert "secret" not in result.out + result.err


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("alpine", ("alpine", "latest")),
        ("alpine:3", ("alpine", "3")),
        ("host:5000/a/b", ("host:5000/a/b", "latest")),
        ("host:5000/a/b:c", ("host:5000/a/b", "c")),
        (f"a@{DIGEST}", ("a", DIGEST)),
    ],
)
def test_references_are_split(reference: str, expected: tuple[str, str]) -> None:
    assert split_reference(reference) == expected


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name, text in {
        "Dockerfile": "FROM scratch\n",
        ".dockerignore": "node_modules\n*.log\n!keep.log\n**/secret\nDockerfile\n",
        "src/main.py": "print()",
        "src/secret": "x",
        "node_modules/deep/x.js": "x",
        "a.log": "x",
        "keep.log": "x",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "link").symlink_to("src/main.py")
    (root / "src/main.py").chmod(0o755)
    return root


def unpack(pieces: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(pieces)))


def test_the_context_leaves_out_what_the_ignore_file_says(context: Path) -> None:
    with unpack(context_tar(context, "Dockerfile", None)) as tar:
        assert sorted(tar.getnames()) == [
            ".dockerignore",
            "Dockerfile",
            "keep.log",
            "link",
            "src",
            "src/main.py",
        ]
        assert tar.getmember("link").linkname == "src/main.py"
        assert tar.getmember("src/main.py").mode & 0o777 == 0o755
        assert tar.extractfile("src/main.py").read() == b"print()"  # type: ignore[union-attr]


def test_a_large_file_is_sent_in_pieces(context: Path) -> None:
    (context / "big").write_bytes(b"ab" * 1_000_000)
    pieces = list(context_tar(context, "Dockerfile", None))
    assert max(map(len, pieces)) <= 256 * 1024
    with unpack(pieces) as tar:
        assert tar.getmember("big").size == 2_000_000


def test_build_sends_the_context_and_shows_steps(
    fake: Any, linkspan: Any, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "yes")
    stream = [
        {"stream": "Step 1/2 : FROM scratch"},
        {"stream": "\n"},
        {"stream": " ---> \n"},
        {"stream": "Step 2/2 : COPY . /\n"},
        {"stream": " ---> Using cache\n"},
        {"aux": {"ID": DIGEST}},
        {"stream": "Successfully built dddddddddddd\n"},
    ]
    fake.on("POST", "/build", lambda _r, c: c.stream(*stream))
    words = ["--build-arg", "V=2", "--build-arg", "FROM_HERE", "--build-arg", "NOT_HERE"]
    with fake.running():
        result = linkspan(
            "build", "-t", "web:1", "-t", "web:2", "--target", "app", *words, str(context)
        )
        quiet = linkspan("build", "-q", str(context))
    assert result.err.splitlines()[0] == "Step 1/2 : FROM scratch"
    assert result.out.startswith("✓ web:1, web:2  sha256:dddddddddddd  2 steps, 1 cached  ")
    assert quiet == (0, f"{DIGEST}\n", "")
    request = fake.asked("POST", "/build")
    assert json.loads(request.query["buildargs"]) == {"V": "2", "FROM_HERE": "yes"}
    assert request.query["target"] == "app"
    with unpack([request.body]) as tar:
        assert "src/main.py" in tar.getnames()


def test_a_daemon_that_sees_the_folder_reads_it_itself(
    fake: Any, linkspan: Any, context: Path
) -> None:
    fake.on("POST", "/linkspan/v1/build", lambda _r, c: c.stream({"aux": {"ID": DIGEST}}))
    with fake.running():
        linkspan("build", "-t", "web", str(context))
    request = fake.asked("POST", "/linkspan/v1/build")
    info = context.stat()
    assert request.query["folder"] == str(context.resolve())
    assert request.query["folderid"] == f"{info.st_dev}:{info.st_ino}"
    assert not request.body


def test_a_failing_step_is_the_commands_error(fake: Any, linkspan: Any, context: Path) -> None:
    message = "The command '/bin/sh -c false' returned a non-zero code: 1"
    said = ["Step 1/1 : RUN false\n", "why\n", "no end"]
    records = [*({"stream": text} for text in said), {"errorDetail": {"message": message}}]
    fake.on("POST", "/build", lambda _r, c: c.stream(*records))
    with fake.running():
        result = linkspan("build", str(context))
        quiet = linkspan("build", "-q", str(context))
    shown = f"Step 1/1 : RUN false\nwhy\nno end\nerror[LS0102]: {message}\n"
    assert result == quiet == (1, "", shown)


def test_a_dockerfile_outside_the_context_is_sent_along(
    fake: Any, linkspan: Any, context: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "Other"
    outside.write_text("FROM other\n")
    fake.on("POST", "/build", lambda _r, c: c.stream({"aux": {"ID": DIGEST}}))
    with fake.running():
        linkspan("build", "-f", str(outside), str(context))
    request = fake.asked("POST", "/build")
    with unpack([request.body]) as tar:
        sent = tar.extractfile(request.query["dockerfile"])
        assert sent is not None
        assert sent.read() == b"FROM other\n"


def test_secrets_and_named_folders_go_in_the_body_not_in_the_address(
    fake: Any, linkspan: Any, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "of-env")
    (tmp_path / "key").write_bytes(b"of-file")
    other = tmp_path / "other"
    other.mkdir()
    fake.on("POST", "/linkspan/v1/build", lambda _r, c: c.stream({"aux": {"ID": DIGEST}}))
    facts = tmp_path / "facts.json"
    words = ["--secret", "id=TOKEN", "--secret", f"id=key,src={tmp_path}/key"]
    words += ["--build-context", f"lib={other}", "--build-context", "base=docker-image://b:1"]
    words += ["--no-cache-filter", "test", "--metadata-file", str(facts)]
    with fake.running():
        result = linkspan("build", "-t", "web", *words, str(context))
    assert result.status == 0
    request = fake.asked("POST", "/linkspan/v1/build")
    length, _, rest = request.body.partition(b"\n")
    sent = json.loads(rest)
    assert len(rest) == int(length)
    assert sent["secrets"] == {
        "TOKEN": base64.b64encode(b"of-env").decode(),
        "key": base64.b64encode(b"of-file").decode(),
    }
    info = other.stat()
    assert sent["contexts"] == [
        {"name": "lib", "folder": str(other), "folderid": f"{info.st_dev}:{info.st_ino}"},
        {"name": "base", "image": "b:1"},
    ]
    assert sent["no_cache_filter"] == ["test"]
    assert json.loads(facts.read_text())["containerimage.config.digest"] == DIGEST


def test_a_check_shows_what_was_found_and_ends_with_1(
    fake: Any, linkspan: Any, context: Path
) -> None:
    finding = {"headline": "Rule: x", "line": 2, "text": "warning[LS0205]: Rule: x"}
    fake.on("POST", "/linkspan/v1/build", {"warnings": [finding]})
    with fake.running():
        found = linkspan("build", "--check", str(context))
        as_json = linkspan("--format", "json", "build", "--check", str(context))
    assert found == (1, "warning[LS0205]: Rule: x\n", "1 finding in Dockerfile\n")
    assert json.loads(as_json.out) == [finding]
    assert fake.asked("POST", "/linkspan/v1/build").query["check"] == "1"
    fake.on("POST", "/linkspan/v1/build", {"warnings": []})
    with fake.running():
        assert linkspan("build", "--check", str(context)).status == 0


def test_caches_are_asked_for_in_the_body(
    fake: Any, linkspan: Any, context: Path, tmp_path: Path
) -> None:
    fake.on("POST", "/linkspan/v1/build", lambda _r, c: c.stream({"aux": {"ID": DIGEST}}))
    words = ["--cache-from", "r.test/c:1", "--cache-to", "type=registry,ref=r.test/c:1,mode=max"]
    words += ["--cache-to", "type=inline", "--cache-from", f"type=local,src={tmp_path}/none"]
    with fake.running():
        result = linkspan("build", *words, str(context))
    assert result.status == 0
    assert "there is no build cache in" in result.err
    request = fake.asked("POST", "/linkspan/v1/build")
    sent = json.loads(request.body.partition(b"\n")[2])
    assert sent["cache_from"] == [{"reference": "r.test/c:1", "fresh": True}]
    assert sent["cache_to"] == [{"reference": "r.test/c:1", "every_stage": True, "push": True}]
    assert json.loads(request.query["buildargs"]) == {"BUILDKIT_INLINE_CACHE": "1"}


def test_a_repository_is_fetched_by_the_daemon(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/linkspan/v1/build", lambda _r, c: c.stream({"aux": {"ID": DIGEST}}))
    with fake.running():
        result = linkspan("build", "-f", "web/Dockerfile", "https://git.test/shop.git#main:web")
    assert result.status == 0
    request = fake.asked("POST", "/linkspan/v1/build")
    assert request.query["remote"] == "https://git.test/shop.git#main:web"
    assert request.query["dockerfile"] == "web/Dockerfile"
    assert request.body == b"2\n{}"


def test_the_live_view_shows_steps_that_run_side_by_side() -> None:
    steps = Steps("web")
    assert steps.lines() == ["web  sending the context"]
    for aux in (
        {"step": {"number": 1, "total": 4, "text": "FROM a", "state": "begun"}},
        {"step": {"number": 1, "state": "cached", "seconds": 0.0}},
        {"step": {"number": 2, "total": 4, "text": "RUN make\nmore", "state": "begun"}},
        {"step": {"number": 3, "total": 4, "text": "RUN test", "state": "begun"}},
        {"log": {"number": 2, "text": "one\ntwo\nth"}},
        {"log": {"number": 2, "text": "ree\n"}},
        {"step": {"number": 3, "state": "done", "seconds": 1.5}},
        {"warnings": [{"rule": "x"}]},
    ):
        assert list(steps.take({"aux": aux})) == []
    shown = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in steps.lines()]
    assert shown[:3] == ["web  2 of 4 steps, 1 cached", "  ✓ FROM a  cached", "  ✓ RUN test  1.5s"]
    assert shown[3].startswith("  ▸ RUN make  ")
    assert shown[4:] == ["    │ one", "    │ two", "    │ three"]
    assert steps.warnings == [{"rule": "x"}]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-o", "type=what"], "is none of local, tar"),
        (["-o", "type=local"], "has no dest"),
        (["-o", "type=image,dest=x"], "has no dest"),
        (["-o", "type=tar,dest=/nonexistent/x"], "there is no folder"),
        (["-o", "-", "-o", "type=tar,dest=-"], "only one can be written to stdout"),
        (["-o", "type=local,dest=-"], "cannot be written to stdout"),
        (["--push"], "there is no name to push"),
        (["--cache-to", "type=what"], "is not registry, local or inline"),
        (["--cache-to", "type=local"], "needs dest="),
        (["--cache-to", "type=registry,ref=a,mode=all"], "is not min or max"),
        (["--cache-from", "type=inline"], "is not registry or local"),
        (["--cache-from", "type=local"], "needs src="),
        (["--ulimit", "x"], "--ulimit"),
    ],
)
def test_outputs_that_cannot_be_made_are_wrong_usage(
    linkspan: Any, context: Path, words: list[str], why: str
) -> None:
    result = linkspan("build", *words, str(context))
    assert result.status == 2
    assert why in result.err


def test_a_daemon_that_takes_no_secrets_is_told_apart(
    fake: Any, linkspan: Any, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "x")
    with fake.running():
        result = linkspan("build", "--secret", "id=TOKEN", str(context))
    assert result.status == 1
    assert "this daemon takes no secrets" in result.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--secret", "src=x"], "has no id"),
        (["--secret", "id=x,src=/nonexistent"], "cannot read the secret"),
        (["--secret", "id=x,env=NOT_HERE"], "has no variable 'NOT_HERE'"),
        (["--secret", "id=x,what=y"], "is none of id=…"),
        (["--build-context", "x"], "is not of the form name=folder"),
        (["--build-context", "x=/nonexistent"], "is not a folder"),
        (["--build-context", "x=git://a/b"], "is no folder and no docker-image"),
    ],
)
def test_options_of_build_that_cannot_be_read_are_wrong_usage(
    linkspan: Any, context: Path, words: list[str], why: str
) -> None:
    result = linkspan("build", *words, str(context))
    assert result.status == 2
    assert why in result.err


@pytest.mark.parametrize("words", [["/nonexistent"], ["."], ["-f", "/nonexistent", "."]])
def test_a_missing_context_or_dockerfile_is_wrong_usage(
    linkspan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = linkspan("build", *words)
    assert result.status == 2
    assert result.err.startswith("error[LS0004]: ")


def test_what_a_step_says_on_stderr_has_no_colour_of_the_daemons() -> None:
    steps = Steps("web")
    records = ["\x1b[91mhalf\x1b[0m", "\x1b[91m a line\n\x1b[0m", "its \x1b[91mown\x1b[0m red\n"]
    shown = [line for text in records for line in steps.take({"stream": text})]
    assert shown == ["half a line", "its \x1b[91mown\x1b[0m red"]
