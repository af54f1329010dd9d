"""Steps of a pipeline as their drivers see them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from linkspan.sdk.values import frozen

Outputs = Mapping[str, Any]
"""JSON types only."""

RUN_LABEL: Final = "linkspan.workflow.run"
"""Label of every container, network and volume that a run has made: its id. It goes with the run."""
JOB_LABEL: Final = "linkspan.workflow.job"
STEP_LABEL: Final = "linkspan.workflow.step"


@frozen(kw_only=True)
class StepIntent:
    """What is about to happen, as the journal recorded it before it began.

    Attributes:
        run_id, job, step: Where in which run.
        attempt: From 1.
        verb: ``deploy``.
        settings: The step's ``with``, evaluated.
        undo: What the driver recorded before it acted (from ``plan``), JSON types.
        outputs: What the step gave, when it is taken back, or when it has succeeded with the same settings on
            the same sources and ``observe`` is asked whether what it did is still so; else empty.
        workspace: Folder of the pipeline's sources on the host; it need not be there if the verb's manifest
            says ``workspace = false``.
        use: Role → driver that the pipeline has chosen; for all other roles it is the daemon's choice.
        git: ``sha``, ``branch``, ``tag``, ``dirty`` of the sources, as far as they are known.
    """

    run_id: str
    job: str
    step: str
    attempt: int
    verb: str
    settings: Mapping[str, Any]
    workspace: Path
    undo: Mapping[str, Any] = attrs.field(factory=dict)
    outputs: Outputs = attrs.field(factory=dict)
    use: Mapping[str, str] = attrs.field(factory=dict)
    git: Mapping[str, Any] = attrs.field(factory=dict)


@frozen(kw_only=True)
class StepChange:
    """One thing that a step would create, change or destroy."""

    action: Literal["create", "change", "destroy", "none"]
    what: str
    detail: str = ""


@frozen(kw_only=True)
class StepPlan:
    """What a step will do; ``undo`` goes into the journal before the step acts."""

    changes: tuple[StepChange, ...] = ()
    undo: Mapping[str, Any] = attrs.field(factory=dict)


@frozen(kw_only=True)
class StepOutcome:
    """What has become of an intent: done with outputs, or not (fully) applied."""

    applied: bool
    outputs: Outputs = attrs.field(factory=dict)
    detail: str = ""


@frozen(kw_only=True)
class Question:
    """What a person is asked before a step is done.

    Attributes:
        message: The question.
        approvers: ``NAME``, ``user:NAME`` or ``group:NAME`` of this machine; empty: whoever may use the
            daemon.
        minimum: How many of them must say yes; one no is enough.
        timeout_s: Until the question answers itself; None: never.
        on_timeout: How it does so then.
        show: What is put before them: ``plan``, ``tests``.
    """

    message: str
    approvers: tuple[str, ...] = ()
    minimum: int = 1
    timeout_s: float | None = None
    on_timeout: Literal["approve", "reject"] = "reject"
    show: tuple[Literal["plan", "tests"], ...] = ()
