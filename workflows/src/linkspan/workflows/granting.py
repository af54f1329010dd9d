"""Secrets: fetched when a job or step that was granted them begins, masked from then on."""

from collections.abc import Iterable, Mapping

from linkspan.workflows.running import Run
from linkspan.workflows.secret_values import source_of, value_of
from linkspan.workflows.units import Frame


async def grant(run: Run, frame: Frame, names: Iterable[str]) -> Mapping[str, str]:
    """The values of secrets by their names; nothing that shows or records a text has them from now on.

    Raises:
        NotFound: One is not there.
        InvalidArgument: One is too short to be masked.
        LinkspanError: Its driver cannot be asked.
    """
    granted: dict[str, str] = {}
    for name in names:
        key = f"{frame.prefix}{name}"
        if key not in run.secrets:
            value = await value_of(run.host, source_of(frame.workflow.secrets[name]))
            if value:
                run.recorder.masks.add(name, value)
            run.secrets[key] = value
        granted[name] = run.secrets[key]
    return granted
