"""Every flag of the docker CLI is used in a transcript, or named in ``unrecorded.json`` with the reason.

``transcripts/flags.json`` lists the flags, as the CLI's own help does.
"""

import json
from pathlib import Path

import pytest
from daemon_harness import docker_flags, transcripts

HERE = Path(__file__).parent / "transcripts"
COMMANDS = docker_flags.read(HERE / "flags.json")
CLIENT: str = json.loads((HERE / "flags.json").read_text())["client"]
UNRECORDED: dict[str, dict[str, str]] = json.loads((HERE / "unrecorded.json").read_text())
EVERY = {(command.name, flag) for command in COMMANDS for flag in command.flags}
USAGE = docker_flags.Usage(COMMANDS)


def recorded() -> set[tuple[str, str]]:
    """Command and flag of all that transcripts use."""
    scripts = [path for path in HERE.glob("*.txt") if path.with_suffix(".json").exists()]
    return {
        used for path in scripts for line in transcripts.commands(path) for used in USAGE.of(line)
    }


def test_every_flag_of_dockers_commands_is_in_a_transcript_or_named_with_a_reason() -> None:
    named = {(command, flag) for command, flags in UNRECORDED.items() for flag in flags}
    assert sorted(EVERY - recorded() - named) == []


def test_a_flag_that_is_named_with_a_reason_is_one_and_in_no_transcript() -> None:
    used = recorded()
    for command, flags in UNRECORDED.items():
        for flag, reason in flags.items():
            assert (command, flag) in EVERY
            assert (command, flag) not in used
            assert reason


def test_the_flags_of_a_line_are_found() -> None:
    line = "B=$(docker ps -aq --filter x=--all); docker run -it --rm -ea=b --name c i ls -l"
    assert set(USAGE.of(line)) == {
        ("container ls", "--all"),
        ("container ls", "--quiet"),
        ("container ls", "--filter"),
        *(("container run", flag) for flag in ("--interactive", "--tty", "--rm")),
        *(("container run", flag) for flag in ("--env", "--name")),
    }


def test_the_commands_of_a_line_in_quotes_are_found_and_brackets_passed_over() -> None:
    line = 'test "$(docker images -q | wc -l)" = 1 && docker rmi $(docker ps -aq) -f > x'
    assert set(USAGE.of(line)) == {
        ("image ls", "--quiet"),
        ("container ls", "--all"),
        ("container ls", "--quiet"),
        ("image rm", "--force"),
    }


@pytest.mark.system
def test_the_list_of_flags_is_what_this_cli_says() -> None:
    version = transcripts.client_version_text()
    if version != CLIENT:
        pytest.skip(f"the list is of docker {CLIENT}, and this is {version}")
    asked = sorted(docker_flags.ask(), key=lambda command: command.name)
    assert [command.name for command in asked] == [command.name for command in COMMANDS]
    assert asked == COMMANDS
