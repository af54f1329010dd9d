"""A pipeline as checked: what the runner works from. Every value is frozen.

The whole language (v1) is here. ``span`` fields say where a thing was written; they do
not take part in comparisons.
"""

from collections.abc import Iterator
from typing import Literal

import attrs

from linkspan.sdk.diagnostics import Span
from linkspan.workflows.matrix import Matrix
from linkspan.workflows.parse import Field
from linkspan.workflows.triggers import Triggers
from linkspan.workflows.values import Expression, Template, Value

Text = Template | str
InputType = Literal["string", "int", "bool", "duration", "size", "choice", "list"]
RetryCause = str
"""``network``, ``timeout``, ``oom``, ``exit:N`` or ``any``."""


def _span() -> Span:
    field: Span = attrs.field(eq=False, repr=False)
    return field


def _maybe_span() -> Span | None:
    field: Span | None = attrs.field(default=None, eq=False, repr=False)
    return field


# what stands at the top


@attrs.frozen(kw_only=True)
class Input:
    """A typed input.

    Attributes:
        default: None if there is none.
        options: Allowed values of a choice.
        minimum, maximum: Of an int.
        pattern: A restricted regular expression that the whole of a string must match.
        untrusted: Whoever gives it may be a stranger: it is refused where it could be read as code. None if
            the pipeline does not say.
        recorded: The pipeline says that its value may be recorded, whatever its name sounds like.
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
    untrusted: bool | None = None
    recorded: bool = False
    help: str = ""
    type_span: Span | None = _maybe_span()


@attrs.frozen(kw_only=True)
class Secret:
    """A secret that steps may be granted; its value comes from a driver of the role ``secrets``.

    Attributes:
        provider: ``from``: the driver's name.
        key: What the provider calls it; empty for its name here.
        required: Whether a run may begin without it.
        generate_length: Characters of the value that is made up on first use if there is none; None if
            it must be there.
    """

    name: str
    provider: str
    key: str = ""
    required: bool = True
    generate_length: int | None = None
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Choice:
    """An entry of ``use``: which driver plays a role.

    Attributes:
        span: None if whoever starts the pipeline has chosen, and the file says nothing.
    """

    role: str
    driver: str
    span: Span | None = _maybe_span()


@attrs.frozen(kw_only=True)
class Requirement:
    """An entry of ``requires``: features of a role, or a version of a plugin; one of the two is empty.

    Attributes:
        version: A range: ``>=1.2,<2``.
    """

    role: str = ""
    features: tuple[str, ...] = ()
    plugin: str = ""
    version: str = ""
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Concurrency:
    """Runs of one group wait for each other, first come first served.

    Attributes:
        on_conflict: What a new run does when one of its group is active.
    """

    group: Text
    on_conflict: Literal["queue", "cancel-running", "reject"] = "queue"
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Include:
    """A file whose jobs belong to this pipeline too.

    Attributes:
        digest: ``sha256:…`` that its text must have; empty if any will do.
    """

    file: str
    digest: str = ""
    span: Span = _span()


# steps


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
    """What happens to a failed step's change.

    ``rollback`` takes it back (or that of the step ``target``), ``leave`` leaves it, ``pause`` suspends
    the run until a person decides.
    """

    action: Literal["rollback", "leave", "pause"]
    target: str = ""


@attrs.frozen(kw_only=True)
class Undo:
    """A step's own way back, in place of its verb's.

    Attributes:
        granted: Secrets that its settings name.
    """

    verb: str
    settings: dict[str, Value] = attrs.field(factory=dict)
    granted: tuple[str, ...] = ()
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Step:
    """One step: a script in a container, a verb, steps side by side, or a wait.

    Exactly one of ``run``, ``verb``, ``parallel``, ``wait`` and ``cancel`` is there.

    Attributes:
        id: Unique in its job; made from the verb or the position where none was written.
        named: Whether the id was written, so that expressions may read it.
        run: The script; None if the step is not one.
        verb: The verb, ``deploy`` or ``vendor/name``; empty if the step uses none.
        verb_version: The range written after ``@``; empty for any.
        settings: Its ``with``, typed by the verb's schema as far as it was literal.
        parallel: Steps that run side by side; the next step waits for all of them.
        background: Whether the next step begins at once; the job waits for it at its end, or at ``wait``.
        wait: Ids of background steps that must have ended before the next step.
        cancel: Ids of background steps that are stopped.
        secrets: Names of the secrets it may read.
        sources: Globs of the workspace; a step whose sources, definition and plugins are those of an
            earlier success is skipped. Empty: never skipped.
        generates: Globs of what it makes; they must be there for it to be skipped.
        reports: Kind → path in the workspace: ``junit``.
        on_failure: None if nothing was written: the verb's own habit.
        setting_nodes: Where each of ``settings`` was written.
    """

    id: str
    named: bool
    name: str = ""
    condition: Expression | None = None
    run: str | None = None
    verb: str = ""
    verb_version: str = ""
    settings: dict[str, Value] = attrs.field(factory=dict)
    parallel: "tuple[Step, ...]" = ()
    background: bool = False
    wait: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    image: Text | None = None
    env: dict[str, Text] = attrs.field(factory=dict)
    secrets: tuple[str, ...] = ()
    shell: str = ""
    working_directory: str = ""
    sources: tuple[str, ...] = ()
    generates: tuple[str, ...] = ()
    reports: dict[str, str] = attrs.field(factory=dict)
    retry: Retry = Retry()
    timeout_s: float | None = None
    grace_s: float = 10.0
    continue_on_error: bool | Expression = False
    on_failure: OnFailure | None = None
    undo: Undo | None = None
    span: Span = _span()
    verb_span: Span | None = _maybe_span()
    setting_nodes: dict[str, Field] = attrs.field(factory=dict, eq=False, repr=False)

    @property
    def title(self) -> str:
        """What a person reads."""
        return self.name or self.id


# beside the steps


@attrs.frozen(kw_only=True)
class HealthcheckText:
    """Compose's ``healthcheck`` of a service, times in seconds."""

    test: tuple[Text, ...]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0
    start_interval_s: float = 5.0


