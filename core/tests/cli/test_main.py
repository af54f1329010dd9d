"""The command line as a whole: what is typed wrong, exit statuses, help."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from linkspan.core.cli import quick
from linkspan.core.cli.command import Command, load
from linkspan.core.cli.root import cli
from linkspan.core.cli.session import Session
from linkspan.core.cli.table import ROWS

BANNED = (
    "attrs",
    "attr",
    "cattrs",
    "h11",
    "trio",
    "yaml",
    "stevedore",
    "rich",
    "importlib.metadata",
)
BANNED_FOR_PLAIN_CALLS = (
    *BANNED,
    "click",
    "inspect",
    "uuid",
    "datetime",
    "pathlib",
    "urllib",
    "difflib",
    "typing",
    "re",
    "json",
    "socket",
    "enum",
    "functools",
    "contextlib",
    "collections",
)


def test_an_unknown_command_is_shown_with_the_nearest(linkspan: Any) -> None:
    result = linkspan("pss", "-f", "x")
    assert result == (
        2,
        "",
        "error[LS0002]: `linkspan` has no command pss\n"
        "  |\n"
        "  | linkspan pss -f x\n"
        "  |          ^^^\n"
        "  = help: did you mean `ps`?\n",
    )


def test_an_unknown_verb_is_reported_before_its_options(linkspan: Any) -> None:
    result = linkspan("service", "scael", "--bogus")
    assert result.err.startswith("error[LS0002]: `linkspan service` has no command scael\n")
    assert "did you mean `scale`?" in result.err


def test_an_unknown_option_is_shown_with_the_nearest(linkspan: Any) -> None:
    result = linkspan("run", "--nam", "x", "alpine")
    assert result == (
        125,  # 2 may be the program's own
        "",
        "error[LS0003]: `linkspan run` has no option --nam\n"
        "  |\n"
        "  | linkspan run --nam x alpine\n"
        "  |              ^^^^^\n"
        "  = help: did you mean `--name`?\n",
    )


def test_long_options_cannot_be_abbreviated(linkspan: Any) -> None:
    assert linkspan("ps", "--al").status == 2


def test_a_missing_argument_names_the_help(linkspan: Any) -> None:
    result = linkspan("stop")
    assert result.status == 2
    assert result.err == (
        "error[LS0004]: missing argument 'CONTAINERS...'\n  = help: linkspan stop --help\n"
    )


def test_no_daemon_is_exit_status_69_with_its_cause(linkspan: Any) -> None:
    result = linkspan("ps")
    assert result.status == 69
    assert result.err.startswith("error[LS0101]: no daemon answers at unix://")
    assert "= cause: there is no such socket\n" in result.err
    assert "= help: linkspan daemon start\n" in result.err


def test_a_refusal_of_the_daemon_is_exit_status_1(linkspan: Any, fake: Any) -> None:
    fake.on("DELETE", "/containers/web", {"message": "it runs", "help": "linkspan rm -f web"}, 409)
    with fake.running():
        result = linkspan("rm", "web")
    assert result == (1, "", "error[LS0102]: it runs\n  = help: linkspan rm -f web\n")


def test_a_fault_of_our_own_shows_no_traceback(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/containers/json", {"not": "a list"})
    with fake.running():
        result = linkspan("ps")
    assert result.status == 1
    assert result.err.startswith("error[LS0001]: ")
    assert "Traceback" not in result.err


def test_a_file_that_cannot_be_used_is_no_fault_of_our_own(
    linkspan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/proc/nosuch")
    result = linkspan("context", "create", "away", "--docker", "host=unix:///x")
    assert result == (1, "", "error: cannot use '/proc/nosuch': No such file or directory\n")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "file" / "x"))
    result = linkspan("context", "create", "away", "--docker", "host=unix:///x")
    assert result.status == 1
    assert result.err.endswith(": Not a directory\n")


def test_a_folder_that_is_gone_is_no_fault_of_our_own(
    linkspan: Any, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with fake.running():
        result = linkspan("run", "-v", "./x:/x", "busybox")
    said = "error: the folder that this was started in does not exist any more\n"
    assert result == (1, "", said)


def test_global_options_may_stand_before_and_after_the_command(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/containers/json", [])
    with fake.running():
        assert linkspan("--format", "json", "ps").out == "[]\n"
        assert linkspan("ps", "--format", "json").out == "[]\n"
        assert linkspan("--host", fake.url, "ps", "-q").out == ""


def test_without_words_the_overview_is_shown(linkspan: Any) -> None:
    result = linkspan()
    assert result.status == 0
    assert "Containers" in result.out
    assert len(result.out.splitlines()) <= 40


def test_a_group_without_a_verb_shows_its_verbs(linkspan: Any) -> None:
    result = linkspan("service")
    assert result.status == 2
    assert "rollback" in result.out


def test_version_as_an_option(linkspan: Any) -> None:
    assert linkspan("--version").out.startswith("linkspan ")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.words)
def test_every_row_of_the_table_is_a_command_with_examples(row: Any, linkspan: Any) -> None:
    found = load(row.run)
    assert isinstance(found, Command)
    assert row.summary
    assert found.examples
    assert all(e.startswith(("linkspan ", "eval ")) for e in found.examples)
    result = linkspan(*row.words.split(), "--help")
    assert result.status == 0
    assert result.out.index("Examples:") < result.out.index("And everywhere:")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.words)
def test_every_example_can_be_parsed(row: Any) -> None:
    import shlex

    found = load(row.run)
    for example in found.examples:  # type: ignore[attr-defined]
        command_line = re.split(r" [<>|] | {8}", example)[0]
        if not command_line.startswith("linkspan ") or "$(" in command_line:
            continue
        words = shlex.split(command_line)[1:]
        context = cli.make_context("linkspan", words, resilient_parsing=False)
        command: click.Command = cli
        rest = [*context._protected_args, *context.args]
        while isinstance(command, click.Group):
            name, sub, rest = command.resolve_command(context, rest)
            assert sub is not None, example
            context = sub.make_context(name, rest, parent=context)
            command, rest = sub, [*context._protected_args, *context.args]


def imported(*words: str) -> set[str]:
    return imported_by("-m", "linkspan.core.cli", *words)


def imported_by(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [ln for ln in done.stderr.splitlines() if ln.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize(
    "words", [["ps"], ["--help"], ["ps", "--help"], ["psx"], ["ps", "--bogus"]]
)
def test_short_calls_import_nothing_heavy(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, words: list[str]
) -> None:
    monkeypatch.setenv("LINKSPAN_HOST", fake.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake.on("GET", "/containers/json", [])
    with fake.running():
        imported("--help")  # fills the cache of plugins' commands
        modules = imported(*words)
    assert "linkspan.core.cli.main" in modules
    heavy = {m for m in modules for b in BANNED if m == b or m.startswith(f"{b}.")}
    assert heavy == set()


@pytest.mark.parametrize("words", [["ps"], ["ps", "-aq"], ["images"], ["container", "ls", "-a"]])
def test_a_plain_list_is_shown_without_click(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, words: list[str]
) -> None:
    monkeypatch.setenv("LINKSPAN_HOST", fake.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    container = {"Id": "a" * 64, "Names": ["/x"], "State": "running", "Created": 1, "Ports": []}
    fake.on("GET", "/containers/json", [container])
    fake.on("GET", "/images/json", [{"Id": "sha256:" + "b" * 64, "Created": 1, "Size": 1}])
    with fake.running():
        before = imported_by("-c", "pass")
        # As the installed script does; ``-m`` would bring modules of its own.
        start = "import sys; from linkspan.core.cli.main import main; main()"
        modules = imported_by("-c", start, *words) - before
    assert "linkspan.core.cli.main" in modules
    heavy = {m for m in modules for b in BANNED_FOR_PLAIN_CALLS if m == b or m.startswith(f"{b}.")}
    assert heavy == set()


PLAIN = [
    ["ps"],
    ["ps", "-aq"],
    ["ps", "--all", "--no-trunc", "-s"],
    ["ps", "-n", "3", "-f", "label=a", "--filter=status=exited"],
    ["ps", "-l", "--format", "{{.Names}}"],
    ["container", "ls", "-a", "--format=json"],
    ["images"],
    ["images", "--digests", "--no-trunc"],
    ["image", "ls", "-q"],
    ["--format", "{{.Names}}", "ps", "-a"],
    ["-q", "container", "ls"],
    ["--config", "/absent.toml", "ps"],
]


@pytest.mark.parametrize("words", PLAIN, ids=" ".join)
def test_the_short_path_shows_what_click_would(
    linkspan: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    container = {"Id": "a" * 64, "Names": ["/x"], "State": "running", "Created": 1, "Ports": []}
    image = {"Id": "sha256:" + "b" * 64, "RepoTags": ["a:1"], "Created": 1, "Size": 1}
    fake.on("GET", "/containers/json", [container])
    fake.on("GET", "/images/json", [image])
    assert quick.find(words, Session()) is not None
    with fake.running():
        short = linkspan(*words)
        with monkeypatch.context() as patch:
            patch.setattr("linkspan.core.cli.quick.find", lambda *_: None)
            full = linkspan(*words)
    assert short == full
    assert short.status == 0
    first, second = fake.requests
    assert (first.path, first.query) == (second.path, second.query)


@pytest.mark.parametrize(
    "words",
    [
        ["ps", "--help"],
        ["ps", "--al"],
        ["ps", "--all=1"],
        ["ps", "x"],
        ["ps", "-n"],
        ["ps", "-nx"],
        ["ps", "-n", "many"],
        ["ps", "-az"],
        ["ps", "-"],
        ["ps", "--"],
        ["images", "alpine"],
        ["build"],
        ["build", "a", "b"],
        ["build", "-m", "1g", "a"],
        ["build", "-ta", "b"],
        ["build", "-"],
        ["daemon", "run", "-l", "loud"],
        ["daemon", "run", "--root", "/srv"],
        ["container"],
        ["run", "ps"],
        ["--host"],
        ["--verbose", "ps"],
        ["--host", "ps"],
        [],
    ],
    ids=" ".join,
)
def test_words_that_are_not_plain_are_left_to_click(words: list[str]) -> None:
    session = Session()
    assert quick.find(words, session) is None
    assert vars(session) == vars(Session())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-H", "unix:///a", "--host=tcp://b:1", "-l", "debug", "--data-root", "/d"],
        ["--use", "runtime=oci", "--use=network=bridge", "--insecure-registry", "a:1"],
        [
            "--tlsverify",
            "--tlscacert",
            "ca",
            "--tlscert",
            "c",
            "--tlskey",
            "k",
            "--bip=10.0.0.1/24",
        ],
    ],
    ids=" ".join,
)
def test_a_plain_daemon_run_is_what_click_would_do(
    linkspan: Any, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    runs: list[Any] = []
    monkeypatch.setattr("linkspan.core.daemon.main.run_daemon", lambda *said: runs.append(said))
    monkeypatch.setattr("gc.disable", lambda: None)
    call = ["--config", "/absent.toml", "daemon", "run", *words]
    assert quick.find(call, Session()) is not None
    linkspan(*call)
    monkeypatch.setattr("linkspan.core.cli.quick.find", lambda *_: None)
    linkspan(*call)
    short, full = runs
    assert short == full
    assert short[0] == ["/absent.toml"]


def test_a_plain_build_needs_no_click(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LINKSPAN_HOST", fake.url)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    answer = {"aux": {"ID": "sha256:" + "a" * 64}}
    fake.on("POST", "/linkspan/v1/build", lambda _r, c: c.stream(answer))
    with fake.running():
        modules = imported("build", "-t", "x", str(tmp_path))
    assert "linkspan.core.cli.build_view" in modules
    assert modules.isdisjoint({"click", "inspect", "typing", "uuid", "datetime"})


@pytest.mark.parametrize(
    "more",
    [[], ["--no-cache", "--build-arg", "A=1", "--target", "t"], ["--label=a=b", "-q"]],
    ids=" ".join,
)
def test_a_plain_build_is_what_click_would_do(
    linkspan: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: list[str]
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    answer = {"aux": {"ID": "sha256:" + "a" * 64}}
    fake.on("POST", "/linkspan/v1/build", lambda _r, c: c.stream(answer))
    words = ["build", "-t", "x", *more, str(tmp_path)]
    assert quick.find(words, Session()) is not None
    with fake.running():
        short = linkspan(*words)
        with monkeypatch.context() as patch:
            patch.setattr("linkspan.core.cli.quick.find", lambda *_: None)
            full = linkspan(*words)
    assert short.status == full.status == 0
    assert "aaaaaaaaaaaa" in short.out
    assert "aaaaaaaaaaaa" in full.out
    first, second = fake.requests
    assert (first.path, first.query) == (second.path, second.query)


def test_a_reader_that_leaves_is_no_error(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.on("GET", "/containers/json", [{"Id": "a" * 64, "Names": ["/x"]}] * 5000)
    monkeypatch.setenv("LINKSPAN_HOST", fake.url)
    reading, writing = os.pipe()
    os.close(reading)
    with fake.running():
        done = subprocess.run(
            [sys.executable, "-m", "linkspan.core.cli", "ps"],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
