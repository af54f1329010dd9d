"""``/linkspan/v1/runs``: pipelines over the daemon's API.

=======  =================================  ======================================================
POST     ``/linkspan/v1/runs``              start a run; 201 with its summary
GET      ``/linkspan/v1/runs``              summaries, newest first
GET      ``/linkspan/v1/runs/{run}``        one run with jobs and steps
GET      ``/linkspan/v1/runs/{run}/events`` JSON lines: all records so far, then everything as it
                                            happens, until the run is not active any more;
                                            ``?follow=0`` ends after the records so far
GET      ``/linkspan/v1/runs/{run}/logs``   JSON lines ``{job, step, time, stream, line}``;
                                            ``?job= &step= &tail=``
POST     ``/linkspan/v1/runs/{run}/cancel`` ask it to stop; ``?kill=1`` at once
POST     ``/linkspan/v1/runs/{run}/resume`` go on with it; ``{breaks}`` or no body
POST     ``/linkspan/v1/runs/{run}/rerun``  start a new one like it: ``{failed, from, inputs, use, fresh,
                                            by, breaks}``
POST     ``/linkspan/v1/runs/{run}/decide`` answer what it asks: ``{vote, place, comment, by}``
GET      ``/linkspan/v1/runs/{run}/break``  the breakpoints at which it is held
POST     ``/linkspan/v1/runs/{run}/break``  leave one: ``{action, script, place, by}``
POST     ``/linkspan/v1/runs/{run}/undo``   take back what it has changed
GET      ``/linkspan/v1/runs/{run}/why``    what is different from the last run that succeeded
POST     ``/linkspan/v1/plans``             say what a run would do; the body is that of a run
POST     ``/linkspan/v1/runs/prune``        remove ended runs: ``{keep, older_than_s}``
=======  =================================  ======================================================

``{run}`` is an id, an unique prefix of one, or ``last``.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import trio

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.http import Answer, Request, Response, Router, Stream, Writer, json_response
from linkspan.workflows import triggers
from linkspan.workflows.again import Again
from linkspan.workflows.approvals import voter_of
from linkspan.workflows.breakpoints import decision_of
from linkspan.workflows.creating import NewRun, Rerun
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.manager import RunManager

T = TypeVar("T")
_LINES: Final = {"Content-Type": "application/jsonl"}
_BATCH: Final = 500
_MAX_FILES: Final = 200_000


class Routes:
    """The handlers; ``manager`` finds the daemon's runs when a request comes."""

    def __init__(self, manager: Callable[[], RunManager]) -> None:
        self._manager = manager

    def register(self, router: Router) -> None:
        """Add the routes."""
        base = "/linkspan/v1/runs"
        router.add("POST", base, self.create)
        router.add("POST", "/linkspan/v1/plans", self.plan)
        router.add("GET", base, self.list_runs)
        router.add("GET", base + "/{run}", self.inspect)
        router.add("GET", base + "/{run}/events", self.events)
        router.add("GET", base + "/{run}/logs", self.logs)
        router.add("POST", base + "/{run}/cancel", self.cancel)
        router.add("POST", base + "/{run}/resume", self.resume)
        router.add("POST", base + "/{run}/rerun", self.rerun)
        router.add("POST", base + "/{run}/decide", self.decide)
        router.add("GET", base + "/{run}/break", self.breaks)
        router.add("POST", base + "/{run}/break", self.leave)
        router.add("POST", base + "/{run}/undo", self.undo)
        router.add("GET", base + "/{run}/why", self.why)
        router.add("POST", base + "/prune", self.prune)

    async def create(self, request: Request) -> Answer:
        """Start a run."""
        body = await request.json()
        return json_response(await self._manager().create(new_run(body)), 201)

    async def plan(self, request: Request) -> Answer:
        """Say what a run would do."""
        body = await request.json()
        return json_response(await self._manager().plan(new_run(body)))

    async def list_runs(self, request: Request) -> Answer:
        """Summaries, newest first."""
        return json_response(self._manager().list_runs())

    async def inspect(self, request: Request) -> Answer:
        """One run."""
        return json_response(self._manager().inspect(request.params["run"]))

    async def events(self, request: Request) -> Answer:
        """Records so far, then everything as it happens."""
        manager, run = self._manager(), request.params["run"]
        manager.resolve(run)
        follow = request.flag("follow", default=True)

        async def write(writer: Writer) -> None:
            async with manager.watch(run) as watcher:
                while batch := await watcher.batch():
                    await writer.write(_as_lines(batch))
                    if not follow:
                        return

        return Stream(run=write, headers=_LINES, at_stop="break")

    async def logs(self, request: Request) -> Answer:
        """Lines of the logs."""
        job, step = request.query.get("job", ""), request.query.get("step", "")
        if step and not job:
            raise InvalidArgument("'step' needs 'job'")
        tail = request.number("tail", 0)
        files = self._manager().log_files(request.params["run"], job, step)

        async def write(writer: Writer) -> None:
            for job_id, step_id, path in files:
                lines = _log_lines(job_id, step_id, path, tail)
                while batch := await trio.to_thread.run_sync(_take, lines, _BATCH):
                    await writer.write(_as_lines(batch))

        return Stream(run=write, headers=_LINES)

    async def cancel(self, request: Request) -> Answer:
        """Ask a run to stop."""
        by = _who(request)
        answer = await self._manager().cancel(
            request.params["run"], kill=request.flag("kill"), by=by
        )
        return json_response(answer)

    async def resume(self, request: Request) -> Response:
        """Go on with a run."""
        body = await request.json(required=False) or {}
        if not isinstance(body, dict):
            raise InvalidArgument("the body must be an object")
        run, breaks = request.params["run"], _breaks(body)
        said = await self._manager().resume(run, breaks=breaks, timeout_s=_timeout(body))
        return json_response(said)

    async def rerun(self, request: Request) -> Response:
        """Start a new run like an old one."""
        wish = _rerun(await _body(request))
        return json_response(await self._manager().rerun(request.params["run"], wish), 201)

    async def decide(self, request: Request) -> Response:
        """Answer what a run asks."""
        body = await _body(request)
        vote = _field(body, "vote", str, "")
        if vote not in ("approve", "reject"):
            raise InvalidArgument("'vote' must be approve or reject")
        name = _field(body, "by", str, "")
        voter = await trio.to_thread.run_sync(voter_of, request.peer_uid, name)
        said = await self._manager().answers.decide(
            request.params["run"],
            vote,
            voter,
            place=_field(body, "place", str, ""),
            comment=_field(body, "comment", str, ""),
        )
        return json_response(said)

    async def breaks(self, request: Request) -> Response:
        """Where a run is held."""
        return json_response(self._manager().answers.breaks(request.params["run"]))

    async def leave(self, request: Request) -> Response:
        """Decide at a breakpoint."""
        body = await _body(request)
        name = _field(body, "by", str, "")
        voter = await trio.to_thread.run_sync(voter_of, request.peer_uid, name)
        said = await self._manager().answers.leave(
            request.params["run"],
            decision_of(body, voter.name),
            place=_field(body, "place", str, ""),
        )
        return json_response(said)

    async def undo(self, request: Request) -> Response:
        """Take back what a run has changed."""
        by = _who(request)
        body = await request.json(required=False) or {}
        if not isinstance(body, dict):
            raise InvalidArgument("the body must be an object")
        run, secrets = request.params["run"], _texts(body, "secrets")
        return json_response(await self._manager().undo(run, by=by, secrets=secrets))

    async def why(self, request: Request) -> Response:
        """What is different from the last run that succeeded."""
        return json_response(await self._manager().why(request.params["run"]))

    async def prune(self, request: Request) -> Response:
        """Remove ended runs."""
        body = await _body(request)
        keep, age = _field(body, "keep", int, 0), body.get("older_than_s", 0)
        if keep < 0 or not isinstance(age, int | float) or age < 0:
            raise InvalidArgument("'keep' and 'older_than_s' must not be negative")
        dry_run = _field(body, "dry_run", bool, False)
        removed = await self._manager().retention.prune(
            keep=keep, older_than_s=float(age), dry_run=dry_run
        )
        return json_response({"removed": removed})


