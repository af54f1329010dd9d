"""Challenges, waits, addresses, credentials files."""

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from linkspan.plugins.distribution_registry.addresses import InsecureHosts, api_authority
from linkspan.plugins.distribution_registry.challenge import (
    Challenge,
    choose_challenge,
    parse_challenges,
)
from linkspan.plugins.distribution_registry.docker_config import DockerConfig
from linkspan.plugins.distribution_registry.manifests import read_manifest
from linkspan.plugins.distribution_registry.retry import RetryPolicy, retry_after_s
from linkspan.plugins.distribution_registry.tokens import server_domain
from linkspan.sdk.errors import DataLoss, Unauthenticated, Unsupported
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import parse_reference

BEARER = Challenge(
    scheme="bearer",
    parameters={"realm": "https://a/token", "service": "s", "scope": "repository:x:pull,push"},
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"'], [BEARER]),
        (['bearer realm="https://a/token" , service=s, scope="repository:x:pull,push"'], [BEARER]),
        (
            [
                'Basic realm="r", Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"'
            ],
            [Challenge(scheme="basic", parameters={"realm": "r"}), BEARER],
        ),
        (
            ["Negotiate", 'Basic realm="a \\"quoted\\" one"'],
            [
                Challenge(scheme="negotiate"),
                Challenge(scheme="basic", parameters={"realm": 'a "quoted" one'}),
            ],
        ),
        (["Negotiate, Basic"], [Challenge(scheme="negotiate"), Challenge(scheme="basic")]),
        ([""], []),
        (['="x"'], []),
        (['Basic realm="open'], [Challenge(scheme="basic")]),
    ],
)
def test_all_challenges_of_all_lines_are_read(lines: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(lines) == expected


def test_a_bearer_with_a_realm_comes_before_basic() -> None:
    basic = Challenge(scheme="basic")
    assert choose_challenge([basic, BEARER]) == BEARER
    assert choose_challenge([Challenge(scheme="bearer"), basic]) == basic
    assert choose_challenge([Challenge(scheme="negotiate")]) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("-1", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("9" * 30, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, now=60.0) == expected


def test_waits_grow_with_jitter_and_have_an_end() -> None:
    policy = RetryPolicy(attempts=5, delay_s=1.0, retry_after_limit_s=60.0)
    for attempt, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (50, 30.0)):
        waits = {policy.wait_s(attempt) for _ in range(50)}
        assert len(waits) > 1
        assert all(longest / 2 <= wait <= longest for wait in waits)


@pytest.mark.parametrize(
    ("authority", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.1.2.3", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("localhost.example.com", False),
        ("registry.test", True),
        ("registry.test:5000", True),
        ("other.test:443", True),
        ("other.test", False),
        ("10.1.2.3:5000", True),
        ("10.2.0.1:5000", False),
        ("example.com", False),
    ],
)
def test_insecure_hosts_are_loopback_and_what_the_config_names(
    authority: str, insecure: bool
) -> None:
    hosts = InsecureHosts.of(["registry.test", "http://other.test:443", "10.1.0.0/16", "bad/cidr"])
    assert (authority in hosts) is insecure


def test_docker_hub_is_asked_at_its_api_host() -> None:
    assert api_authority("docker.io") == "registry-1.docker.io"
    assert api_authority("quay.io:443") == "quay.io:443"


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("https://index.docker.io/v1/", "index.docker.io"),
        ("http://localhost:5000", "localhost:5000"),
        ("Quay.IO", "quay.io"),
        ("", ""),
    ],
)
def test_a_server_address_names_a_host(address: str, domain: str) -> None:
    assert server_domain(address) == domain


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


AUTHS: dict[str, Any] = {
    "https://index.docker.io/v1/": auth("hub", "p1"),
    "plain.test:5000": auth("plain", "p2\0\0"),
    "https://legacy.test/v1/": auth("legacy", "p3"),
    "paths.test": auth("all", "p4"),
    "paths.test/team": auth("team", "p5"),
    "fields.test": {"username": "u", "password": "p6"},
    "token.test": {"identitytoken": "idt"},
    "broken.test": {"auth": "%%%"},
    "wrong.test": "text",
}


@pytest.mark.parametrize(
    ("domain", "repository", "expected"),
    [
        ("docker.io", "library/app", ("hub", "p1", "")),
        ("plain.test:5000", "app", ("plain", "p2", "")),
        ("legacy.test", "app", ("legacy", "p3", "")),
        ("paths.test", "app", ("all", "p4", "")),
        ("paths.test", "team/app", ("team", "p5", "")),
        ("paths.test", "teams/app", ("all", "p4", "")),
        ("fields.test", "app", ("u", "p6", "")),
        ("token.test", "app", ("", "", "idt")),
        ("broken.test", "app", ("", "", "")),
        ("wrong.test", "app", ("", "", "")),
        ("unknown.test", "app", ("", "", "")),
    ],
)
async def test_credentials_come_from_dockers_config_file(
    tmp_path: Path, domain: str, repository: str, expected: tuple[str, str, str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": AUTHS}))
    found = await DockerConfig(path).credentials(domain, repository)
    assert (found.username, found.password, found.identity_token) == expected


async def test_a_missing_file_means_anonymous(tmp_path: Path) -> None:
    assert await DockerConfig(tmp_path / "no.json").credentials("a.test", "x") == Credentials()


async def test_the_folder_of_docker_config_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"a.test": auth("u", "p")}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert (await DockerConfig().credentials("a.test", "x")).username == "u"


async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(Unauthenticated, match=r"config\.json"):
        await DockerConfig(path).credentials("a.test", "x")


def helper(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


async def test_a_helper_is_asked_for_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(
        tmp_path,
        "one",
        'read server; echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"$server\\",\\"Secret\\":\\"s\\"}"',
        monkeypatch,
    )
    helper(
        tmp_path, "two", 'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"idt\\"}"', monkeypatch
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credHelpers": {"a.test": "one"}, "credsStore": "two"}))
    config = DockerConfig(path)
    assert (await config.credentials("a.test", "x")).username == "a.test"
    assert (await config.credentials("b.test", "x")).identity_token == "idt"


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("echo credentials not found in native store; exit 1", ""),
        ("echo it hurts; exit 1", "it hurts"),
        ("echo nonsense", "its answer"),
    ],
)
async def test_a_helper_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, outcome: str
) -> None:
    helper(tmp_path, "one", script, monkeypatch)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credsStore": "one"}))
    if not outcome:
        assert await DockerConfig(path).credentials("a.test", "x") == Credentials()
        return
    with pytest.raises(Unauthenticated, match=outcome) as caught:
        await DockerConfig(path).credentials("a.test", "x")
    assert caught.value.code == "credential_helper"


