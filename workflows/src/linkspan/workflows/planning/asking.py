"""What a client asks: plan a run; or start one, but only as it was planned."""

import logging
from collections.abc import Sequence
from functools import partial

import trio

from linkspan.sdk.errors import Conflict
from linkspan.sdk.host import Host
from linkspan.workflows.calling import CallWorkers, PluginCalls
from linkspan.workflows.check import check
from linkspan.workflows.choosing import check_choices
from linkspan.workflows.creating import InvalidPipeline, NewRun, digest
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.files import SentFiles
from linkspan.workflows.inputs import read_inputs
from linkspan.workflows.planning.document import check_document, differences
from linkspan.workflows.planning.planner import Circumstances, Planner
from linkspan.workflows.verbs import Verbs

log = logging.getLogger(__name__)


class StalePlan(Conflict):
    """A run would do something else than was planned; ``details`` has the differences."""

    default_code = "plan_stale"

    def __init__(self, moved: Sequence[str]) -> None:
        super().__init__(
            "\n".join(["the world has moved since the plan", *moved]),
            details={"differences": list(moved)},
            help="plan again: linkspan workflow plan NAME --out FILE",
        )


async def plan_run(host: Host, verbs: Verbs, new: NewRun, nursery: trio.Nursery) -> dict[str, Json]:
    """Say what a run would do, and all that would make it fail; nothing is changed or kept.

    Raises:
        InvalidPipeline: It cannot be read at all.
        InvalidArgument: Inputs are wrong (code ``invalid_input``), or a choice of drivers (``invalid_use``).
    If cancelled: clean.
    Plugins that hang are left behind in the nursery.
    """
    check_choices(new.use, verbs)
    look = partial(check, fetch=SentFiles(new.others), use=new.use)
    checked = await trio.to_thread.run_sync(look, new.text, new.file, verbs)
    if checked.workflow is None:
        raise InvalidPipeline(checked.diagnostics)
    circumstances = Circumstances(
        workspace=new.workspace,
        files=new.files,
        given=new.inputs,
        inputs=read_inputs(checked.workflow, new.inputs),
        git=new.git,
        use=new.use,
        digest=digest(new.text, new.others),
    )
    workers = CallWorkers(nursery)
    calls = PluginCalls(workers=workers, say=log.warning)
    try:
        return (await Planner(host, verbs, checked, circumstances, calls).plan()).as_json()
    finally:
        workers.close()


async def refuse_if_moved(host: Host, verbs: Verbs, new: NewRun, nursery: trio.Nursery) -> None:
    """Raise StalePlan unless a run would do what was planned; one without a plan may do anything."""
    if new.plan is None:
        return
    kept = check_document(new.plan)
    now = await plan_run(host, verbs, new, nursery)
    moved = list(differences(kept, now))
    moved += [problem["headline"] for problem in now["problems"]]
    if moved:
        raise StalePlan(moved)
