"""What the docker CLI prints against us is what it printed against a real dockerd, command by command.

The transcripts lie in ``transcripts/``; its README says how they were recorded. A difference that is meant
stands in ``differences.json`` with its reason.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from daemon_harness import transcripts
from daemon_harness.daemon import Daemon

HERE = Path(__file__).parent / "transcripts"
NAMES = sorted(path.stem for path in HERE.glob("*.txt"))
DIFFERENCES: dict[str, dict[str, dict[str, Any]]] = json.loads(
    (HERE / "differences.json").read_text()
)

FIELDS = ("status", "out", "err")

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def is_like(wanted: str | int, found: str | int) -> bool:
    """Whether a field is what was wanted: a value, or a pattern after ``re:``."""
    if isinstance(wanted, str) and wanted.startswith("re:"):
        return re.fullmatch(wanted.removeprefix("re:"), str(found), re.DOTALL) is not None
    return wanted == found


def compared(
    recorded: transcripts.Entry, found: transcripts.Entry, meant: dict[str, Any]
) -> list[str]:
    """What differs from Docker, or from what is meant to be there instead, in words."""
    lines = []
    for field in FIELDS:
        wanted, ours = meant.get(field, getattr(recorded, field)), getattr(found, field)
        if not is_like(wanted, ours):
            lines.append(f"  {field}: wanted   {wanted!r}\n  {field}: linkspan {ours!r}")
    return [f"$ {recorded.command}", *lines] if lines else []


@pytest.mark.skipif(
    transcripts.client_version() != transcripts.CLI_VERSION,
    reason="recorded with another docker CLI",
)
@pytest.mark.parametrize("name", NAMES)
def test_the_docker_cli_prints_what_it_prints_with_docker(
    new_daemon: Callable[[], Daemon], tmp_path: Path, name: str
) -> None:
    daemon = new_daemon()
    daemon.options = transcripts.daemon_options(HERE / f"{name}.txt")
    daemon.start()
    daemon.build_busybox()
    environment = {"DOCKER_HOST": daemon.url, "DOCKER_CONFIG": str(tmp_path / "docker")}
    folder = tmp_path / "folder"
    folder.mkdir()
    wrong: list[str] = []
    meant = DIFFERENCES.get(name, {})
    for recorded in transcripts.read(HERE / f"{name}.json"):
        found = transcripts.run(recorded.command, folder, environment)
        wrong += compared(recorded, found, meant.get(recorded.command, {}))
    assert not wrong, "\n".join(wrong)


def test_every_meant_difference_is_of_a_command_there_is() -> None:
    for name, meant in DIFFERENCES.items():
        recorded = {entry.command: entry for entry in transcripts.read(HERE / f"{name}.json")}
        assert set(meant) <= set(recorded)
        for command, difference in meant.items():
            assert difference["reason"]
            theirs = [getattr(recorded[command], field) for field in FIELDS]
            assert [difference[field] for field in FIELDS] != theirs, command


def test_what_differs_from_run_to_run_is_taken_out() -> None:
    entry = transcripts.Entry(command="", status=0, out="", err="")
    assert attrs.evolve(entry, out=transcripts.normal("Up 3 seconds ago")).out == "Up <age>"
    assert transcripts.normal("a" * 64) == "<id>"
    assert transcripts.normal("NAME     ID") == "NAME  ID"
