"""What a scenario file says, with the places that failures name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

from linkspan.sdk.diagnostics import Span
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Workflow


@attrs.frozen(kw_only=True)
class Answer:
    """What a step does when it is called.

    Attributes:
        outputs: Of a verb any JSON; of a script texts.
        log: Lines that it writes.
        exit: A script's exit code.
        fails: The message of its failure; empty if it does well.
        cause: ``network``, ``timeout`` or ``oom``, as ``retry.on`` compares it; empty for others.
        takes_s: Seconds on the clock of the scenario.
        files: Written to the workspace: path → text.
        undo: Whether a verb knows its way back.
        undo_fails: The message of a failure of that way back; empty if it goes well.
        decision: Who is asked says ``approve`` or ``reject``; ``none``: nobody answers; empty: nobody is
            asked.
        applied: What a verb says of itself if the daemon died while it ran.
    """

    outputs: Mapping[str, Json] = attrs.field(factory=dict)
    log: tuple[str, ...] = ()
    exit: int = 0
    fails: str = ""
    cause: str = ""
    takes_s: float = 0.0
    files: Mapping[str, str] = attrs.field(factory=dict)
    undo: bool = True
    undo_fails: str = ""
    decision: str = ""
    applied: bool = True


@attrs.frozen(kw_only=True)
class Crash:
    """When the daemon dies: ``after`` a step's result is recorded, or ``during`` the step, when what it
    changes is changed and nothing says so."""

    when: Literal["after", "during"]
    place: str


@attrs.frozen(kw_only=True)
class Cancel:
    """Somebody stops the run while a step runs, or while it is suspended there; that step goes on until then.

    Attributes:
        kill: At once, without grace and without ``finally``.
    """

    place: str
    kill: bool = False


@attrs.frozen(kw_only=True)
class Pull:
    """What comes of pulling an image.

    Attributes:
        fails: The message of its failure; empty if it does well.
        cause: ``network`` or ``timeout``, as ``retry.on`` compares it; empty for others.
        takes_s: Seconds on the clock of the scenario.
    """

    fails: str = ""
    cause: str = ""
    takes_s: float = 0.0


@attrs.frozen(kw_only=True)
class Expectation:
    """One thing that must be so.

    Attributes:
        kind: The key below ``expect``, or below a step of it.
        place: ``JOB`` or ``JOB/STEP``; empty for the whole run.
        name: The key in a table: of ``with``, ``outputs``, ``env``.
        value: What is expected.
        span: Where it is written.
    """

    kind: str
    place: str = ""
    name: str = ""
    value: Json
    span: Span

    @property
    def words(self) -> str:
        """``deploy/roll: with.service``."""
        what = f"{self.kind}.{self.name}" if self.name else self.kind
        return f"{self.place}: {what}" if self.place else what


@attrs.frozen(kw_only=True)
class Scenario:
    """One run of a pipeline, from what its steps answer to what must come of it.

    Attributes:
        answers: ``JOB/STEP`` → what it answers the first time, the second time …; the last one stays.
        images: Name of an image → what comes of pulling it the first time, the second time …; the last one stays.
            All others can be pulled.
        crash: None if the daemon lives.
        cancel: None if nobody stops the run.
        resume: Go on with the run once, after it has ended or after the crash.
    """

    name: str
    span: Span
    inputs: Mapping[str, str] = attrs.field(factory=dict)
    secrets: Mapping[str, str] = attrs.field(factory=dict)
    git: Mapping[str, Json] = attrs.field(factory=dict)
    files: Mapping[str, str] = attrs.field(factory=dict)
    answers: Mapping[str, Sequence[Answer]] = attrs.field(factory=dict)
    images: Mapping[str, Sequence[Pull]] = attrs.field(factory=dict)
    crash: Crash | None = None
    cancel: Cancel | None = None
    resume: bool = False
    expected: Sequence[Expectation] = ()


@attrs.frozen(kw_only=True)
class ScenarioFile:
    """A file of scenarios of one pipeline."""

    file: str
    pipeline: Path
    workflow: Workflow
    scenarios: Sequence[Scenario]
