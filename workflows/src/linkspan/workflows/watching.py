"""A run is begun and watched: its events are shown, keys and Ctrl-C are passed on."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linkspan.core.cli.failure import (
    FAILED,
    INTERRUPTED,
    LOCKED,
    REFUSED,
    TIMED_OUT,
    UNREACHABLE,
    USAGE,
    Failure,
    of_error,
)
from linkspan.core.cli.session import Session
from linkspan.core.client.errors import ApiError, ConnectionLost
from linkspan.core.client.short import Api, segment
from linkspan.sdk.errors import LinkspanError
from linkspan.workflows.commands.completing import BASE
from linkspan.workflows.commands.shared import user_name
from linkspan.workflows.keys import ESCAPE, Keys
from linkspan.workflows.state import GOOD, RunState

if TYPE_CHECKING:
    from linkspan.core.cli.progress import Display
    from linkspan.workflows.view import RunView


def begin(
    session: Session, start: Callable[[], Any], *, detach: bool = False, junit: str | None = None
) -> int:
    """Start a run, or go on with one, and watch it.

    Ctrl-C while the daemon is asked to start counts for the run, which may have begun already.
    """
    try:
        with _Patience(session) as patience:
            started = start()
    except ApiError as error:
        wrong = error.code in ("invalid_pipeline", "invalid_input", "invalid_use", "breakpoint")
        failure = of_error(error)
        failure.status = USAGE if wrong else failure.status
        if error.code == "plan_stale":
            failure.id, failure.status = "LS1409", REFUSED
        raise failure from error
    if detach:
        session.terminal.print(started["id"])
        if patience.asked:
            cancel_run(session.api, started["id"], kill=False)
            return INTERRUPTED
        return 0
    asked = patience.asked
    return watch(session, started["id"], after=started["attempt"], junit=junit, asked=asked)


class _Patience:
    """Holds Ctrl-C back while the daemon is asked to start a run."""

    def __init__(self, session: Session) -> None:
        self.asked = False
        self._session = session
        self._before: Any = None

    def __enter__(self) -> "_Patience":
        self._before = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, *_: object) -> None:
        if self.asked:
            self._session.terminal.note("\nnobody knows whether it has begun: linkspan workflow ls")
            raise KeyboardInterrupt
        self.asked = True
        self._session.terminal.note("\nthe run is asked to stop as soon as it has begun")


def watch(
    session: Session,
    run_id: str,
    *,
    after: int = 0,
    junit: str | None = None,
    asked: bool = False,
) -> int:
    """Show a run until it is not active; Ctrl-C asks it to stop, a second one kills.

    At a terminal keys do the same, and more: `esc` leaves it running.

    Args:
        session: Of the command.
        run_id: The run.
        after: What came in attempts up to this one is known, and not shown again.
        junit: Where a report goes.
        asked: It was asked to stop before there was anything to see.
    """
    lost = left = False
    with Stopper(session, run_id) as stopper:
        # Loaded only now: it takes a while, in which Ctrl-C already means the run.
        from linkspan.workflows.view import RunView, blame, ending, summary

        view = RunView(session, run_id, after=after)
        live = view.display.mode == "live"
        stopper.say = view.announce if live else stopper.say
        if asked:
            stopper.interrupted()
        with Keys(wanted=live) as keys, view.display:
            view.keys = keys.fd is not None
            try:
                for event in _events(session, run_id, view.update, keys):
                    if isinstance(event, str):
                        left = _typed(view, stopper, event)
                        if left:
                            break
                        continue
                    view.take(event)
                    if event["kind"] == "break-reached":
                        keys.pause()
                        _held(session, run_id, event, view.display, stopper)
                        keys.resume()
            except ConnectionLost:
                lost = True
    state = view.state
    if left:
        session.terminal.note(f"run {run_id} goes on: linkspan workflow attach {run_id}")
        return 0
    if session.format and session.format != "table":
        session.document(state.as_json(active=False))
    elif not session.quiet and session.terminal.progress != "json":
        summary(session, state)
    if session.terminal.progress != "json":
        for line in ending(session, state, interruption=view.interruption):
            session.terminal.note(line)
        for line in () if lost else blame(session, state):
            session.terminal.note(line)
    if junit is not None:
        _write_junit(junit, state)
    if lost:
        return UNREACHABLE
    if state.suspended and not state.result and not session.format and _decided(session, state):
        return watch(session, run_id, after=state.attempt, junit=junit)
    return INTERRUPTED if stopper.asked and state.result not in GOOD else status_of(state)


def _decided(session: Session, state: RunState) -> bool:
    """Let whoever watches decide what a run asks, if somebody can; whether it goes on."""
    from linkspan.workflows import break_cli

    if not break_cli.at_terminal(session):
        return False
    place = next(
        f"{job.id}/{step.id}"
        for job in state.jobs.values()
        for step in job.steps.values()
        if step.state == "suspended"
    )
    sys.stderr.write(f"  {place}: y approve   n reject   Enter leave it: ")
    sys.stderr.flush()
    vote = {"y": "approve", "n": "reject"}.get(sys.stdin.readline().strip().lower()[:1])
    if vote is None:
        return False
    body = {"vote": vote, "place": place, "comment": "", "by": user_name()}
    try:
        said = session.api.post(f"{BASE}/{segment(state.id)}/decide", body=body)
    except LinkspanError as error:
        session.terminal.error(of_error(error).render())
        return False
    if not said["decision"]:
        session.terminal.note(f"run {state.id} waits for others to approve, too")
    return bool(said["decision"])


def _held(
    session: Session,
    run_id: str,
    record: Mapping[str, Any],
    display: "Display",
    stopper: "Stopper",
) -> None:
    """Ask at a breakpoint what is to happen; without a terminal say how it can be told."""
    from linkspan.workflows import break_cli

    held = break_cli.still_held(session, run_id, record)
    if held is None:
        return
    if not break_cli.at_terminal(session):
        if session.terminal.progress != "json":
            for line in break_cli.words(session, run_id, held):
                session.terminal.note(line)
        return
    display.pause()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        break_cli.ask(session, run_id, held)
    except KeyboardInterrupt:
        stopper.interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


def status_of(state: RunState) -> int:
    """The exit status that a run's end has."""
    if state.result in GOOD:
        return 0
    if state.suspended and not state.result:
        return LOCKED
    return {"rejected": REFUSED, "timed-out": TIMED_OUT}.get(state.result, FAILED)


