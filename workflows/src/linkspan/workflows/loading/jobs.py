"""``jobs`` and ``finally``."""

from collections.abc import Collection
from typing import Final, get_args

from linkspan.workflows.loading.calls import read_call
from linkspan.workflows.loading.exported import warn_of_hidden
from linkspan.workflows.loading.keys import CACHE, JOB, LOAD
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.loading.services import read_services, read_volumes
from linkspan.workflows.loading.steps import read_steps
from linkspan.workflows.loading.strategy import read_strategy
from linkspan.workflows.model import Artifact, Cache, Job, LoadArtifact, Need
from linkspan.workflows.parse import Field, Mapping, Node, Scalar, Sequence

_SAVE: Final = get_args(Cache.__annotations__["save"])
_WITH_STEPS: Final = (
    "image",
    "services",
    "volumes",
    "cache",
    "artifacts",
    "load-artifacts",
    "outputs",
    "steps",
    "timeout",
)
"""Keys that a job that calls a pipeline cannot have."""


def read_jobs(
    scene: Scene, field: Field | None, taken: Collection[str], *, cleanup: bool = False
) -> dict[str, Job]:
    """``jobs``, or ``finally`` if ``cleanup``."""
    if field is None:
        return {}
    what = "'finally'" if cleanup else "'jobs'"
    jobs: dict[str, Job] = {}
    for name, each in scene.r.names(field.value, what).items():
        if name in taken:
            scene.r.fault("LS1014", f"job '{name}' is written twice", each.key)
        else:
            jobs[name] = _job(scene, name, each, cleanup=cleanup)
    if not jobs and isinstance(field.value, Mapping) and not field.value.entries:
        helps = ["write one:  {NAME: {steps: [{run: COMMAND}]}}"]
        scene.r.fault("LS1008", f"{what} holds no job", field.value, helps=helps)
    return jobs


def _job(scene: Scene, name: str, field: Field, *, cleanup: bool) -> Job:
    r, what = scene.r, f"job '{name}'"
    fields = r.table(field.value, what, JOB)
    written = r.quiet_entries(field.value)
    # Who wrote another tool's script is told about that.
    if isinstance(field.value, Mapping) and not {"uses", "script", "commands"} & written.keys():
        r.require(fields, "steps", what, field.key, "steps: [{run: COMMAND}]")
    if cleanup and "needs" in fields:
        r.fault(
            "LS1001",
            f"unknown key 'needs' in {what} of 'finally'",
            fields["needs"].key,
            notes=["jobs of `finally` begin together, after all others have ended"],
        )
        del fields["needs"]
    if "uses" in fields:
        for key in _WITH_STEPS:
            if key in fields:
                r.fault(
                    "LS1001",
                    f"{what} calls a pipeline: '{key}' belongs into that file",
                    fields[key].key,
                )
    elif "with" in fields:
        r.fault("LS1001", f"'with' belongs to `uses`, {what} has steps", fields["with"].key)
    image = scene.template(fields, "image")
    needs = _needs(scene, fields.get("needs"))
    strategy = read_strategy(scene, fields["strategy"]) if "strategy" in fields else None
    axes = {axis for cell in strategy.matrix.cells for axis in cell.values} if strategy else ()
    warn_of_hidden(scene, fields.get("env"), axes, (need.job for need in needs))
    return Job(
        id=name,
        name=scene.text(fields, "name"),
        file=r.document.file,
        needs=needs,
        needs_span=fields["needs"].value.span if "needs" in fields else None,
        condition=scene.get(fields, "if", r.condition),
        strategy=strategy,
        image=scene.defaults.image if image is None else image,
        env=scene.texts(fields.get("env"), "'env'"),
        secrets=scene.granted(fields),
        services=read_services(scene, fields.get("services")),
        volumes=read_volumes(scene, fields.get("volumes")),
        caches=_caches(scene, fields.get("cache")),
        artifacts=_artifacts(scene, fields.get("artifacts")),
        load_artifacts=_loads(scene, fields.get("load-artifacts")),
        outputs=scene.texts(fields.get("outputs"), "'outputs'"),
        environment=scene.template(fields, "environment"),
        lock=scene.template(fields, "lock"),
        lock_span=fields["lock"].value.span if "lock" in fields else None,
        labels=scene.labels(fields.get("labels"), "'labels'"),
        timeout_s=scene.get(fields, "timeout", lambda n: r.duration(n, "'timeout'")),
        continue_on_error=scene.flag(fields, "continue-on-error"),
        steps=read_steps(scene, fields.get("steps"), what),
        call=read_call(scene, fields["uses"], fields.get("with")) if "uses" in fields else None,
        span=field.key.span,
    )


