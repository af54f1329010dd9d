"""A pipeline as checked: what the runner works from. Every value is frozen.

``span`` fields say where a thing was written; they do not take part in comparisons.
"""

from typing import Literal

import attrs

from linkspan.sdk.diagnostics import Span
from linkspan.workflows.values import Expression, Template, Value

Text = Template | str
InputType = Literal["string", "int", "bool", "duration", "size", "choice", "list"]
RetryCause = str
"""``network``, ``timeout``, ``oom``, ``exit:N`` or ``any``."""


def _span() -> Span:
    field: Span = attrs.field(eq=False, repr=False)
    return field


@attrs.frozen(kw_only=True)
class Input:
    """A typed input.

    Attributes:
        default: None if there is none.
        options: Allowed values of a choice.
        minimum, maximum: Of an int.
        pattern: A restricted regular expression that the whole of a string must match.
        type_span: Where its type was written.
    """

    name: str
    type: InputType = "string"
    default: str | int | bool | tuple[str, ...] | None = None
    required: bool = False
    options: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    pattern: str = ""
    help: str = ""
    type_span: Span | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen(kw_only=True)
class Retry:
    """How often a failed step is tried again; ``max`` 0 is never.

    The wait before retry n is ``backoff_s * factor ** (n - 1)``, at most ``max_delay_s``; with
    ``jitter`` a random part of up to half of it is taken away.

    Attributes:
        on: Causes that are worth another try; empty means any for scripts, and for verbs those that
            the plugin itself calls transient (network, timeout).
    """

    max: int = 0
    backoff_s: float = 1.0
    factor: float = 2.0
    max_delay_s: float = 60.0
    jitter: bool = True
    on: tuple[RetryCause, ...] = ()


@attrs.frozen(kw_only=True)
class OnFailure:
    """What happens to a failed step's change: ``rollback`` (of ``target``, or itself), ``leave``."""

    action: Literal["rollback", "leave"]
    target: str = ""


@attrs.frozen(kw_only=True)
class HealthcheckText:
    """Compose's ``healthcheck`` of a service, times in seconds."""

    test: tuple[Text, ...]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0


@attrs.frozen(kw_only=True)
class JobService:
    """A container beside a job, up (and healthy, if it has a check) before the first step."""

    name: str
    image: Text
    condition: Expression | None = None
    command: tuple[Text, ...] | None = None
    entrypoint: tuple[Text, ...] | None = None
    environment: dict[str, Text] = attrs.field(factory=dict)
    healthcheck: HealthcheckText | None = None
    tmpfs: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    depends_on: tuple[str, ...] = ()
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Step:
    """One step: a script in a container, or a verb.

    Attributes:
        id: Unique in its job; made from the verb or the position where none was written.
        named: Whether the id was written, so that expressions may read it.
        run: The script; None if the step uses a verb.
        verb: The verb; empty if the step is a script.
        settings: Its ``with``, typed by the verb's schema as far as it was literal.
        on_failure: None if nothing was written: the verb's own habit.
    """

    id: str
    named: bool
    name: str = ""
    condition: Expression | None = None
    run: str | None = None
    verb: str = ""
    settings: dict[str, Value] = attrs.field(factory=dict)
    image: Text | None = None
    env: dict[str, Text] = attrs.field(factory=dict)
    shell: str = ""
    working_directory: str = ""
    retry: Retry = Retry()
    timeout_s: float | None = None
    grace_s: float = 10.0
    continue_on_error: bool | Expression = False
    on_failure: OnFailure | None = None
    span: Span = _span()

    @property
    def title(self) -> str:
        """What a person reads."""
        return self.name or self.id


@attrs.frozen(kw_only=True)
class Need:
    """One entry of ``needs``."""

    job: str
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Job:
    """Steps that run one after the other, in one workspace and one network.

    Attributes:
        needs_span: Where the whole of ``needs`` was written.
    """

    id: str
    name: str = ""
    needs: tuple[Need, ...] = ()
    needs_span: Span | None = attrs.field(default=None, eq=False, repr=False)
    condition: Expression | None = None
    image: Text | None = None
    env: dict[str, Text] = attrs.field(factory=dict)
    services: dict[str, JobService] = attrs.field(factory=dict)
    outputs: dict[str, Text] = attrs.field(factory=dict)
    timeout_s: float | None = None
    continue_on_error: bool | Expression = False
    steps: tuple[Step, ...] = ()
    span: Span = _span()

    @property
    def needed(self) -> tuple[str, ...]:
        """Ids of the jobs it waits for."""
        return tuple(need.job for need in self.needs)


@attrs.frozen(kw_only=True)
class Workflow:
    """A whole pipeline.

    Attributes:
        file: As the user wrote it.
        text: What the file held; recorded with each run.
        jobs: In the order written.
        cleanup: ``finally``: jobs that run after all others, whatever happened.
    """

    name: str
    file: str
    text: str = attrs.field(repr=False)
    inputs: dict[str, Input] = attrs.field(factory=dict)
    env: dict[str, Text] = attrs.field(factory=dict)
    jobs: dict[str, Job] = attrs.field(factory=dict)
    cleanup: dict[str, Job] = attrs.field(factory=dict)
