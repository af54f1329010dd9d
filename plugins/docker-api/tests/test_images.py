import base64
import json
from urllib.parse import quote

import pytest

from linkspan.plugins.docker_api.images import join_tag
from linkspan.plugins.docker_api.streams import encode_progress, progress_bar
from linkspan.sdk.errors import InvalidArgument, Unavailable
from linkspan.sdk.progress import Progress
from linkspan.sdk.testing.fakes.engine_images import make_image
from linkspan.sdk.testing.fakes.snapshots import FakeSnapshots, FakeStore


async def test_a_pull_is_told_in_dockers_words(api) -> None:
    api.engine.images.remote["tool:2"] = make_image("tool:2")
    reply = await api.ask("POST", "/images/create?fromImage=tool&tag=2")
    assert reply.lines[0] == {"status": "Pulling from library/tool", "id": "2"}
    assert {
        "status": "Pull complete",
        "progressDetail": {},
        "id": reply.lines[1]["id"],
    } in reply.lines
    assert reply.lines[-1] == {"status": "Status: Downloaded newer image for tool:2"}
    assert reply.body.endswith(b"\r\n")
    again = await api.ask("POST", "/images/create?fromImage=tool:2")
    assert again.lines[-1] == {"status": "Status: Image is up to date for tool:2"}


async def test_a_pull_of_nothing_is_404_and_not_a_line(api) -> None:
    reply = await api.ask("POST", "/images/create?fromImage=no&tag=1")
    assert reply.status == 404
    assert reply.message.startswith("manifest for no:1 not found")


async def test_a_registry_that_is_down_is_500(api) -> None:
    api.engine.images.failure = Unavailable("cannot reach registry.test: connection refused")
    reply = await api.ask("POST", "/images/create?fromImage=registry.test/no&tag=1")
    assert (reply.status, reply.message) == (500, "cannot reach registry.test: connection refused")


async def test_a_push_that_fails_half_way_ends_with_an_error_line(api) -> None:
    api.engine.images.failure = Unavailable("connection reset")
    reply = await api.ask("POST", "/images/app/push?tag=1")
    assert reply.status == 200
    assert reply.lines[0]["status"] == "The push refers to repository [docker.io/library/app]"
    assert reply.lines[-1] == {
        "errorDetail": {"message": "connection reset"},
        "error": "connection reset",
    }


async def test_a_push_ends_with_its_digest(api) -> None:
    reply = await api.ask("POST", "/images/app/push?tag=1")
    assert reply.lines[-2]["status"].startswith("1: digest: sha256:")
    assert reply.lines[-1]["aux"]["Tag"] == "1"
    await api.ask("POST", "/images/app:1/tag?repo=app&tag=2")
    everything = await api.ask("POST", "/images/app/push")
    assert [line["aux"]["Tag"] for line in everything.lines if "aux" in line] == ["1", "2"]


async def test_credentials_are_read_from_the_header(api) -> None:
    good = base64.urlsafe_b64encode(b'{"username":"a","password":"b"}').decode().rstrip("=")
    assert (
        await api.ask("POST", "/images/app/push?tag=1", None, **{"X-Registry-Auth": good})
    ).status == 200
    bad = await api.ask("POST", "/images/app/push?tag=1", None, **{"X-Registry-Auth": "%%"})
    assert bad.status == 400
    assert "X-Registry-Auth" in bad.message


async def test_images_are_listed_and_filtered(api) -> None:
    api.engine.images.put(make_image("other/tool:1", command=("x",), labels={"a": "b"}))
    api.engine.images.put(make_image(command=("dangling",)))

    async def names(query: str) -> list[list[str]]:
        return sorted(i["RepoTags"] for i in (await api.ask("GET", f"/images/json{query}")).json)

    assert await names("") == [[], ["app:1"], ["other/tool:1"]]
    assert await names('?filters={"reference":["other/*"]}') == [["other/tool:1"]]
    assert await names('?filters={"reference":["app:1"]}') == [["app:1"]]
    assert await names('?filters={"label":["a=b"]}') == [["other/tool:1"]]
    assert await names('?filters={"dangling":["true"]}') == [[]]
    assert (await api.ask("GET", '/images/json?filters={"x":["1"]}')).status == 400
    old = (await api.ask("GET", "/v1.42/images/json")).json
    assert {"<none>:<none>"} < {i["RepoTags"][0] for i in old}


async def test_the_oldest_clients_ask_for_a_name_with_a_parameter_of_its_own(api) -> None:
    api.engine.images.put(make_image("other/tool:1", command=("x",)))

    async def names(version: str, word: str) -> list[list[str]]:
        found = (await api.ask("GET", f"/v{version}/images/json?filter={word}")).json
        return sorted(image["RepoTags"] for image in found)

    assert await names("1.24", "app") == [["app:1"]]
    assert await names("1.24", "nosuch") == []
    assert await names("1.41", "app") == [["app:1"], ["other/tool:1"]], "as Docker since then"


async def test_inspect_and_history(api) -> None:
    seen = (await api.ask("GET", "/images/app:1/json")).json
    assert seen["RepoTags"] == ["app:1"]
    assert seen["Config"]["Cmd"] == ["sleep", "1000"]
    assert seen["RootFS"]["Type"] == "layers"
    assert "VirtualSize" not in seen
    assert (await api.ask("GET", "/images/app:2/json")).message == "No such image: app:2"