@attrs.frozen(kw_only=True)
class JobService:
    """A container beside a job, up (and healthy, if it has a check) before the first step.

    The keys are Compose's, with its meanings.

    Attributes:
        ports: ``8080:80`` entries, published on the host.
        volumes: ``source:target[:ro]`` entries.
        extra_hosts: ``name:address`` entries.
        pull_policy: ``always``, ``missing``, ``never`` or empty.
        ulimits: Name → (soft, hard).
        mem_limit: Bytes; 0 for none.
        shm_size: Bytes; 0 for the default.
        stop_grace_period_s: None for the default.
    """

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
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    hostname: str = ""
    init: bool = False
    labels: dict[str, Text] = attrs.field(factory=dict)
    mem_limit: int = 0
    ports: tuple[Text, ...] = ()
    privileged: bool = False
    pull_policy: str = ""
    read_only: bool = False
    shm_size: int = 0
    stop_grace_period_s: float | None = None
    sysctls: dict[str, Text] = attrs.field(factory=dict)
    ulimits: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    volumes: tuple[Text, ...] = ()
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Cache:
    """Files that outlive a job's runs, found again by what their key says.

    Attributes:
        path: In the container; ``~`` is the home of its user.
        restore: Beginnings of keys that will do when ``key`` is not there, best first.
        save: When the files are kept: also after a failure (``always``), or only after a success.
    """

    path: Text
    key: Text
    restore: tuple[Text, ...] = ()
    save: Literal["always", "success", "never"] = "always"
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Artifact:
    """Files of a job's workspace that are kept with the run, under a name.

    Attributes:
        paths: Globs in the workspace.
    """

    name: str
    paths: tuple[Text, ...]
    span: Span = _span()


@attrs.frozen(kw_only=True)
class LoadArtifact:
    """An artifact of a job that this one needs, put into its workspace.

    Attributes:
        job: Whose it is; empty if only one of the needed jobs has it.
        path: Folder of the workspace that gets it.
    """

    name: str
    job: str = ""
    path: str = "."
    span: Span = _span()


