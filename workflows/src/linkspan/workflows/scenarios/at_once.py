"""Scenarios on all processors: each process plays its part of them, one after the other."""

import os
import pickle
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final, NoReturn, TypeAlias

from linkspan.sdk.errors import LinkspanError
from linkspan.workflows.scenarios.judging import Mismatch
from linkspan.workflows.scenarios.model import Scenario, ScenarioFile
from linkspan.workflows.scenarios.playing import Played, play
from linkspan.workflows.verbs import Verbs

_WORTH: Final = 5
"""Scenarios for which a process is worth its start."""
_MOST: Final = 8
"""Processes; each has the memory of a whole runner."""

Chosen: TypeAlias = Sequence[tuple[ScenarioFile, Scenario]]
_Said: TypeAlias = tuple[Sequence[Mismatch], float, str]
"""Mismatches, seconds, and the traceback of a fault of ours."""


def play_all(chosen: Chosen, verbs: Verbs, folder: Path) -> Iterator[Played]:
    """Play scenarios; what became of them, in their order, of each as soon as it is known.

    Args:
        chosen: Which.
        verbs: What the installed plugins answer.
        folder: Gets a folder for each, removed afterwards.

    Raises:
        LinkspanError: A process that played some of them was killed; code ``killed``.
    """
    count = min(len(os.sched_getaffinity(0)), _MOST, len(chosen) // _WORTH)
    if count < 2:
        for file, scenario in chosen:
            yield play(file, scenario, verbs, folder)
        return
    with ExitStack() as stack:
        parts = [
            stack.enter_context(_elsewhere(chosen[number::count], verbs, folder))
            for number in range(count)
        ]
        for index, (_, scenario) in enumerate(chosen):
            mismatches, seconds = _next(parts[index % count])
            yield Played(scenario=scenario, mismatches=mismatches, seconds=seconds)


@contextmanager
def _elsewhere(chosen: Chosen, verbs: Verbs, folder: Path) -> Iterator[IO[bytes]]:
    """A process that plays scenarios, and what it says about them."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        _play_and_exit(chosen, verbs, folder, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as said:
            yield said
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _play_and_exit(chosen: Chosen, verbs: Verbs, folder: Path, writing: int) -> NoReturn:
    """Does not return, whatever happens: the caller's work is that of another process."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with os.fdopen(writing, "wb") as out:
            for file, scenario in chosen:
                try:
                    played = play(file, scenario, verbs, folder)
                    said: _Said = (played.mismatches, played.seconds, "")
                except Exception:  # noqa: BLE001 - raised to who waits
                    said = ((), 0.0, traceback.format_exc())
                # Nobody reads any more when the other process has died: this one ends, too.
                pickle.dump(said, out)
                out.flush()
        status = 0
    finally:
        os._exit(status)


def _next(said: IO[bytes]) -> tuple[Sequence[Mismatch], float]:
    try:
        found: _Said = pickle.load(said)  # noqa: S301 - written by a process of our own
    except (EOFError, pickle.UnpicklingError):
        raise LinkspanError(
            "a process that played scenarios was killed",
            code="killed",
            help="is there memory left?",
        ) from None
    mismatches, seconds, trace = found
    if trace:
        raise RuntimeError(trace)
    return mismatches, seconds