def _needs(scene: Scene, field: Field | None) -> tuple[Need, ...]:
    needs: dict[str, Need] = {}
    for node in () if field is None else scene.r.one_or_more(field.value):
        name = scene.r.text(node, "an entry of 'needs'")
        if name is not None and name in needs:
            scene.r.fault("LS1014", f"'{name}' stands twice in 'needs'", node, severity="warning")
        elif name is not None:
            needs[name] = Need(job=name, span=node.span)
    return tuple(needs.values())


def _caches(scene: Scene, field: Field | None) -> tuple[Cache, ...]:
    if field is None:
        return ()
    found = (_cache(scene, node) for node in scene.r.one_or_more(field.value))
    return tuple(cache for cache in found if cache is not None)


def _cache(scene: Scene, node: Node) -> Cache | None:
    r = scene.r
    fields = r.table(node, "a cache", CACHE)
    if not isinstance(node, Mapping):
        return None
    examples = {"path": "path: ~/.cache/NAME", "key": "key: NAME-${{ hash_files('LOCKFILE') }}"}
    missing = [
        key for key in examples if not r.require(fields, key, "a cache", node, examples[key])
    ]
    if missing:
        return None
    path, key = scene.template(fields, "path"), scene.template(fields, "key")
    if path is None or key is None:
        return None
    return Cache(
        path=path,
        key=key,
        restore=scene.templates(fields, "restore"),
        save=scene.given(fields, "save", lambda n, w: r.choice(n, w, _SAVE), "always"),  # type: ignore[arg-type,return-value]
        span=node.span,
    )


def _artifacts(scene: Scene, field: Field | None) -> dict[str, Artifact]:
    if field is None:
        return {}
    found: dict[str, Artifact] = {}
    for name, each in scene.r.names(field.value, "'artifacts'").items():
        texts = []
        for node in scene.r.one_or_more(each.value):
            text = scene.r.template(node, "a path")
            if isinstance(text, str) and (text.startswith("/") or ".." in text.split("/")):
                scene.r.fault("LS1013", "an artifact lies in the workspace", node)
            elif text is not None:
                texts.append(text)
        found[name] = Artifact(name=name, paths=tuple(texts), span=each.key.span)
    return found


def _loads(scene: Scene, field: Field | None) -> tuple[LoadArtifact, ...]:
    if field is None:
        return ()
    found = (_load(scene, node) for node in scene.r.one_or_more(field.value))
    return tuple(load for load in found if load is not None)


def _load(scene: Scene, node: Node) -> LoadArtifact | None:
    r = scene.r
    if isinstance(node, Scalar):
        name = r.text(node, "an artifact")
        return None if name is None else LoadArtifact(name=name, span=node.span)
    if isinstance(node, Sequence):
        r.text(node, "an artifact")
        return None
    fields = r.table(node, "an entry of 'load-artifacts'", LOAD)
    if not r.require(fields, "name", "an entry of 'load-artifacts'", node, "name: NAME"):
        return None
    path = scene.text(fields, "path") or "."
    if path.startswith("/") or ".." in path.split("/"):
        r.fault("LS1013", "an artifact is put into the workspace", fields["path"].value)
        path = "."
    return LoadArtifact(
        name=scene.text(fields, "name"),
        job=scene.text(fields, "from"),
        path=path,
        span=node.span,
    )
