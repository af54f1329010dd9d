"""Variables of ``env`` that no script ever sees: what is exported under the same name goes before them."""

from collections.abc import Iterable, Iterator
from typing import Final

from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.parse import Field
from linkspan.workflows.script import variable

_ALWAYS: Final = (
    *(("git", name) for name in ("sha", "short_sha", "branch", "tag", "dirty")),
    *(("run", name) for name in ("id", "name", "attempt")),
    ("job", "id"),
)


def warn_of_hidden(
    scene: Scene, field: Field | None, axes: Iterable[str] = (), needs: Iterable[str] = ()
) -> None:
    """LS1506 for each variable of the pipeline's ``env``, or of a job's, that has an exported name.

    Args:
        scene: Knows the inputs.
        field: ``env``.
        axes: Of the job's matrix.
        needs: Jobs that it waits for.
    """
    if field is None:
        return
    hiding = dict(_exported(scene.inputs, axes, needs))
    for name, each in scene.r.quiet_entries(field.value).items():
        if name in hiding:
            scene.r.fault(
                "LS1506",
                f"scripts do not see this '{name}': it is the name of what {hiding[name]} exports",
                each.key,
                "hidden",
                helps=[
                    "give it another name, or write it into `env` of the step, which goes before"
                ],
                severity="warning",
            )


def _exported(
    inputs: Iterable[str], axes: Iterable[str], needs: Iterable[str]
) -> Iterator[tuple[str, str]]:
    for context, name in _ALWAYS:
        yield variable(context, name), f"`{context}.{name}`"
    for name in inputs:
        yield variable("input", name), f"the input '{name}'"
    for name in axes:
        yield variable("matrix", name), f"the axis '{name}'"
    for name in needs:
        yield variable("needs", name, "result"), f"the job '{name}'"
