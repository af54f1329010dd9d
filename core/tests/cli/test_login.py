"""Logins: checked by the daemon, kept where the docker CLI keeps them."""

import base64
import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from linkspan.core.cli import credentials


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "docker"
    monkeypatch.setenv("DOCKER_CONFIG", str(place))
    return place


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def config(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())


def test_a_login_is_checked_and_kept_for_its_owner_only(
    linkspan: Any, fake: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.on("POST", "/auth", {"Status": "Login Succeeded"})
    stdin(monkeypatch, "pa:ss\n")
    with fake.running():
        result = linkspan("login", "-u", "ana", "--password-stdin", "reg.test:5000")
    assert (result.status, result.out) == (0, "Login Succeeded\n")
    wanted = {"username": "ana", "password": "pa:ss", "serveraddress": "reg.test:5000"}
    assert fake.asked("POST", "/auth").json == wanted
    assert config(folder)["auths"] == {
        "reg.test:5000": {"auth": base64.b64encode(b"ana:pa:ss").decode()}
    }
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
    assert credentials.lookup("reg.test:5000") == wanted


def test_a_refused_login_changes_nothing(
    linkspan: Any, fake: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.on("POST", "/auth", {"message": "unauthorized"}, 401)
    stdin(monkeypatch, "wrong")
    with fake.running():
        result = linkspan("login", "-u", "ana", "--password-stdin", "reg.test")
    assert (result.status, result.err) == (1, "error[LS0102]: unauthorized\n")
    assert not folder.exists()


def test_what_else_is_in_the_file_stays(
    linkspan: Any, fake: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    (folder / "config.json").write_text('{"auths": {"other": {"auth": "eDp5"}}, "psFormat": "x"}')
    fake.on("POST", "/auth", {"Status": "Login Succeeded", "IdentityToken": "tok"})
    stdin(monkeypatch, "pw")
    with fake.running():
        linkspan("login", "-u", "ana", "--password-stdin", "reg.test")
        assert credentials.lookup("reg.test") == {
            "identitytoken": "tok",
            "serveraddress": "reg.test",
        }
        assert linkspan("logout", "reg.test").out == "Removed the login to reg.test\n"
        again = linkspan("logout", "reg.test")
    assert (again.status, again.err) == (0, "there was no login to reg.test\n")
    assert config(folder) == {"auths": {"other": {"auth": "eDp5"}}, "psFormat": "x"}


def test_nobody_is_asked_without_a_terminal(linkspan: Any, fake: Any, folder: Path) -> None:
    with fake.running():
        for words in (["login"], ["login", "-u", "ana"], ["login", "--password-stdin"]):
            assert linkspan(*words).status == 2
    assert fake.requests == []


def test_a_helper_keeps_what_it_is_given(
    linkspan: Any, fake: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "bin" / "docker-credential-safe"
    helper.parent.mkdir()
    helper.write_text(
        "#!/bin/sh\ncase $1 in\n"
        f"store) cat > {tmp_path}/kept;;\n"
        f'get) [ -e {tmp_path}/kept ] && cat {tmp_path}/kept || {{ echo "credentials not found"; exit 1; }};;\n'
        f"erase) rm -f {tmp_path}/kept;;\nesac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:/usr/bin:/bin")
    folder.mkdir()
    (folder / "config.json").write_text('{"credHelpers": {"reg.test": "safe"}}')
    assert credentials.lookup("reg.test") == {}
    fake.on("POST", "/auth", {"Status": "Login Succeeded"})
    stdin(monkeypatch, "pw")
    with fake.running():
        linkspan("login", "-u", "ana", "--password-stdin", "reg.test")
        assert config(folder)["auths"] == {"reg.test": {}}
        assert credentials.lookup("reg.test")["password"] == "pw"
        linkspan("logout", "reg.test")
    assert credentials.lookup("reg.test") == {}


def test_a_helper_that_is_missing_is_named(folder: Path, linkspan: Any, fake: Any) -> None:
    folder.mkdir()
    (folder / "config.json").write_text('{"credsStore": "absent"}')
    with fake.running():
        result = linkspan("pull", "reg.test/web:1")
    assert result.status == 1
    assert "there is no program 'docker-credential-absent'" in result.err


@pytest.mark.parametrize(
    ("reference", "server"),
    [
        ("alpine", credentials.DOCKER_HUB),
        ("shop/web:1", credentials.DOCKER_HUB),
        ("docker.io/shop/web", credentials.DOCKER_HUB),
        ("localhost/web", "localhost"),
        ("reg.test:5000/a/b@sha256:1", "reg.test:5000"),
    ],
)
def test_the_registry_of_a_reference(reference: str, server: str) -> None:
    assert credentials.registry_of(reference) == server


@pytest.mark.parametrize("text", ["{broken", "[1]"])
def test_a_file_that_cannot_be_read_is_not_overwritten(
    linkspan: Any, fake: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(text)
    fake.on("POST", "/auth", {"Status": "Login Succeeded"})
    stdin(monkeypatch, "pw")
    with fake.running():
        result = linkspan("login", "-u", "ana", "--password-stdin", "reg.test")
    assert (result.status, result.out) == (1, "")
    assert "is not a JSON object; it is left alone" in result.err
    assert linkspan("logout", "reg.test").status == 1
    assert (folder / "config.json").read_text() == text


def test_a_login_that_is_kept_is_tried_before_anybody_is_asked(
    linkspan: Any, fake: Any, folder: Path
) -> None:
    folder.mkdir()
    secret = base64.b64encode(b"ana:pw").decode()
    (folder / "config.json").write_text(json.dumps({"auths": {"reg.test": {"auth": secret}}}))
    fake.on("POST", "/auth", {"Status": "Login Succeeded"})
    with fake.running():
        assert linkspan("login", "reg.test").out == "Login Succeeded, as before: reg.test\n"
        assert fake.asked("POST", "/auth").json["password"] == "pw"
    fake.on("POST", "/auth", {"message": "unauthorized"}, 401)
    with fake.running():
        result = linkspan("login", "reg.test")
    assert (result.status, result.out) == (2, "")
    assert "does not hold any more: unauthorized" in result.err


def test_a_build_takes_the_logins_of_single_helpers_along(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    (folder / "config.json").write_text('{"credHelpers": {"reg.test": "safe"}}')
    answer = {"Username": "ana", "Secret": "pw"}
    monkeypatch.setattr(credentials, "_run_helper", lambda *_: answer)
    sent = json.loads(base64.urlsafe_b64decode(credentials.registry_config()))
    assert sent["reg.test"]["password"] == "pw"