async def test_tags_and_removal(api) -> None:
    assert (await api.ask("POST", "/images/app:1/tag?repo=host:5000/team/app&tag=9")).status == 201
    assert (await api.ask("DELETE", "/images/app:1")).json == [{"Untagged": "app:1"}]
    gone = (await api.ask("DELETE", "/images/host:5000/team/app:9")).json
    assert gone[0] == {"Untagged": "host:5000/team/app:9"}
    assert gone[1]["Deleted"].startswith("sha256:")


async def test_an_image_in_use_is_a_conflict(api) -> None:
    await api.create()
    assert (await api.ask("DELETE", "/images/app:1")).status == 409


async def test_prune_takes_dangling_images_or_all_unused_ones(api) -> None:
    api.host.drivers["snapshots", ""] = FakeSnapshots(FakeStore())
    dangling = api.engine.images.put(make_image(command=("dangling",)))
    api.engine.images.put(make_image("spare:1", command=("spare",)))
    await api.create()
    reply = (await api.ask("POST", "/images/prune")).json
    assert reply == {"ImagesDeleted": [{"Deleted": dangling.id}], "SpaceReclaimed": 0}
    reply = (await api.ask("POST", '/images/prune?filters={"dangling":["false"]}')).json
    assert reply["ImagesDeleted"][0] == {"Untagged": "spare:1"}
    assert (await api.ask("GET", "/images/json")).json[0]["RepoTags"] == ["app:1"]


@pytest.mark.parametrize(
    ("name", "tag", "joined"),
    [
        ("app", "1", "app:1"),
        ("app:1", "2", "app:2"),
        ("h:5000/app", "1", "h:5000/app:1"),
        ("app", "sha256:" + "0" * 64, "app@sha256:" + "0" * 64),
        ("app", "", "app"),
    ],
)
def test_name_and_tag(name, tag, joined) -> None:
    assert join_tag(name, tag) == joined


def test_a_name_is_needed() -> None:
    with pytest.raises(InvalidArgument, match="invalid reference format"):
        join_tag("", "1")


def test_the_bar_of_old_clients() -> None:
    assert progress_bar(50, 100) == "[" + "=" * 25 + ">" + " " * 25 + "]      50B/100B"
    assert progress_bar(100, 100).startswith("[" + "=" * 50 + ">]")
    assert progress_bar(2_000_000, 0) == "     2MB"
    assert progress_bar(5, 4) == "      5B"


def test_a_status_with_a_fact_is_two_lines() -> None:
    data = encode_progress(Progress(status="Status: done", aux={"ID": "sha256:1"}))
    assert [json.loads(line) for line in data.splitlines()] == [
        {"status": "Status: done"},
        {"aux": {"ID": "sha256:1"}},
    ]


async def test_facts_of_another_platform_are_not_given(api) -> None:
    api.engine.images.remote["tool:2"] = make_image("tool:2")
    await api.ask("POST", "/images/create?fromImage=tool&tag=2")
    for what in ("json", "history"):
        other = quote('{"os": "linux", "architecture": "riscv64"}')
        reply = await api.ask("GET", f"/images/tool:2/{what}?platform={other}")
        assert reply.status == 404
        assert reply.message.endswith("does not match the specified platform (linux/riscv64)")
        assert (await api.ask("GET", f"/images/tool:2/{what}?platform=a*")).status == 400
    assert (await api.ask("GET", "/images/tool:2/json")).status == 200


async def test_what_is_of_another_platform_is_neither_pushed_nor_removed(api) -> None:
    api.engine.images.remote["tool:2"] = make_image("tool:2")
    await api.ask("POST", "/images/create?fromImage=tool&tag=2")
    other = quote('{"os": "linux", "architecture": "riscv64"}')
    mine = quote('{"os": "linux", "architecture": "amd64"}')
    reply = await api.ask("POST", f"/images/tool/push?tag=2&platform={other}")
    assert "does not match the specified platform (linux/riscv64)" in reply.body.decode()
    reply = await api.ask("DELETE", f"/images/tool:2?platforms={other}")
    assert reply.status == 404
    reply = await api.ask("DELETE", f"/images/tool:2?platforms={mine}&platforms={other}")
    assert reply.status == 400
    assert (await api.ask("DELETE", "/images/tool:2?platforms={")).status == 400
    reply = await api.ask("POST", f"/images/tool/push?tag=2&platform={mine}")
    assert b"platform" not in reply.body
    assert (await api.ask("DELETE", f"/images/tool:2?platforms={mine}")).status == 200


async def test_inspect_has_manifests_if_they_are_asked_for(api) -> None:
    api.engine.images.remote["tool:2"] = make_image("tool:2")
    await api.ask("POST", "/images/create?fromImage=tool&tag=2")
    assert "Manifests" not in (await api.ask("GET", "/images/tool:2/json")).json
    seen = (await api.ask("GET", "/images/tool:2/json?manifests=1")).json
    assert all(manifest["Kind"] == "image" for manifest in seen["Manifests"])
    assert "Manifests" not in (await api.ask("GET", "/v1.47/images/tool:2/json?manifests=1")).json
    reply = await api.ask("GET", "/images/tool:2/json?manifests=1&platform=linux/amd64")
    assert reply.status == 400


@pytest.mark.parametrize(
    "config",
    [
        {"Healthcheck": {"Test": ["CMD", "true"], "Retries": [[]]}},
        {"Env": "A=1"},
        {"Labels": {"a": 1}},
        {"ExposedPorts": ["80"]},
        [],
    ],
)
async def test_a_commit_with_a_config_of_wrong_types_is_400(api, config) -> None:
    reply = await api.ask("POST", "/commit?container=web", config)
    assert (reply.status, "must be" in reply.message) == (400, True)
