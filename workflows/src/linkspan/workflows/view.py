"""How a run looks to the one who watches it: live on a terminal, a line a fact anywhere else."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from linkspan.core.cli.progress import Display
from linkspan.core.cli.session import Session
from linkspan.core.cli.terminal import paint
from linkspan.core.client.short import segment
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.units import format_duration
from linkspan.workflows.live_jobs import WHEN, job_rows
from linkspan.workflows.state import BAD, GOOD, RunState, StepState, kept

_SIGNS: Final = {
    "success": "done",
    "warned": "warned",
    "failed": "failed",
    "timed-out": "failed",
    "cancelled": "failed",
    "rejected": "failed",
    "interrupted": "failed",
    "suspended": "holds",
    "held": "holds",
    "queued": "waiting",
    "skipped": "skipped",
    "running": "running",
    "cancelling": "running",
    "waiting": "waiting",
}
_WORDS: Final = {
    "success": "succeeded",
    "warned": "succeeded with a warning",
    "failed": "failed",
    "timed-out": "timed out",
    "cancelled": "was cancelled",
    "rejected": "was rejected",
    "skipped": "skipped",
}


_VOTES: Final = {"approve": "approved", "reject": "rejected"}


def _because(record: Mapping[str, Any]) -> str:
    return f": {record['reason']}" if record.get("reason") else ""


def sign(session: Session, state: str, *, on_err: bool = True) -> str:
    """The sign of a state, in its colour."""
    return session.terminal.painted_sign(_SIGNS.get(state, "waiting"), on_err=on_err)


def clock(record: Mapping[str, Any]) -> str:
    """Local ``07:41:02`` of a record."""
    then = datetime.fromisoformat(str(record["t"]).replace("Z", "+00:00"))
    return then.astimezone().strftime("%H:%M:%S")


class RunView:
    """Takes a run's events and shows them.

    Attributes:
        state: Folded from the records so far.
        interruption: Why the run was interrupted, if it was.
        keys: Whether keys can be typed.
        asks: Whether it asks if the run shall be cancelled.
    """

    def __init__(self, session: Session, run_id: str, *, after: int = 0) -> None:
        """Make a view.

        Args:
            session: Of the command.
            run_id: The run.
            after: Attempts up to this one are taken in silence.
        """
        self._after = after
        self._session = session
        self._run_id = run_id
        self.state = RunState()
        self.interruption = "the daemon ended"
        self._doing: dict[str, str] = {}
        self._logged = session.verbose
        self._announced: list[str] = []
        self.keys = self.asks = False
        self.display = Display(session, self.lines, f"run {run_id}")

    def announce(self, words: str) -> None:
        """Say something above the view, soon: a signal's handler must not draw."""
        self._announced.append(words)

    def toggle_logs(self) -> None:
        """Show what steps write, or show it no more."""
        self._logged = not self._logged

    def update(self) -> None:
        """Something may have changed, if only the time."""
        while self._announced:
            self.display.say(self._announced.pop(0))
        self.display.update()

    def take(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        self.display.event(event)
        if "n" in event:
            self.state.take(event)
            if event["kind"] == "step-started":
                self._doing.pop(event["job"], None)
            self._say(event)
        elif event["kind"] == "log":
            self._log(event)
        elif event["kind"] == "interrupted":
            self.interruption = event["reason"]
        elif event["kind"] == "progress":
            self._doing[event["job"]] = _progress_words(event)
        self.update()

    def _log(self, event: Mapping[str, Any]) -> None:
        if event["line"].strip():
            self._doing[event["job"]] = event["line"]
        if self._logged:
            where = "/".join(filter(None, (event["job"], event["step"])))
            self.display.say(f"{where} | {event['line']}")

    # plain lines

    def _say(self, record: Mapping[str, Any]) -> None:
        if self.display.mode != "plain" or 0 < self.state.attempt <= self._after:
            return
        line = self._line(record)
        if line:
            self.display.say(f"{clock(record)} {line}")

    def _line(self, record: Mapping[str, Any]) -> str:
        where = "/".join(filter(None, (record.get("job"), record.get("step"))))
        match record["kind"]:
            case "run-created":
                return f"{record['workflow']}  run {record['run']}"
            case "attempt-started" if record["attempt"] > 1:
                return f"{self.state.workflow}  attempt {record['attempt']}{self._kept_words()}"
            case "step-finished" if record["result"] == "skipped":
                return f"{where}  skipped{_because(record)}"
            case "step-suspended":
                return f"{where}  asks: {record['question']['message']}"
            case "step-decided":
                return f"{where}  {_VOTES[record['vote']]} by {record['by']}"
            case "job-waits":
                return f"{where}  waits for the lock '{record['lock']}'"
            case "run-queued":
                return f"{self.state.workflow}  waits for run {record['behind']}"
            case "step-finished":
                return self._step_line(where, record)
            case "step-settled":
                word = "was done" if record["applied"] else "done again"
                return f"{where}  had begun: {word}: {record['detail']}"
            case "break-reached":
                return f"{where}  held {WHEN[record['when']]}"
            case "break-left":
                edited = " with an edited script" if record["script"] is not None else ""
                return f"{where}  {record['action']}{edited}, says {record['by'] or 'somebody'}"
            case "undo-finished" if record["result"] == "success":
                return f"{where}  rolled back: {record['detail']}"
            case "undo-finished":
                return f"{where}  rollback failed: {record['detail']}"
            case "job-finished" if record["result"] != "success":
                reason = record.get("error", {}).get("message", "")
                words = _WORDS.get(record["result"], record["result"])
                return f"{record['job']}  {words}{': ' + reason if reason else ''}"
            case "cancel-requested":
                by = record.get("by", "")
                whose = "" if by.startswith("uid ") or not by else f" by {by}"
                return f"{self.state.workflow}  is being cancelled{whose}"
            case _:
                return ""

    def _step_line(self, where: str, record: Mapping[str, Any]) -> str:
        took = format_duration(record.get("duration", 0.0))
        if record["result"] == "success":
            return f"{where}  succeeded in {took}"
        reason = record.get("error", {}).get("message", "")
        again = record.get("retry_in")
        if again and not record.get("held"):
            return f"{where}  failed after {took}: {reason}; again in {format_duration(again)}"
        return f"{where}  {_WORDS.get(record['result'], record['result'])} after {took}: {reason}"

    def _kept_words(self) -> str:
        jobs = [job.id for job in self.state.jobs.values() if job.result in GOOD]
        steps = [
            f"{job.id}/{step.id}"
            for job in self.state.jobs.values()
            if job.id not in jobs
            for step in kept(job)
            if step.result in GOOD
        ]
        names = [*jobs, *steps]
        return f"; kept: {', '.join(names)}" if names else ""

    # live

    def lines(self) -> list[str]:
        """The present state, for the live view."""
        session, state = self._session, self.state
        rows = list(job_rows(state, self._doing))
        width = max([8, *(len(row.label) for row in rows)])
        head = f"{state.workflow}  run {self._run_id}  {self.display.elapsed}"
        drawn = [head]
        for row in rows:
            mark = sign(session, row.state) if row.state else "│"
            words = row.words[: max(8, session.terminal.width - width - 5)]
            drawn.append(f"{mark} {row.label:<{width}}  {words}")
        done = sum(bool(job.result) for job in state.jobs.values())
        color = session.terminal.err_color
        words = f"{done} of {len(state.jobs)} jobs   {self._offers()}"
        drawn.append(paint(words, "yellow" if self.asks else "dim", color))
        return drawn

    def _offers(self) -> str:
        """What can be typed now."""
        if self.asks:
            return "cancel the run?   y yes   any other key no"
        if self.state.cancelling:
            return "is being cancelled   Ctrl-C kills"
        if self.keys:
            return f"esc leave it running   l {'no ' * self._logged}logs   c cancel…"
        return "Ctrl-C asks it to stop"


def _progress_words(event: Mapping[str, Any]) -> str:
    words = f"{event['status']} {event['id']}".strip()
    if event.get("total"):
        words += f" {event.get('current') or 0}/{event['total']}"
    return words


# a person decides


def questions(session: Session, run: Mapping[str, Any], where: str) -> Iterator[str]:
    """What a run asks, with what is put before the one who decides.

    Args:
        session: Of the command.
        run: As the API shows it.
        where: ``JOB`` or ``JOB/STEP``; empty for all.
    """
    for job in run["jobs"]:
        for step in job["steps"]:
            place = f"{job['id']}/{step['id']}"
            if step["state"] == "suspended" and where in ("", job["id"], place):
                yield from _question(session, place, step)


def _question(session: Session, place: str, step: Mapping[str, Any]) -> Iterator[str]:
    asked = step["question"]
    yield f"{sign(session, 'suspended')} {place}  {asked['message']}"
    if asked.get("approvers"):
        yield f"  asks    {asked['minimum']} of {', '.join(asked['approvers'])}"
    for vote in step["votes"]:
        yield f"  {_VOTES[vote['vote']]} by {vote['by']}"
    evidence = asked.get("evidence", {})
    if evidence.get("tests"):
        yield f"  tests   {test_words(evidence['tests'])}"
    for planned in evidence.get("plan", ()):
        changes = [f"{c['action']} {c['what']}: {c['detail']}" for c in planned["changes"]]
        words = "; ".join(changes) or planned["unknown"] or "changes nothing"
        yield f"  plan    {planned['step']} {planned['verb']}: {words}"


def test_words(tests: Mapping[str, int]) -> str:
    """``472 passed, 1 failed``."""
    return ", ".join(f"{count} {word}" for word, count in tests.items() if count) or "no tests"


# the end


def summary(session: Session, state: RunState) -> None:
    """The table that a run ends with: every step, whose it was, how long it took, what came out."""
    rows = []
    for job in state.jobs.values():
        for step in job.steps.values():
            # A job that never began says it for its steps.
            shown = step.state if step.result or job.started or not job.result else job.result
            result = f"{sign(session, shown, on_err=False)} {shown}"
            if step.undone:
                result += ", rolled back" if step.undo_result == "success" else ", rollback failed"
            took = format_duration(step.duration) if step.intent and step.result else ""
            provider = step.provider or ("run" if step.verb == "" else step.verb)
            rows.append([f"{job.id}/{step.id}", provider, took, result])
    session.terminal.table(
        ["STEP", "PLUGIN", "DURATION", "RESULT"],
        rows,
        drop=["PLUGIN", "DURATION"],
        keep=["STEP", "RESULT"],
    )


def ending(
    session: Session, state: RunState, *, interruption: str = "the daemon ended"
) -> Iterator[str]:
    """What is said below the table: one line for success, the whole story for a failure."""
    word = state.state(active=False)
    took = format_duration(state.duration)
    head = f"{sign(session, word)} {state.workflow}  run {state.id}"
    if word == "suspended":
        yield f"{head}  waits for a person; nothing of it is running"
        yield from questions(session, state.as_json(active=False), "")
        yield f"  next    linkspan workflow approve {state.id}    or reject"
        return
    if word in GOOD:
        yield f"{head}  {_WORDS[word]} in {took}"
        return
    failed = list(_failures(state))
    names = ", ".join(where for where, _, _ in failed)
    words = _WORDS.get(word, word)
    if word == "interrupted":
        words = f"was interrupted: {interruption}"
    yield f"{head}  {names + ' ' if names else ''}{words}{'' if word == 'interrupted' else f'  {took}'}"
    for where, error, step in failed:
        yield from _story(session, state, where, error, step)
    yield from _next(state)


def blame(session: Session, state: RunState) -> Iterator[str]:
    """Of a run that failed: what is different from the last one that succeeded, if there is one."""
    if state.result not in ("failed", "timed-out"):
        return
    try:
        said = session.api.get(f"/linkspan/v1/runs/{segment(state.id)}/why")
    except LinkspanError:
        # None has succeeded, or nobody is there to be asked.
        return
    for each in said["differences"]:
        if each["likely"]:
            yield f"  likely  {each['subject']} {each['what']}, which was another when it succeeded"
    count = len(said["differences"])
    things = f"{count} thing{'s are' if count != 1 else ' is'} different from" if count else "like"
    yield f"  why     linkspan workflow why {state.id}    {things} run {said['against']}, which succeeded"


def _failures(state: RunState) -> Iterator[tuple[str, Mapping[str, Any], StepState | None]]:
    for job in state.jobs.values():
        before = False
        for step in job.steps.values():
            if step.result in ("failed", "timed-out", "cancelled", "rejected"):
                before = True
                yield f"{job.id}/{step.id}", step.error, step
        if not before and job.result in BAD and job.error:
            yield job.id, job.error, None


def _story(
    session: Session,
    state: RunState,
    where: str,
    error: Mapping[str, Any],
    step: StepState | None,
) -> Iterator[str]:
    for line in str(error.get("message", "")).splitlines():
        yield f"  {line}"
    if step is not None and step.tail:
        for line in step.tail:
            yield f"    | {line}"
        job, _, name = where.partition("/")
        yield f"    whole log: linkspan workflow logs {state.id} {job}/{name}"
    if error.get("help"):
        yield f"  help    {error['help']}"
    for job_state in state.jobs.values():
        for each in job_state.steps.values():
            if each.undone and where.startswith(f"{job_state.id}/"):
                back = session.terminal.painted_sign("rolled-back")
                verb = "rolled back" if each.undo_result == "success" else "rollback failed"
                yield f"  {back} {verb}: {each.undo_detail}"


def _next(state: RunState) -> Iterator[str]:
    """The command that goes on from here."""
    for job in state.jobs.values():
        if job.result not in GOOD and not job.cleanup:
            break
    else:
        yield f"  next    linkspan workflow resume {state.id}"
        return
    done = [other.id for other in state.jobs.values() if other.result in GOOD and not other.cleanup]
    keeps = [*done, *(f"{job.id}/{s.id}" for s in kept(job) if s.result in GOOD)]
    tail = f"; {', '.join(keeps)} kept" if keeps else ""
    yield f"  next    linkspan workflow resume {state.id}    goes on at {job.id}{tail}"
    for step in job.steps.values():
        if step.result in ("failed", "timed-out") and not step.verb:
            yield f"          linkspan workflow shell {state.id}    a shell where {job.id}/{step.id} ran"
            return