@pytest.mark.parametrize("name", ["absent-helper", "../evil", "-x"])
async def test_a_helper_that_cannot_be_run_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credsStore": name}))
    with pytest.raises(Unauthenticated, match=name):
        await DockerConfig(path).credentials("a.test", "x")


async def test_what_is_stored_is_found_again_and_others_entries_stay(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config.json"
    config = DockerConfig(path)
    mine = Credentials(username="u", password="p:ü", server_address="a.test:5000")
    await config.store(mine)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = json.loads(path.read_text())
    document["auths"]["b.test"] = {"auth": "eDp5"}
    document["psFormat"] = "table"
    path.write_text(json.dumps(document))
    await config.store(attrs.evolve(mine, identity_token="idt"))
    found = await config.credentials("a.test:5000", "x")
    assert (found.username, found.identity_token) == ("u", "idt")
    await config.erase("a.test:5000")
    await config.erase("a.test:5000")
    assert json.loads(path.read_text()) == {
        "auths": {"b.test": {"auth": "eDp5"}},
        "psFormat": "table",
    }


async def test_a_helper_keeps_and_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    helper(tmp_path, "one", f'echo "$1 $(cat)" >> {told}', monkeypatch)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credsStore": "one"}))
    await DockerConfig(path).store(Credentials(username="u", password="p", server_address="a.test"))
    await DockerConfig(path).erase("a.test")
    assert told.read_text().splitlines() == [
        'store {"ServerURL": "a.test", "Username": "u", "Secret": "p"}',
        "erase a.test",
    ]
    assert "auths" not in json.loads(path.read_text())


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = DockerConfig(tmp_path / "file" / "config.json")
    with pytest.raises(Unauthenticated, match=r"file/config\.json"):
        await config.store(Credentials(username="u", password="p", server_address="a.test"))


REFERENCE = parse_reference("r.test/app:1")
OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@pytest.mark.parametrize(
    ("document", "content_type", "expected"),
    [
        ({"mediaType": OCI, "layers": []}, OCI, OCI),
        ({"mediaType": OCI, "layers": []}, f"{OCI}; charset=utf-8", OCI),
        ({"layers": []}, OCI, OCI),
        ({"mediaType": OCI, "layers": []}, "text/plain", OCI),
        ({"layers": []}, "application/json", OCI),
        ({"manifests": []}, "", "application/vnd.oci.image.index.v1+json"),
        ({"manifests": []}, DOCKER_LIST, DOCKER_LIST),
    ],
)
def test_the_kind_comes_from_the_header_the_body_or_the_shape(
    document: dict[str, Any], content_type: str, expected: str
) -> None:
    data = json.dumps({"schemaVersion": 2, **document}).encode()
    found = read_manifest(REFERENCE, data, content_type=content_type, digest_header="")
    assert found.descriptor.media_type == expected


@pytest.mark.parametrize(
    ("data", "content_type", "error", "text"),
    [
        (b"<html>", OCI, DataLoss, "not JSON"),
        (b"[]", OCI, DataLoss, "JSON object"),
        (b"[" * 100_000, OCI, DataLoss, "not JSON"),
        (b'{"manifests":[],"layers":[]}', OCI, DataLoss, "index and an image"),
        (b'{"mediaType":"x","layers":[]}', OCI, DataLoss, "calls itself"),
        (b'{"manifests":[]}', OCI, DataLoss, "another form"),
        (b'{"layers":"no"}', OCI, DataLoss, "another form"),
        (b'{"schemaVersion":1,"fsLayers":[]}', "", Unsupported, "schema 1"),
        (
            b"{}",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            Unsupported,
            "schema 1",
        ),
        (b'{"blobs":[]}', "application/vnd.example.thing", Unsupported, "not an image"),
    ],
)
def test_what_is_no_image_is_refused(
    data: bytes, content_type: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        read_manifest(REFERENCE, data, content_type=content_type, digest_header="")


def test_httpx_is_not_imported_with_the_driver() -> None:
    """A daemon that pulls nothing does not pay for it."""
    import subprocess
    import sys

    code = (
        "import sys, linkspan.plugins.distribution_registry.driver;sys.exit('httpx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert httpx is not None