# jobs


@attrs.frozen(kw_only=True)
class Need:
    """One entry of ``needs``."""

    job: str
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Strategy:
    """How a job is multiplied.

    Attributes:
        fail_fast: Whether the first failed cell cancels the others.
        max_parallel: Cells at a time; None for no limit.
    """

    matrix: Matrix
    fail_fast: bool = True
    max_parallel: int | None = None
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Call:
    """A job that is another pipeline: ``uses: ./other.yaml`` with ``with`` as its inputs.

    Attributes:
        file: As written.
        workflow: What the file holds; None if it could not be read.
        inputs: By name; literals typed as the other pipeline declares them.
    """

    file: str
    workflow: "Workflow | None"
    inputs: dict[str, Value] = attrs.field(factory=dict)
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Job:
    """Steps that run one after the other, in one workspace and one network; or a call.

    Attributes:
        file: Where it was written; that of an include for its jobs.
        needs_span: Where the whole of ``needs`` was written.
        strategy: None for a job that runs once.
        secrets: Names of the secrets that its services may read.
        volumes: ``source:target[:ro]`` entries, mounted in each script's container.
        environment: What it changes: ``production``; None if nothing.
        lock: A name; one job in the world holds it at a time, first come first served.
        labels: Of its containers.
        call: None for a job with steps.
    """

    id: str
    name: str = ""
    file: str = ""
    needs: tuple[Need, ...] = ()
    needs_span: Span | None = _maybe_span()
    condition: Expression | None = None
    strategy: Strategy | None = None
    image: Text | None = None
    env: dict[str, Text] = attrs.field(factory=dict)
    secrets: tuple[str, ...] = ()
    services: dict[str, JobService] = attrs.field(factory=dict)
    volumes: tuple[Text, ...] = ()
    caches: tuple[Cache, ...] = ()
    artifacts: dict[str, Artifact] = attrs.field(factory=dict)
    load_artifacts: tuple[LoadArtifact, ...] = ()
    outputs: dict[str, Text] = attrs.field(factory=dict)
    environment: Text | None = None
    lock: Text | None = None
    labels: dict[str, Text] = attrs.field(factory=dict)
    timeout_s: float | None = None
    continue_on_error: bool | Expression = False
    steps: tuple[Step, ...] = ()
    call: Call | None = None
    span: Span = _span()
    lock_span: Span | None = _maybe_span()

    @property
    def needed(self) -> tuple[str, ...]:
        """Ids of the jobs it waits for."""
        return tuple(need.job for need in self.needs)

    def all_steps(self) -> Iterator[Step]:
        """Its steps in the order written, those side by side after the step that holds them."""
        for step in self.steps:
            yield step
            yield from step.parallel


@attrs.frozen(kw_only=True)
class Workflow:
    """A whole pipeline.

    Attributes:
        file: As the user wrote it.
        text: What the file held; recorded with each run.
        others: Text of each other file that it is made of, by path; recorded with each run.
        jobs: In the order written, those of includes first.
        cleanup: ``finally``: jobs that run after all others, whatever happened.
        outputs: Of a pipeline that others call.
    """

    name: str
    file: str
    text: str = attrs.field(repr=False)
    others: dict[str, str] = attrs.field(factory=dict, repr=False)
    triggers: Triggers = attrs.field(factory=Triggers)
    inputs: dict[str, Input] = attrs.field(factory=dict)
    env: dict[str, Text] = attrs.field(factory=dict)
    secrets: dict[str, Secret] = attrs.field(factory=dict)
    use: dict[str, Choice] = attrs.field(factory=dict)
    requires: tuple[Requirement, ...] = ()
    concurrency: Concurrency | None = None
    includes: tuple[Include, ...] = ()
    jobs: dict[str, Job] = attrs.field(factory=dict)
    cleanup: dict[str, Job] = attrs.field(factory=dict)
    outputs: dict[str, Text] = attrs.field(factory=dict)