async def _body(request: Request) -> dict[str, Json]:
    body = await request.json()
    if not isinstance(body, dict):
        raise InvalidArgument("the body must be an object")
    return body


def _rerun(body: Mapping[str, Json]) -> Rerun:
    fresh = body.get("fresh")
    return Rerun(
        again=Again(
            failed=_field(body, "failed", bool, False), start=_field(body, "from", str, "")
        ),
        inputs=_texts(body, "inputs"),
        fresh=None if fresh is None else new_run(fresh),
        by=_field(body, "by", str, ""),
        breaks=_breaks(body),
        use=_texts(body, "use"),
        timeout_s=_timeout(body),
        look=_field(body, "look", bool, False),
    )


def _who(request: Request) -> str:
    return "" if request.peer_uid is None else f"uid {request.peer_uid}"


def _as_lines(events: Iterable[Mapping[str, Json]]) -> bytes:
    lines = (json.dumps(event, separators=(",", ":"), ensure_ascii=False) for event in events)
    return "".join(f"{line}\n" for line in lines).encode()


def _log_lines(job: str, step: str, path: Path, tail: int) -> Iterator[dict[str, Json]]:
    """Lines of a log file, the last ``tail`` only unless that is 0. Blocks."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        lines: Iterable[str] = deque(file, maxlen=tail) if tail else file
        for line in lines:
            time, _, rest = line.rstrip("\n").partition(" ")
            stream, _, text = rest.partition(" ")
            yield {"job": job, "step": step, "time": time, "stream": stream, "line": text}


def _take(lines: Iterator[dict[str, Json]], count: int) -> list[dict[str, Json]]:
    return [line for _, line in zip(range(count), lines, strict=False)]


def new_run(body: Json) -> NewRun:
    """A request's body as a ``NewRun``.

    Raises:
        InvalidArgument: A field is missing or of the wrong type.
    """
    if not isinstance(body, dict):
        raise InvalidArgument("the body must be an object")
    workspace = Path(_field(body, "workspace", str, ""))
    if not workspace.is_absolute():
        raise InvalidArgument("'workspace' must be an absolute path", code="workspace_path")
    files = body.get("files")
    if files is not None and (
        not isinstance(files, list)
        or len(files) > _MAX_FILES
        or not all(isinstance(name, str) for name in files)
    ):
        raise InvalidArgument(f"'files' must be a list of at most {_MAX_FILES} texts")
    return NewRun(
        file=_field(body, "file", str, "pipeline.yaml"),
        text=_field(body, "text", str, ""),
        others=_texts(body, "others"),
        workspace=workspace,
        inputs=_texts(body, "inputs"),
        files=None if files is None else tuple(files),
        git=_git(_field(body, "git", dict, {})),
        by=_field(body, "by", str, ""),
        only=_field(body, "only", str, ""),
        untrusted=_field(body, "untrusted", bool, False),
        plan=_field(body, "plan", dict, {}) or None,
        breaks=_breaks(body),
        use=_texts(body, "use"),
        timeout_s=_timeout(body),
        trigger=_trigger(_field(body, "trigger", str, "manual")),
    )


def _field(body: Mapping[str, Json], name: str, kind: type[T], default: T) -> T:
    value = body.get(name, default)
    if not isinstance(value, kind):
        raise InvalidArgument(f"'{name}' is of the wrong type")
    return value


def _texts(body: Mapping[str, Json], name: str) -> dict[str, str]:
    values = _field(body, name, dict, {})
    if not all(isinstance(value, str) for value in values.values()):
        raise InvalidArgument(f"values of '{name}' must be texts")
    return values


def _breaks(body: Mapping[str, Json]) -> tuple[str, ...]:
    found = _field(body, "breaks", list, [])
    if not all(isinstance(each, str) for each in found):
        raise InvalidArgument("'breaks' must be a list of texts")
    return tuple(dict.fromkeys(found))


def _timeout(body: Mapping[str, Json]) -> float | None:
    limit_s = body.get("timeout_s")
    if limit_s is None:
        return None
    # The upper end keeps what is no number, and more than a clock can count, out.
    if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or not 0 < limit_s < 1e9:
        raise InvalidArgument("'timeout_s' must be a number of seconds, more than 0")
    if _breaks(body):
        raise InvalidArgument("a run with breakpoints waits for people and has no 'timeout_s'")
    return float(limit_s)


def _trigger(name: str) -> str:
    if name not in triggers.NAMES:
        raise InvalidArgument(f"'trigger' is one of {', '.join(triggers.NAMES)}")
    return name


def _git(given: Mapping[str, Json]) -> dict[str, Json]:
    kinds = {"sha": str, "short_sha": str, "branch": str, "tag": str, "dirty": bool}
    for name, value in given.items():
        if name not in kinds or not isinstance(value, kinds[name]):
            raise InvalidArgument(f"'git.{name}' is unknown or of the wrong type")
    return dict(given)
