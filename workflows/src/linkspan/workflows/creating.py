"""From what a client asks for to a run's folder and its first record."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from linkspan.sdk.diagnostics import Diagnostic, render_all
from linkspan.sdk.errors import DataLoss, InvalidArgument
from linkspan.sdk.host import Host
from linkspan.workflows.again import Again
from linkspan.workflows.archive import PIPELINE
from linkspan.workflows.breakpoints import check_breaks
from linkspan.workflows.check import MAX_SHOWN, check
from linkspan.workflows.choosing import check_choices, not_open
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.files import SentFiles
from linkspan.workflows.garbage import no_collection
from linkspan.workflows.journal import VERSION
from linkspan.workflows.model import Step, Workflow
from linkspan.workflows.units import Frame, Unit
from linkspan.workflows.verbs import Verbs
from linkspan.workflows.workspace import copy_tree

_OTHERS: Final = "others.json"
"""Files that the pipeline includes or calls, by path."""


class InvalidPipeline(InvalidArgument):
    """The pipeline cannot run; ``details`` has the diagnostics."""

    default_code = "invalid_pipeline"

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        shown = [attrs.asdict(d, filter=lambda a, _: a.name != "source") for d in diagnostics]
        super().__init__(
            render_all(diagnostics[:MAX_SHOWN]), details={"diagnostics": shown[:MAX_SHOWN]}
        )


@attrs.frozen(kw_only=True)
class NewRun:
    """What a client asks for.

    Attributes:
        file: The pipeline's path as the user wrote it.
        text: What it holds.
        others: What the other files that it is made of hold, by path.
        inputs: As texts.
        workspace: Folder of the sources, on this host.
        files: Those of it that belong to the run, relative; None for all.
        git: What the client's repository says; see ``running.EMPTY_GIT``.
        by: Who asks.
        trigger: What begins it, as ``on`` names it.
        only: ``JOB`` or ``JOB/STEP``: nothing else runs; empty for all.
        untrusted: It may run scripts, without a way out of their network, and nothing else.
        plan: A kept plan that the run must follow; None for a run without one.
        use: Role → driver, before what the pipeline says.
        breaks: Where it is held for whoever debugs it: ``on-failure``, ``before:STEP``, ``after:STEP``.
        timeout_s: How long its first attempt may run; None for as long as it takes.
        passing: Somebody looks around in it: it takes no lock, enters no group, saves no cache, and is forgotten
            when it has ended.
    """

    file: str
    text: str
    workspace: Path
    others: Mapping[str, str] = attrs.field(factory=dict)
    inputs: Mapping[str, str] = attrs.field(factory=dict)
    files: tuple[str, ...] | None = None
    git: Mapping[str, Json] = attrs.field(factory=dict)
    by: str = ""
    trigger: str = "manual"
    only: str = ""
    untrusted: bool = False
    plan: Mapping[str, Json] | None = None
    breaks: tuple[str, ...] = ()
    use: Mapping[str, str] = attrs.field(factory=dict)
    timeout_s: float | None = None
    passing: bool = False


@attrs.frozen(kw_only=True)
class Rerun:
    """What a client asks for who wants a run again.

    Attributes:
        again: Which part of it.
        inputs: Those that change, as texts.
        fresh: Text and sources of today; None for the recorded ones.
        by: Who asks.
        breaks: Where it is held for whoever debugs it.
        use: Drivers for roles, in addition to those that the run was given.
        timeout_s: How long it may run; None for as long as it takes.
        look: Nothing but the step where it starts, held before it: to look around; see ``NewRun.passing``.
    """

    again: Again = Again()
    inputs: Mapping[str, str] = attrs.field(factory=dict)
    fresh: NewRun | None = None
    by: str = ""
    breaks: tuple[str, ...] = ()
    use: Mapping[str, str] = attrs.field(factory=dict)
    timeout_s: float | None = None
    look: bool = False


def checked(
    text: str, others: Mapping[str, str], file: str, verbs: Verbs, use: Mapping[str, str]
) -> Workflow:
    """A pipeline that can run. Blocks.

    Args:
        text: What its file holds.
        others: The other files that it is made of.
        file: Its path, for messages.
        verbs: What the installed plugins answer.
        use: Role → driver, before what the pipeline says.

    Raises:
        InvalidPipeline: It has errors.
        InvalidArgument: No plugin plays a role so; code ``invalid_use``.
    """
    check_choices(use, verbs)
    with no_collection():
        found = check(text, file, verbs, fetch=SentFiles(others), use=use)
    if found.workflow is None or found.errors:
        raise InvalidPipeline(found.errors or found.diagnostics)
    return found.workflow


def refuse_not_open(host: Host, workflow: Workflow) -> None:
    """Raise InvalidPipeline if it, or one that it calls, chooses a driver that this daemon has not open."""
    faults = not_open(host, workflow)
    if faults:
        raise InvalidPipeline(faults)


def prepare(folder: Path, new: NewRun, leave_out: Iterable[Path]) -> None:
    """Fill a run's folder: the text and a copy of the sources. Blocks."""
    folder.mkdir(parents=True)
    (folder / "jobs").mkdir()
    (folder / PIPELINE).write_text(new.text, encoding="utf-8")
    if new.others:
        (folder / _OTHERS).write_text(json.dumps(dict(new.others)), encoding="utf-8")
    own = [root for root in leave_out if root.exists()]
    copy_tree(new.workspace, folder / "source", new.files, leave_out=own)


