"""Runs the command line in this process, against a fake daemon."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from linkspan.core.cli.main import run as run_words


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


class _Capture(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def docker_config(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The ``config.json`` of the docker CLI, which is not there yet; never this machine's."""
    folder = tmp_path_factory.mktemp("docker")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder / "config.json"


@pytest.fixture
def linkspan(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Run ``linkspan WORDS…`` with its output going to pipes."""
    for name in (
        "NO_COLOR",
        "FORCE_COLOR",
        "CI",
        "LINKSPAN_HOST",
        "LINKSPAN_CONFIG",
        "LINKSPAN_ASCII",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("LINKSPAN_HOST", fake.url)

    def become(program: str, *_: object) -> None:
        raise AssertionError(f"the tests would have become {program}")

    monkeypatch.setattr("os.execve", become)

    def run(*words: str) -> Result:
        out, err = _Capture(), _Capture()
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", err)
            status = run_words(list(words))
        return Result(status, out.text(), err.text())

    return run