def _write_junit(path: str, state: RunState) -> None:
    from linkspan.workflows.junit import report

    try:
        Path(path).write_text(report(state), encoding="utf-8")
    except OSError as error:
        raise Failure(f"'{path}' cannot be written: {error.strerror}") from error


def _typed(view: "RunView", stopper: "Stopper", key: str) -> bool:
    """Do what a key says; whether it is to leave the run to itself."""
    if view.asks:
        view.asks = False
        if key == "y":
            stopper.interrupted()
        return False
    if key == "c":
        view.asks = True
    elif key == "l":
        view.toggle_logs()
    return key == ESCAPE


def _events(
    session: Session, run_id: str, idle: Callable[[], None], keys: Keys
) -> Iterator[Mapping[str, Any] | str]:
    """A run's events, and keys that were typed; ``idle`` is called four times a second while nothing happens."""
    import json
    import select

    with session.api.open("GET", f"{BASE}/{segment(run_id)}/events") as answer:
        pieces = answer.pieces()
        rest = b""
        while True:
            # What may be left of a chunk is its line end; the next chunk is not here then.
            if bytes(answer.reader.buffer) in (b"", b"\r\n"):
                awaited: list[Any] = [answer.sock, *([] if keys.fd is None else [keys.fd])]
                ready, _, _ = select.select(awaited, [], [], 0.25)
                if keys.fd in ready:
                    yield keys.read()
                if answer.sock not in ready:
                    idle()
                    continue
            piece = next(pieces, None)
            if piece is None:
                return
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line:
                    yield json.loads(line)


class Stopper:
    """Turns Ctrl-C into a request to the daemon: once to stop, twice to kill, then to leave.

    Attributes:
        asked: How often.
        say: Tells what was done.
    """

    def __init__(
        self,
        session: Session,
        run_id: str,
        *,
        once: str = "asked the run to stop; Ctrl-C again kills, and skips `finally`",
        twice: str = "killing what runs",
    ) -> None:
        self.asked = 0
        self._words = (once, twice)
        # A terminal shows ^C where the cursor is; the words begin on a line of their own.
        self.say: Callable[[str], None] = lambda words: session.terminal.note(f"\n{words}")
        self._session = session
        self._run_id = run_id
        self._before: Any = None

    def __enter__(self) -> "Stopper":
        self._before = signal.signal(signal.SIGINT, self.interrupted)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def interrupted(self, *_: object) -> None:
        """Ctrl-C was typed."""
        self.asked += 1
        if self.asked > 2:
            raise KeyboardInterrupt
        kill = self.asked == 2
        self.say(self._words[kill])
        try:
            cancel_run(self._session.api, self._run_id, kill=kill)
        except LinkspanError as error:
            self._session.terminal.error(of_error(error).render())


def cancel_run(api: Api, run_ref: str, *, kill: bool) -> Any:
    """Ask a run to stop, or kill it; what the daemon says of it."""
    return api.post(f"{BASE}/{segment(run_ref)}/cancel", {"kill": kill})
