"""A whole file: what stands at its top, and the order in which its parts are read."""

import re
from typing import Final, get_args

from linkspan.sdk.diagnostics import Edit
from linkspan.workflows.loading.calls import read_document
from linkspan.workflows.loading.common import read_defaults
from linkspan.workflows.loading.exported import warn_of_hidden
from linkspan.workflows.loading.inputs import read_inputs, read_secrets
from linkspan.workflows.loading.jobs import read_jobs
from linkspan.workflows.loading.keys import CONCURRENCY, INCLUDE, REQUIREMENT, TOP
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.loading.triggers import read_triggers
from linkspan.workflows.loading.use import read_use
from linkspan.workflows.model import Concurrency, Include, Job, Requirement, Workflow
from linkspan.workflows.parse import Document, Field, Mapping, Node, Scalar
from linkspan.workflows.reader import Reader
from linkspan.workflows.triggers import Triggers
from linkspan.workflows.versions import Range, RangeInvalid

VERSION: Final = "v1"
_ON_CONFLICT: Final = get_args(Concurrency.__annotations__["on_conflict"])
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def read_pipeline(scene: Scene, document: Document) -> Workflow | None:
    """The pipeline of a document; None if it holds none at all."""
    r = scene.r
    if document.root is None:
        helps = ["begin with  linkspan: v1  and  jobs:"]
        r.fault("LS1008", "the file is empty", document.span_at(0, 1), helps=helps)
        return None
    top = r.table(document.root, "the pipeline", TOP)
    if not isinstance(document.root, Mapping):
        return None
    _version(scene, top, document)
    if "include" not in top:
        r.require(top, "jobs", "a pipeline", document.root, "jobs:")
    # Declarations first: what follows may name them.
    use = read_use(scene, top.get("use"))
    scene.secrets = read_secrets(scene, top.get("secrets"))
    inputs = read_inputs(scene, top.get("inputs"))
    scene.inputs = tuple(inputs)
    warn_of_hidden(scene, top.get("env"))
    if "defaults" in top:
        scene.defaults = read_defaults(scene, top["defaults"].value)
    includes, jobs = _included(scene, top.get("include"))
    jobs |= read_jobs(scene, top.get("jobs"), jobs)
    plain = document.file.rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml")
    return Workflow(
        name=scene.text(top, "name") or plain,
        file=document.file,
        text=document.text,
        others=scene.files.texts,
        triggers=read_triggers(scene, top["on"].value) if "on" in top else Triggers(),
        inputs=inputs,
        env=scene.texts(top.get("env"), "'env'"),
        secrets=scene.secrets,
        use=use,
        requires=_requires(scene, top.get("requires")),
        concurrency=scene.get(top, "concurrency", lambda n: _concurrency(scene, n)),
        includes=includes,
        jobs=jobs,
        cleanup=read_jobs(scene, top.get("finally"), jobs, cleanup=True),
        outputs=scene.texts(top.get("outputs"), "'outputs'"),
    )


def _version(scene: Scene, top: dict[str, Field], document: Document) -> None:
    r = scene.r
    if "linkspan" not in top:
        # Snippets and first drafts: the version is asked for, but nothing else depends on it.
        r.fault(
            "LS1008",
            "a pipeline needs the key 'linkspan', its syntax version",
            document.root.span if document.root else document.span_at(0, 1),
            helps=[f"linkspan: {VERSION}"],
            edits=_version_edits(scene, document),
        )
        return
    node = top["linkspan"].value
    version = r.text(node, "'linkspan'")
    if version is not None and version != VERSION:
        helps = [f"write {VERSION}, or upgrade Linkspan"]
        r.fault("LS1015", f"syntax version '{version}' is unknown here", node, helps=helps)


def _version_edits(scene: Scene, document: Document) -> list[Edit]:
    """A first line; not before `---` or a comment, and not where the whole is in braces."""
    root = document.root
    if root is None or document.text[root.start : root.start + 1] == "{":
        return []
    return [scene.r.insertion(root.start, f"linkspan: {VERSION}\n")]


def _requires(scene: Scene, field: Field | None) -> tuple[Requirement, ...]:
    if field is None:
        return ()
    found = (_requirement(scene, node) for node in scene.r.items(field.value, "'requires'"))
    return tuple(each for each in found if each is not None)


