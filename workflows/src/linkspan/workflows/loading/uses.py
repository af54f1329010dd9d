"""``uses`` and ``with``: the verb, the version asked for, and its settings."""

from collections.abc import Mapping
from typing import Final

import attrs

from linkspan.sdk.diagnostics import Span, did_you_mean
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.parse import Field, Node, Scalar
from linkspan.workflows.settings import read_settings
from linkspan.workflows.values import Value
from linkspan.workflows.versions import Range, RangeInvalid

_FOREIGN: Final[Mapping[str, tuple[str, str]]] = {
    "actions/checkout": ("sources are in the workspace already", "remove this step"),
    "actions/cache": (
        "caches belong to a job",
        "cache: [{path: DIR, key: \"NAME-${{ hash_files('LOCKFILE') }}\"}]",
    ),
    "actions/upload-artifact": ("artifacts belong to a job", "artifacts: {NAME: PATH}"),
    "actions/download-artifact": ("artifacts belong to a job", "load-artifacts: [NAME]"),
    "docker/build-push-action": (
        "building and pushing are verbs",
        "uses: build, then uses: push",
    ),
    "docker/login-action": ("logging in is a verb", "uses: login"),
    "docker/setup-buildx-action": ("the builder is there already", "remove this step"),
    "docker/setup-qemu-action": ("the builder is there already", "remove this step"),
}
_SETUP: Final = "actions/setup-"


@attrs.frozen(kw_only=True)
class Used:
    """What ``uses`` and ``with`` say.

    Attributes:
        verb: Named even if nobody answers it.
        nodes: Where each setting was written, also one that is wrong.
        granted: Secrets that the settings name.
    """

    verb: str = ""
    version: str = ""
    settings: dict[str, Value] = attrs.field(factory=dict)
    nodes: dict[str, Field] = attrs.field(factory=dict)
    granted: tuple[str, ...] = ()
    span: Span | None = None


def read_uses(scene: Scene, node: Node, fields: Mapping[str, Field]) -> Used:
    """The verb of a step and its settings, with all that is wrong noted."""
    r = scene.r
    text = r.text(node, "'uses'")
    if text is None or not isinstance(node, Scalar):
        return Used()
    name, at, version = text.partition("@")
    span = attrs.evolve(node.span, length=len(name)) if at and node.plain else node.span
    verb = scene.verbs.get(name)
    if verb is None:
        if not _is_foreign(scene, name, node):
            _unknown_verb(scene, text, name, version, node)
        return Used(verb=name, version=version, span=span)
    if at:
        _check_version(scene, node, name, version, verb.version, verb.provider)
    for key in ("image", "shell", "working-directory"):
        if key in fields:
            r.fault(
                "LS1001",
                f"'{key}' belongs to `run`, this step uses `{name}`",
                fields[key].key,
            )
    given = fields.get("with")
    granted: list[str] = []

    def on_secret(secret: str, place: Node) -> bool:
        there = scene.declared(secret, place)
        if there:
            granted.append(secret)
        return there

    settings, nodes = read_settings(r, verb, node, given, scene.check_feature, on_secret)
    return Used(
        verb=name,
        version=version,
        settings=settings,
        nodes=nodes,
        granted=tuple(granted),
        span=span,
    )


def _is_foreign(scene: Scene, name: str, node: Scalar) -> bool:
    answer = _FOREIGN.get(name)
    if answer is None and name.startswith(_SETUP):
        tool = name.removeprefix(_SETUP)
        answer = (f"tools come from the image of the step: one with {tool}", f"image: {tool}:TAG")
    if answer is None and name.startswith("docker://"):
        answer = ("a container is named by `image`", f"image: {name.removeprefix('docker://')}")
    if answer is None and name.startswith(("./", "../")):
        answer = ("another pipeline is called by a job", f"jobs: {{x: {{uses: {name}}}}}")
    if answer is None:
        return False
    scene.r.fault("LS1009", answer[0], node, helps=[answer[1]])
    return True


def _check_version(
    scene: Scene, node: Scalar, name: str, wanted: str, have: str, provider: str
) -> None:
    try:
        fits = wanted == "" or Range(wanted).holds(have)
    except RangeInvalid as fault:
        scene.r.fault("LS1013", f"the version of `{name}` {fault}", node, helps=[f"{name}@^2"])
        return
    if wanted == "":
        scene.r.fault("LS1013", "a version is missing after '@'", node, helps=[f"{name}@^{have}"])
    elif not fits:
        scene.r.fault(
            "LS1406",
            f"`{name}@{wanted}` is not what is installed: {provider}",
            node,
            helps=[f"write {name}@^{have}, or install another version"],
        )


def _unknown_verb(scene: Scene, text: str, name: str, version: str, node: Scalar) -> None:
    near = did_you_mean(name, scene.verbs)
    helps = [f"did you mean '{near}'?"] if near else []
    if "/" in name:
        package = f"linkspan-{name.replace('/', '-')}"
        try:
            bounds = Range(version).as_specifier() if version else ""
        except RangeInvalid:
            bounds = ""
        helps.append(f"pip install '{package}{bounds}'")
    if scene.verbs:
        helps.append(f"verbs you have: {', '.join(scene.verbs)}")
    else:
        helps.append("no installed plugin has verbs; install linkspan-standard-steps")
    span = node.span
    if node.plain and len(text) == span.length:
        span = attrs.evolve(span, length=len(text))
    scene.r.fault(
        "LS1401", f"no installed plugin answers `uses: {name}`", span, helps=helps, fix=near
    )