def creation(run_id: str, workflow: Workflow, new: NewRun, verbs: Verbs) -> dict[str, Json]:
    """The ``run-created`` record, without what a rerun adds.

    Raises:
        InvalidArgument: A breakpoint names no step; code ``breakpoint``.
    """
    frame = Frame(workflow)
    units = list(frame.everything())
    check_breaks(new.breaks, units)
    used = {step.verb for unit in units for step in unit.job.all_steps() if step.verb}
    return {
        "version": VERSION,
        "run": run_id,
        "workflow": workflow.name,
        "file": new.file,
        "workspace": str(new.workspace),
        "digest": digest(new.text, new.others),
        "git": dict(new.git),
        "plugins": {verb: verbs[verb].provider for verb in sorted(used)},
        "jobs": [_job(unit) for unit in units],
        "by": new.by,
        "trigger": new.trigger,
        "only": new.only,
        "untrusted": new.untrusted,
        **({"breaks": list(new.breaks)} if new.breaks else {}),
        **({"passing": True} if new.passing else {}),
        **({"use": dict(new.use)} if new.use else {}),
        **({"drivers": chosen} if (chosen := dict(frame.use)) else {}),
    }


def _job(unit: Unit) -> dict[str, Json]:
    cell = {} if unit.cell is None else {"cell": unit.cell.key}
    steps: list[dict[str, Json]] = []
    for step in unit.job.steps:
        steps.append(_step(step, ""))
        steps += [_step(each, step.id) for each in step.parallel]
    return {
        "id": unit.id,
        "name": unit.name,
        "needs": unit.needs,
        "finally": unit.cleanup,
        "steps": steps,
        **cell,
    }


def _step(step: Step, group: str) -> dict[str, Json]:
    found: dict[str, Json] = {"id": step.id, "title": step.title, "verb": step.verb}
    if group:
        found["group"] = group
    if step.background:
        found["background"] = True
    return found


def digest(text: str, others: Mapping[str, str]) -> str:
    """Of a pipeline and all files that it is made of; without others it is that of its text."""
    found = hashlib.sha256(text.encode())
    for path, other in sorted(others.items()):
        found.update(f"\0{path}\0{other}".encode())
    return f"sha256:{found.hexdigest()}"


def recorded(folder: Path, expected: str) -> tuple[str, dict[str, str]]:
    """The text of a run's pipeline and of the other files that it is made of. Blocks.

    Raises:
        DataLoss: They are not what was recorded.
    """
    text = (folder / PIPELINE).read_text("utf-8")
    others = _read_others(folder / _OTHERS)
    if digest(text, others) != expected:
        raise DataLoss(f"the recorded pipeline of run {folder.name} is damaged")
    return text, others


def _read_others(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        # The digest tells that it is damaged.
        return {}
    return found if isinstance(found, dict) else {}