def _requirement(scene: Scene, node: Node) -> Requirement | None:
    r = scene.r
    fields = r.table(node, "an entry of 'requires'", REQUIREMENT)
    if not isinstance(node, Mapping):
        return None
    if ("role" in fields) == ("plugin" in fields):
        helps = ["{role: orchestrator, features: [rolling]}", "{plugin: NAME, version: '>=1.2'}"]
        r.fault("LS1008", "a requirement names a role or a plugin", node, helps=helps)
        return None
    for key, owner in (("features", "role"), ("version", "plugin")):
        if key in fields and owner not in fields:
            r.fault("LS1001", f"'{key}' belongs to `{owner}`", fields[key].key)
    version = scene.text(fields, "version")
    if version:
        try:
            Range(version)
        except RangeInvalid as fault:
            place = fields["version"].value
            r.fault("LS1013", f"the version {fault}", place, helps=["version: '>=1.2,<2'"])
            version = ""
    requirement = Requirement(
        role=scene.text(fields, "role"),
        features=scene.words(fields, "features"),
        plugin=scene.text(fields, "plugin"),
        version=version,
        span=node.span,
    )
    scene.check_requirement(requirement)
    return requirement


def _concurrency(scene: Scene, node: Node) -> Concurrency | None:
    r = scene.r
    if isinstance(node, Scalar):
        group = r.template(node, "'concurrency'")
        return None if group is None else Concurrency(group=group, span=node.span)
    fields = r.table(node, "'concurrency'", CONCURRENCY)
    if not isinstance(node, Mapping):
        return None
    if not r.require(fields, "group", "'concurrency'", node, "group: NAME"):
        return None
    group = scene.template(fields, "group")
    if group is None:
        return None
    on_conflict = scene.given(
        fields, "on-conflict", lambda n, w: r.choice(n, w, _ON_CONFLICT), "queue"
    )
    return Concurrency(group=group, on_conflict=on_conflict, span=node.span)  # type: ignore[arg-type]


def _included(scene: Scene, field: Field | None) -> tuple[tuple[Include, ...], dict[str, Job]]:
    """The included files and their jobs; theirs may use what this file declares."""
    if field is None:
        return (), {}
    r = scene.r
    includes: list[Include] = []
    jobs: dict[str, Job] = {}
    for node in r.one_or_more(field.value):
        include = _include(scene, node)
        if include is None:
            continue
        includes.append(include)
        path = scene.files.resolve(r.document.file, include.file)
        document = read_document(scene, path, node, include.digest)
        if document is None or document.root is None:
            continue
        reader = Reader(document)
        scene.files.readers.append(reader)
        inner = Scene(
            r=reader,
            verbs=scene.verbs,
            files=scene.files,
            defaults=scene.defaults,
            secrets=scene.secrets,
            use=scene.use,
            inputs=scene.inputs,
        )
        jobs |= _jobs_of(inner, document.root, jobs)
    return tuple(includes), jobs


def _jobs_of(scene: Scene, root: Node, taken: dict[str, Job]) -> dict[str, Job]:
    top = scene.r.table(root, "an included file", TOP)
    for name, field in top.items():
        if name not in ("linkspan", "name", "jobs", "defaults"):
            scene.r.fault(
                "LS1001",
                f"'{name}' cannot stand in an included file",
                field.key,
                helps=["it holds `jobs` and their `defaults`; the rest is the pipeline's own"],
            )
    if "defaults" in top:
        scene.defaults = read_defaults(scene, top["defaults"].value)
    return read_jobs(scene, top.get("jobs"), taken)


def _include(scene: Scene, node: Node) -> Include | None:
    r = scene.r
    if isinstance(node, Scalar):
        file = r.text(node, "an include")
        return None if file is None else Include(file=file, span=node.span)
    fields = r.table(node, "an entry of 'include'", INCLUDE)
    if not isinstance(node, Mapping):
        return None
    if not r.require(fields, "file", "an entry of 'include'", node, "file: ./PATH"):
        return None
    digest = scene.text(fields, "digest")
    if digest and _DIGEST.fullmatch(digest) is None:
        r.fault("LS1013", "a digest is sha256: and 64 hex digits", fields["digest"].value)
        return None
    return Include(file=scene.text(fields, "file"), digest=digest, span=node.span)
