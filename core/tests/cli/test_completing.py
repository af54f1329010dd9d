"""What a shell is told may follow, and that without a daemon it is told nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ANSWERS: dict[str, Any] = {
    "/containers/json": [{"Names": ["/web"]}, {"Names": ["/worker"]}],
    "/images/json": [{"RepoTags": ["web:1"]}, {"RepoTags": None}],
    "/volumes": {"Volumes": [{"Name": "data"}, {"Name": "dumps"}]},
    "/networks": [{"Name": "bridge"}, {"Name": "back"}],
    "/services": [{"Spec": {"Name": "wire"}}],
    "/nodes": [{"Description": {"Hostname": "demo-1"}, "Spec": {"Role": "manager"}}],
    "/secrets": [],
    "/configs": [],
}
Ask = Callable[[str], list[str]]


@pytest.fixture
def ask(linkspan: Any, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What bash is offered for a line."""

    def offered(line: str) -> list[str]:
        monkeypatch.setenv("_LINKSPAN_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        result = linkspan()
        assert (result.status, result.err) == (0, "")
        return [reply.removeprefix("plain,") for reply in result.out.split()]

    return offered


@pytest.fixture
def daemon(fake: Any) -> Any:
    for path, answer in ANSWERS.items():
        fake.on("GET", path, answer)
    with fake.running():
        yield fake


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("linkspan inspect w", ["web", "worker", "web:1", "wire"]),
        ("linkspan inspect --type image w", ["web:1"]),
        ("linkspan volume inspect d", ["data", "dumps"]),
        ("linkspan node inspect d", ["demo-1"]),
        ("linkspan run --restart un", ["unless-stopped"]),
        ("linkspan run --network b", ["bridge", "back"]),
        ("linkspan run --network container:w", ["container:web", "container:worker"]),
        ("linkspan run --pid c", ["container:"]),
        ("linkspan run -v d", ["data:", "dumps:"]),
        ("linkspan run -v /e", ["dir,/e"]),
        ("linkspan run --volumes-from wo", ["worker"]),
        ("linkspan run --cap-add NET_A", ["NET_ADMIN"]),
        ("linkspan kill -s us", ["USR1", "USR2"]),
        ("linkspan kill -s SIGKI", ["SIGKILL"]),
        ("linkspan ps --filter st", ["status="]),
        ("linkspan ps --filter status=e", ["status=exited"]),
        ("linkspan ps --filter volume=du", ["volume=dumps"]),
        ("linkspan network ls -f type=b", ["type=builtin"]),
        ("linkspan node ps -f des", ["desired-state="]),
        ("linkspan service ps -f desired-state=s", ["desired-state=shutdown"]),
        ("linkspan stack services -f mode=g", ["mode=global"]),
        ("linkspan secret ls -f n", ["name="]),
        ("linkspan search -f is-o", ["is-official="]),
        ("linkspan cp we", ["web:"]),
        ("linkspan cp ./x", ["file,./x"]),
        ("linkspan build sr", ["dir,sr"]),
        ("linkspan build -f D", ["file,D"]),
        ("linkspan build --platform linux/s", ["linux/s390x"]),
        ("linkspan load -i a", ["file,a"]),
        ("linkspan pull w", ["web:1"]),
        ("linkspan container sta", ["start", "stats"]),
    ],
)
def test_names_and_values_are_offered(daemon: Any, ask: Ask, line: str, offered: list[str]) -> None:
    assert ask(line) == offered


def test_contexts_are_offered(
    ask: Ask, linkspan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert linkspan("context", "create", "far", "--docker", "host=ssh://h").status == 0
    for line in ("linkspan --context fa", "linkspan ps --context fa", "linkspan context use fa"):
        assert ask(line) == ["far"]


@pytest.mark.parametrize("line", ["inspect w", "run --network b", "run -v d", "cp we", "rmi x"])
def test_without_a_daemon_nothing_is_said(ask: Ask, line: str) -> None:
    assert [reply for reply in ask(f"linkspan {line}") if not reply.startswith("file,")] == []
