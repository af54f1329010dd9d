"""What a step sees, and where it speaks: its contexts, its log, its records in the journal."""

from collections.abc import Awaitable, Mapping

import attrs

from linkspan.sdk.progress import Progress
from linkspan.workflows.concealing import conceal_env
from linkspan.workflows.expressions import EvaluationFailed, Scope
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.model import Step
from linkspan.workflows.place import Place, StepsSeen
from linkspan.workflows.run_functions import RunFunctions
from linkspan.workflows.running import Run, truth
from linkspan.workflows.state import StepState
from linkspan.workflows.steplog import StepLog
from linkspan.workflows.values import resolve_texts


class StepScene:
    """Of one step, for those who decide about it and those who do it.

    Attributes:
        step: As written, or as edited at a breakpoint.
        state: What the journal says about it so far.
        secrets: What it was granted, by name.
        secret_env: Variables that hold something of them.
    """

    def __init__(self, run: Run, place: Place, step: Step) -> None:
        self.run = run
        self.place = place
        self.job = place.job
        self.state: StepState = run.step_state(place.job, step)
        self.step = step
        if self.state.script is not None:
            self.edit(self.state.script)
        self.secrets: Mapping[str, str] = place.secrets
        self.secret_env = place.secret_env
        self._log: StepLog | None = None
        self._over = False

    def edit(self, script: str) -> None:
        """From now on this is the step's script."""
        self.step = attrs.evolve(self.step, run=script)

    def end(self) -> None:
        """The step has ended: nothing is said any more."""
        self._over = True
        if self._log is not None:
            self._log.end()
            self._log.close()

    @property
    def log(self) -> StepLog:
        """The step's log; many steps never say anything."""
        if self._log is None:
            run = self.run
            path = self.place.folder / f"{self.step.id}.log"
            self._log = StepLog(path, self._on_line, run.recorder.masks, run.logs)
        return self._log

    def say(self, text: str) -> None:
        """Add a line to the log, unless the step has ended."""
        if not self._over:
            # Whoever was left behind may go on talking.
            self.log.add(text)

    def _on_line(self, stream: str, line: str) -> None:
        self.run.recorder.tell("log", job=self.job.id, step=self.step.id, stream=stream, line=line)

    def progress(self, progress: Progress) -> None:
        """Show how far something is."""
        if progress.stream:
            self.log.add_text(progress.stream)
            return
        self.run.recorder.tell_progress(self.job.id, self.step.id, progress)

    def write(self, kind: str, fields: Mapping[str, Json]) -> Awaitable[None]:
        """Put a record about the step into the journal."""
        return self.run.recorder.record(kind, {"job": self.job.id, "step": self.step.id, **fields})

    def scope(self, *, own_env: bool) -> Scope:
        """What the step's expressions see, with its own variables or without."""
        contexts: dict[str, Json] = {
            **self.place.contexts,
            "env": dict(self.place.env),
            "services": self.place.services,
            "secrets": self.secrets,
            "steps": StepsSeen(self.run.job_state(self.job)),
        }
        call = RunFunctions(self.place.workspace, self.run.host.engine)
        scope = Scope(contexts=contexts, status=self.status, call=call)
        if own_env:
            contexts["env"] = {**self.place.env, **self.own_env(scope)}
        return scope

    def own_env(self, scope: Scope) -> dict[str, str]:
        """The step's own variables; what is secret among them is masked from now on."""
        if not self.step.env:
            return {}
        own = resolve_texts(self.step.env, scope)
        masks = self.run.recorder.masks
        self.secret_env = conceal_env(masks, self.step.env, own, scope, self.place.secret_env)
        return own

    def status(self, name: str) -> bool:
        """``success()``, ``failure()`` …: how the steps before it have ended."""
        if name in ("always", "cancelled"):
            return name == "always"
        failed = bool(self.place.failed)
        if failed and self.state.group:
            # What runs side by side does not know of each other.
            group = self.state.group
            states = self.run.job_state(self.job).steps
            failed = any(states[each].group != group for each in self.place.failed)
        return failed == (name == "failure")

    def softened(self, result: str, scope: Scope) -> str:
        """``continue-on-error`` turns a failure into a warning."""
        flag = self.step.continue_on_error
        if isinstance(flag, bool):
            soft = flag
        else:
            try:
                soft = truth(flag, scope)
            except EvaluationFailed:
                soft = False
        return "warned" if soft else result
