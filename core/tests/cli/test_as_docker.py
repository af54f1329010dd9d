"""What Docker's command line takes, and click's would not."""

from typing import Any

import pytest

from linkspan.core.cli.session import Session


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (["-f=true"], {"force": "1"}),
        (["--force=1", "--volumes=false"], {"force": "1"}),
        (["--force=FALSE"], {}),
        (["-v=T", "--link=0"], {"v": "1"}),
    ],
)
def test_a_flag_may_say_true_or_false(
    fake: Any, linkspan: Any, words: list[str], query: dict[str, str]
) -> None:
    fake.on("DELETE", "/containers/web", None, 204)
    with fake.running():
        assert linkspan("rm", *words, "web") == (0, "web\n", "")
    assert fake.asked("DELETE", "/containers/web").query == query


def test_a_flag_that_can_be_switched_off_is_by_false(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/commit", {"Id": "sha256:a"}, 201)
    with fake.running():
        assert linkspan("commit", "--pause=false", "-m", "--pause=maybe", "web", "x").status == 0
    asked = fake.asked("POST", "/commit").query
    assert (asked["pause"], asked["comment"]) == ("0", "--pause=maybe")


def test_what_is_meant_for_the_program_is_left_as_it_is(fake: Any, linkspan: Any) -> None:
    fake.on("POST", "/containers/create", {"Id": "c" * 64}, 201)
    words = ["--tty=false", "--init=true", "-e", "A=1", "alpine", "sh", "--init=false", "-t=x"]
    with fake.running():
        assert linkspan("create", *words).status == 0
    body = fake.asked("POST", "/containers/create").json
    assert body["Cmd"] == ["sh", "--init=false", "-t=x"]
    assert (body["Tty"], body["HostConfig"]["Init"], body["Env"]) == (False, True, ["A=1"])


def test_a_flag_that_says_something_else_is_wrong_usage(linkspan: Any) -> None:
    result = linkspan("rm", "--force=maybe", "web")
    assert (result.status, result.out) == (2, "")
    assert "'maybe' is neither true nor false" in result.err


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["container", "list"], "/containers/json"),
        (["container", "ps"], "/containers/json"),
        (["image", "list"], "/images/json"),
        (["network", "list"], "/networks"),
        (["-D", "ps"], "/containers/json"),
    ],
)
def test_dockers_other_words_are_understood(
    fake: Any, linkspan: Any, words: list[str], path: str
) -> None:
    fake.on("GET", path, [])
    with fake.running():
        assert linkspan(*words).status == 0
    assert fake.asked("GET", path)


def test_help_shows_the_help_of_a_command(linkspan: Any) -> None:
    assert linkspan("help", "network", "create") == linkspan("network", "create", "--help")
    assert linkspan("help") == linkspan("--help")
    assert linkspan("-v") == linkspan("--version")


@pytest.mark.parametrize("words", [["rm"], ["image", "rm"]])
def test_what_is_not_there_is_no_error_by_force(fake: Any, linkspan: Any, words: list[str]) -> None:
    for path in ("/containers/absent", "/images/absent"):
        fake.on("DELETE", path, {"message": "No such thing: absent"}, 404)
    with fake.running():
        assert linkspan(*words, "absent").status == 1
        result = linkspan(*words, "-f", "absent")
    assert (result.status, result.out) == (0, "")
    assert "No such thing: absent" in result.err


def test_files_for_tls_may_stand_in_front(monkeypatch: pytest.MonkeyPatch, linkspan: Any) -> None:
    seen: list[Session] = []
    monkeypatch.setattr("linkspan.core.cli.container_list.show", lambda s, **_: seen.append(s))
    words = ["--tlsverify", "--tlscacert", "ca.pem", "--tlskey=k.pem", "-H", "tcp://h:2376", "ps"]
    assert linkspan(*words).status == 0
    tls = seen[0].address.tls
    assert tls is not None
    assert (tls.ca, tls.key, tls.verify) == ("ca.pem", "k.pem", True)
