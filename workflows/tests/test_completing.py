"""A shell offers what there is: pipelines, runs, jobs, steps, inputs, formats."""

import pytest

from linkspan.core.cli.root import cli
from linkspan.workflows.commands import completing

PIPELINE = """
linkspan: v1
inputs:
  level: {type: choice, options: [low, high], default: low}
  dry: {type: bool, default: false}
  words: {type: string, default: ""}
defaults: {image: alpine}
jobs:
  build: {steps: [{id: make, run: make}]}
  test:
    steps:
      - parallel: [{id: unit, run: a}, {id: style, run: b}]
      - run: c
"""

RUN = {"jobs": [{"id": "build", "steps": [{"id": "make"}]}]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / ".linkspan").mkdir()
    (tmp_path / ".linkspan" / "release.yaml").write_text(PIPELINE)
    (tmp_path / ".linkspan" / "nightly.yaml").write_text("jobs: [")
    monkeypatch.chdir(tmp_path)


def offered(line: str) -> list[str]:
    """What may follow a command line; its last word is what is typed of it."""
    from click.shell_completion import ShellComplete

    *words, incomplete = line.split(" ")
    found = ShellComplete(cli, {}, "linkspan", "_X").get_completions(words, incomplete)
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in found]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("workflow run ", ["nightly", "release"]),
        ("workflow plan r", ["release"]),
        ("workflow graph ./other", ["<file>"]),
        ("workflow watch n", ["nightly"]),
        ("workflow lint release n", ["nightly"]),
        ("workflow run release --only ", ["build", "test"]),
        ("workflow run release --step test/", ["test/unit", "test/style", "test/run-2"]),
        ("workflow run release --break before:b", ["before:build/make"]),
        ("workflow run release --break on", ["on-failure"]),
        ("workflow run release --input ", ["level=", "dry=", "words="]),
        ("workflow run release --input level=", ["level=low", "level=high"]),
        ("workflow plan release --input dry=t", ["dry=true"]),
        ("workflow run release --input words=", []),
        ("workflow run nightly --step ", []),
        ("workflow run nowhere --input ", []),
        ("workflow graph release --format m", ["mermaid"]),
        ("workflow lint --format s", ["sarif"]),
        ("workflow ls --format ", ["table", "wide", "json", "jsonl", "yaml"]),
    ],
)
def test_what_stands_in_the_folder_is_offered(folder, line, values):
    assert offered(line) == values


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("workflow logs 7f3a ", ["build", "build/make"]),
        ("workflow break 7f3a build/", ["build/make"]),
        ("workflow approve last b", ["build", "build/make"]),
        ("workflow rerun 7f3a --from ", ["build/make"]),
        ("workflow resume 7f3a --break after", ["after:build/make"]),
        ("workflow serve --rm s", ["shop"]),
    ],
)
def test_what_the_daemon_knows_is_offered(monkeypatch, line, values):
    answers = {
        "/linkspan/v1/runs/7f3a": RUN,
        "/linkspan/v1/runs/last": RUN,
        "/linkspan/v1/served": {"pipelines": [{"name": "shop/a"}, {"name": "shop/b"}]},
    }
    monkeypatch.setattr(completing, "asked", lambda _ctx, path: answers[path])
    assert offered(line) == values


def test_without_a_daemon_nothing_is_offered_and_nothing_said(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("LINKSPAN_HOST", f"unix://{tmp_path}/nobody.sock")
    for line in ("workflow logs 7f3a ", "workflow show ", "workflow serve --rm "):
        assert offered(line) == []
    assert capfd.readouterr() == ("", "")
