"""A job that is another pipeline, and files that are included."""

import hashlib
from collections.abc import Mapping as MappingType
from typing import Final

import attrs

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.sdk.manifest import VerbSetting
from linkspan.workflows.loading.scene import MAX_CALLS, MAX_FILES, Scene, inherited
from linkspan.workflows.model import Call, Input, Workflow
from linkspan.workflows.parse import Document, Field, Node, ParseFailed, Scalar, decode, parse
from linkspan.workflows.reader import Reader
from linkspan.workflows.settings import read_value
from linkspan.workflows.values import Value

_TYPES: Final = {"choice": "string"}


def read_call(scene: Scene, uses: Field, with_: Field | None) -> Call | None:
    """``uses: ./other.yaml`` with ``with``."""
    r, node = scene.r, uses.value
    ref = r.text(node, "'uses'")
    if ref is None or not isinstance(node, Scalar):
        return None
    if not ref.startswith(("./", "../")):
        helps = ["a verb belongs to a step:  steps: [{uses: " + ref + "}]"]
        r.fault("LS1013", "a job's `uses` names a pipeline of the workspace", node, helps=helps)
        return None
    path = scene.files.resolve(r.document.file, ref)
    workflow = _called(scene, path, node)
    inputs = {} if workflow is None else _inputs(scene, workflow, ref, uses, with_)
    return Call(file=path, workflow=workflow, inputs=inputs, span=node.span)


def _called(scene: Scene, path: str, node: Scalar) -> Workflow | None:
    # The reader of whole pipelines reads jobs, and a job may be a whole pipeline.
    from linkspan.workflows.loading.pipeline import read_pipeline

    files = scene.files
    if path in files.calling:
        circle = " -> ".join([*files.calling[files.calling.index(path) :], path])
        scene.r.fault("LS1102", f"pipelines call each other: {circle}", node)
        return None
    if len(files.calling) >= MAX_CALLS:
        scene.r.fault("LS1007", f"pipelines call each other more than {MAX_CALLS} deep", node)
        return None
    document = read_document(scene, path, node)
    if document is None:
        return None
    reader = Reader(document)
    files.readers.append(reader)
    before = files.calling
    files.calling = (*before, path)
    inner = Scene(r=reader, verbs=scene.verbs, files=files, use=inherited(scene.use))
    workflow = read_pipeline(inner, document)
    files.calling = before
    return workflow


def read_document(scene: Scene, path: str, node: Node, digest: str = "") -> Document | None:
    """Another file of the workspace; None, with the fault at the place that names it.

    Args:
        digest: ``sha256:…`` that it must have; empty for any.
    """
    files, r = scene.files, scene.r
    if len(files.texts) >= MAX_FILES:
        r.fault("LS1007", f"a pipeline may be made of {MAX_FILES} files", node)
        return None
    if files.fetch is None:
        r.fault("LS1017", f"'{path}' cannot be read from here", node)
        return None
    try:
        data = files.fetch(path)
    except OSError as error:
        why = error.strerror or str(error)
        r.fault("LS1017", f"'{path}' cannot be read: {why.lower()}", node)
        return None
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if digest and digest != found:
        r.fault("LS1017", f"'{path}' is not the file that was meant", node, helps=[found])
        return None
    try:
        document = parse(decode(data, path), path)
    except ParseFailed as failed:
        r.diagnostics += failed.diagnostics
        return None
    files.texts[path] = document.text
    return document


def _inputs(
    scene: Scene, workflow: Workflow, ref: str, uses: Field, with_: Field | None
) -> dict[str, Value]:
    r = scene.r
    found: MappingType[str, Field] = {} if with_ is None else r.entries(with_.value, "'with'")
    values: dict[str, Value] = {}
    for name, field in found.items():
        spec = workflow.inputs.get(name)
        if spec is None:
            near = did_you_mean(name, workflow.inputs)
            known = ", ".join(workflow.inputs) or "none"
            helps = [f"did you mean '{near}'?" if near else f"inputs: {known}"]
            r.fault("LS1402", f"{ref} has no input '{name}'", field.key, helps=helps, fix=near)
        else:
            values[name] = read_value(r, field.value, f"'{name}'", _as_setting(spec))
    for name, spec in workflow.inputs.items():
        if spec.required and spec.default is None and name not in found:
            place = uses.value if with_ is None else with_.key
            r.fault(
                "LS1403", f"{ref} needs the input '{name}'", place, helps=[f"with: {{{name}: ...}}"]
            )
    return values


def _as_setting(spec: Input) -> VerbSetting:
    kind = _TYPES.get(spec.type, spec.type)
    return attrs.evolve(VerbSetting(type=kind), options=spec.options)
