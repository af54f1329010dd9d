"""Waiting until a service is what it should be, with a view of its tasks meanwhile."""

import json
import time
from typing import Any, Final

from linkspan.core.cli import words
from linkspan.core.cli.failure import FAILED, TIMED_OUT, Failure
from linkspan.core.cli.progress import Display, bar
from linkspan.core.cli.service import task_name
from linkspan.core.cli.session import Session
from linkspan.sdk.units import format_duration

_POLL_S: Final = 0.15
_FAILED_STATES: Final = ("failed", "rejected")


class _Rollout:
    """How far a service is, from polls of the API."""

    def __init__(self, session: Session, identifier: str) -> None:
        self._session = session
        self._id = identifier
        self.service: Any = {}
        self.tasks: list[Any] = []
        self.name = identifier[:12]

    def poll(self) -> None:
        api = self._session.api
        query = {"filters": {"service": [self._id]}}
        self.service = api.get(f"/services/{self._id}")
        self.tasks = api.get("/tasks", query)
        self.name = self.service["Spec"]["Name"]

    @property
    def wanted(self) -> int:
        mode = self.service["Spec"].get("Mode") or {}
        if "Replicated" in mode:
            return int(mode["Replicated"].get("Replicas") or 0)
        return sum(t.get("DesiredState") == "running" for t in self.tasks)

    @property
    def running(self) -> int:
        """Tasks of the present specification that run (or have done their work)."""
        spec = _what_it_runs(self.service["Spec"]["TaskTemplate"])
        return sum(
            (t.get("Status") or {}).get("State") in ("running", "complete")
            and t.get("DesiredState") in ("running", "complete")
            and _what_it_runs(t.get("Spec") or {}) == spec
            for t in self.tasks
        )

    @property
    def leaving(self) -> int:
        """Tasks that still run and are not wanted any more."""
        return sum(
            (t.get("Status") or {}).get("State") == "running" and t.get("DesiredState") != "running"
            for t in self.tasks
        )

    @property
    def state(self) -> str:
        return str((self.service.get("UpdateStatus") or {}).get("State", ""))

    @property
    def message(self) -> str:
        return str((self.service.get("UpdateStatus") or {}).get("Message", ""))

    def errors(self, since: float) -> list[str]:
        """Why tasks failed since a time, each once, the newest first."""
        names = {self._id: self.name}
        failed = [
            (words.parse_time((t.get("Status") or {}).get("Timestamp", "")) or 0.0, t)
            for t in self.tasks
            if (t.get("Status") or {}).get("State") in _FAILED_STATES
        ]
        failed.sort(key=lambda pair: -pair[0])
        texts: dict[str, str] = {}
        for when, task in failed:
            text = task["Status"].get("Err") or task["Status"].get("Message") or "it failed"
            if when >= since:
                texts.setdefault(text, f"{task_name(task, names)}: {text}")
        return list(texts.values())

    def pending(self) -> list[str]:
        """What the tasks that do not run yet wait for."""
        names = {self._id: self.name}
        return [
            f"{task_name(t, names)} {t['Status'].get('State')}"
            + (
                f": {t['Status'].get('Err') or t['Status'].get('Message')}"
                if t["Status"].get("Err") or t["Status"].get("Message")
                else ""
            )
            for t in self.tasks
            if t.get("DesiredState") == "running" and t["Status"].get("State") != "running"
        ]

    def lines(self) -> list[str]:
        head = (
            f"{self.name}  {bar(self.running, self.wanted or 1)}  {self.running} of {self.wanted}"
        )
        if self.state:
            head += f"  {self.state.replace('_', ' ')}"
        return [head, *(f"  {text}" for text in self.pending()[:5])]


def _what_it_runs(template: dict[str, Any]) -> str:
    container = template.get("ContainerSpec") or {}
    parts = [container.get(key) or None for key in ("Image", "Command", "Args", "Env")]
    return json.dumps([*parts, template.get("ForceUpdate") or 0])


def watch(
    session: Session,
    identifier: str,
    timeout_s: float | None,
    *,
    since_version: int | None,
    rolling_back: bool = False,
) -> int:
    """Wait until a service is as wanted; say why it is not.

    Returns:
        The exit status.

    Raises:
        Failure: It was rolled back or paused, or the time is over.
    """
    rollout = _Rollout(session, identifier)
    began = time.time()
    terminal = session.terminal
    said = ""
    steady_since = 0.0
    with Display(session, rollout.lines, f"service {identifier[:12]}") as display:
        while True:
            rollout.poll()
            display.event(
                {"service": rollout.name, "running": rollout.running, "of": rollout.wanted}
            )
            fact = f"  {rollout.name}  {rollout.running} of {rollout.wanted} run"
            if rollout.state:
                fact += f", {rollout.state.replace('_', ' ')}"
            if display.mode == "plain" and fact != said:
                display.say(fact)
                said = fact
            _raise_if_it_failed(rollout, began, rolling_back)
            if _is_there(rollout, since_version):
                # Two looks in a row: between two states of the daemon a single one may be lucky.
                if steady_since:
                    break
                steady_since = time.monotonic()
            else:
                steady_since = 0.0
            if timeout_s is not None and time.time() - began > timeout_s:
                raise _out_of_time(rollout, timeout_s, began)
            display.update()
            time.sleep(_POLL_S)
        line = (
            f"{terminal.painted_sign('done')} {rollout.name}  "
            f"{rollout.running}/{rollout.wanted} run  {display.elapsed}"
        )
    terminal.note(line)
    return 0


def _is_there(rollout: _Rollout, since_version: int | None) -> bool:
    if since_version is not None and rollout.service["Version"]["Index"] <= since_version:
        return False
    if rollout.state in ("updating", "rollback_started"):
        return False
    return rollout.running == rollout.wanted and rollout.leaving == 0


def _raise_if_it_failed(rollout: _Rollout, began: float, rolling_back: bool) -> None:
    """A service that went back, or stands still, is a failure of what was asked for."""
    state = rollout.state
    at = words.parse_time((rollout.service.get("UpdateStatus") or {}).get("StartedAt") or "")
    if at is not None and at < began - 2:
        return  # of an earlier update
    notes = [("cause", text) for text in rollout.errors(began - 2)[:3]]
    if state == "rollback_completed" and not rolling_back:
        raise Failure(
            f"service '{rollout.name}' was rolled back: {rollout.message or 'the update failed'}",
            id="LS0104",
            status=FAILED,
            notes=[*notes, ("state", f"{rollout.running} of {rollout.wanted} tasks run as before")],
            helps=[f"linkspan service ps {rollout.name}"],
        )
    if state in ("paused", "rollback_paused"):
        raise Failure(
            f"the update of service '{rollout.name}' has stopped: {rollout.message}",
            id="LS0104",
            status=FAILED,
            notes=[*notes, ("state", f"{rollout.running} of {rollout.wanted} new tasks run")],
            helps=[
                f"linkspan service ps {rollout.name}",
                f"linkspan service rollback {rollout.name}",
            ],
        )


def _out_of_time(rollout: _Rollout, timeout_s: float, began: float) -> Failure:
    causes = rollout.errors(began - 2)[:3] or rollout.pending()[:3]
    return Failure(
        f"service '{rollout.name}' is not there after {format_duration(timeout_s)}: "
        f"{rollout.running} of {rollout.wanted} tasks run",
        id="LS0104",
        status=TIMED_OUT,
        notes=[("cause", text) for text in causes],
        helps=[f"linkspan service ps {rollout.name}"],
    )
