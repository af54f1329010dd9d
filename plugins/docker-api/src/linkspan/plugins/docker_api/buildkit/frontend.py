"""What a BuildKit client asks of the frontend ``dockerfile.v0``, as a request of ours."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from linkspan.plugins.docker_api.buildkit.definitions import image_of
from linkspan.plugins.docker_api.buildkit.wire import Message
from linkspan.sdk.build_client import ClientFolder
from linkspan.sdk.drivers.builder import BuildRequest, CacheImport
from linkspan.sdk.errors import InvalidArgument, PermissionDenied, Unsupported
from linkspan.sdk.model.container import Resources, Ulimit
from linkspan.sdk.units import parse_size

FRONTENDS: Final = ("dockerfile.v0", "gateway.v0")
_IMAGES: Final = ("docker/dockerfile", "docker.io/docker/dockerfile")
_SHM_BYTES: Final = 64 << 20
_UPLOADED: Final = "http://buildkit-session/"
_OPTIONS: Final = frozenset(
    {
        *("context", "contextkey", "dockerfilekey", "filename", "target", "platform", "no-cache"),
        *("image-resolve-mode", "force-network-mode", "add-hosts", "ulimit", "cgroup-parent"),
        *("shm-size", "cache-imports", "cache-from", "source", "requestid", "multi-platform"),
        # What the client can do, and the words after "# syntax=": nothing to be done about them.
        *("frontend.caps", "cmdline"),
    }
)
# The last two say where the context came from, and what its images are: for attestations.
_OPTION_KINDS: Final = (
    "build-arg:",
    "label:",
    "context:",
    "attest:",
    "vcs:",
    "input-metadata:",
    "local-sessionid:",
)
# Where other names than the usual ones would lead to other folders of the client.
_FIXED: Final = {"contextkey": "context", "dockerfilekey": "dockerfile"}


def build_request(
    attrs: Mapping[str, str], imports: Sequence[Message], inputs: Mapping[str, bytes]
) -> BuildRequest:
    """A request without names for its result.

    Args:
        attrs: ``FrontendOpt``.
        imports: Caches to look into (``CacheOptionsEntry``).
        inputs: Definitions that contexts name.

    Raises:
        InvalidArgument: A value is malformed.
        Unsupported: What this builder cannot do.
    """
    _check_options(attrs)
    no_cache = attrs.get("no-cache")
    context = attrs.get(attrs.get("contextkey", "context"), "")
    return BuildRequest(
        context=None,
        remote="" if context.startswith(_UPLOADED) or "://" not in context else context,
        file=attrs.get("filename") or "Dockerfile",
        args=dict(_prefixed(attrs, "build-arg:")),
        labels=_prefixed(attrs, "label:"),
        target=attrs.get("target", ""),
        platform=_platform(attrs.get("platform", "")),
        no_cache=no_cache == "",
        no_cache_stages=tuple(filter(None, (no_cache or "").split(","))),
        pull=attrs.get("image-resolve-mode") == "pull",
        network_mode=_network(attrs.get("force-network-mode", "")),
        extra_hosts=tuple(word.replace("=", ":", 1) for word in _words(attrs.get("add-hosts", ""))),
        resources=_resources(attrs),
        shm_size_bytes=parse_size(attrs["shm-size"]) if attrs.get("shm-size") else _SHM_BYTES,
        contexts=_contexts(attrs, inputs),
        cache_from=_caches(attrs, imports),
        details=True,
    )


def check_solve(asked: Message) -> None:
    """Refuse what a ``SolveRequest`` asks for beside its frontend and outputs.

    Raises:
        PermissionDenied: Builds may not do that here.
        Unsupported: Something that BuildKit has and Linkspan has not.
    """
    for entitlement in asked.texts(9):
        if entitlement != "network.host":
            raise PermissionDenied(
                f"granting entitlement {entitlement} is not allowed by build daemon configuration"
            )
    if asked.data(12) or asked.text(15):
        raise Unsupported("policies for the sources of a build are not supported")


def uploaded_context(attrs: Mapping[str, str]) -> str:
    """The path under which the client's session has the context as a tar; empty if it is none."""
    context = attrs.get(attrs.get("contextkey", "context"), "")
    return context.removeprefix(_UPLOADED) if context.startswith(_UPLOADED) else ""


def check_frontend(name: str, attrs: Mapping[str, str]) -> None:
    """Refuse what is no frontend of ours. Raises Unsupported."""
    source = attrs.get("source", "").partition(":")[0].partition("@")[0]
    if name not in FRONTENDS or (name == "gateway.v0" and source not in _IMAGES):
        raise Unsupported(
            f"the frontend '{attrs.get('source') or name}' is not supported",
            help="only Dockerfiles are built: use docker/dockerfile:1",
        )


def _check_options(attrs: Mapping[str, str]) -> None:
    """Refuse what would be passed over. Raises Unsupported."""
    for name, value in attrs.items():
        if name not in _OPTIONS and not name.startswith(_OPTION_KINDS):
            raise Unsupported(
                f"the frontend option '{name}' is not supported", help="build without it"
            )
        if name in _FIXED and value != _FIXED[name]:
            raise Unsupported(f"{name} must be '{_FIXED[name]}', not '{value}'")
    for kind, value in _prefixed(attrs, "attest:").items():
        words = _words(value)
        # Clients that do not ask whether it can be had send a provenance for images that hold one.
        if "disabled=true" not in words and "inline-only=true" not in words:
            raise Unsupported(
                f"an attestation of the kind '{kind}' cannot be attached",
                help=f"build with --{kind}=false",
            )


def _prefixed(attrs: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        name.removeprefix(prefix): value for name, value in attrs.items() if name.startswith(prefix)
    }


def _words(text: str) -> list[str]:
    return next(csv.reader([text]), [])


def _platform(text: str) -> str:
    if "," in text:
        raise Unsupported(f"one platform is built at a time, not '{text}'")
    return text


def _network(mode: str) -> str:
    modes = {"": "default", "sandbox": "default", "host": "host", "none": "none"}
    if mode not in modes:
        raise InvalidArgument(f"invalid network mode {mode}")
    return modes[mode]


def _resources(attrs: Mapping[str, str]) -> Resources:
    limits = []
    for word in _words(attrs.get("ulimit", "")):
        name, _, values = word.partition("=")
        soft, _, hard = values.partition(":")
        try:
            limits.append(Ulimit(name=name, soft=int(soft), hard=int(hard or soft)))
        except ValueError as error:
            raise InvalidArgument(f"invalid ulimit '{word}'") from error
    return Resources(cgroup_parent=attrs.get("cgroup-parent", ""), ulimits=tuple(limits))


def _contexts(
    attrs: Mapping[str, str], inputs: Mapping[str, bytes]
) -> Mapping[str, Path | str | ClientFolder]:
    found: dict[str, Path | str | ClientFolder] = {}
    for name, value in _prefixed(attrs, "context:").items():
        kind, _, rest = value.partition(":")
        if kind == "docker-image":
            found[name] = rest.removeprefix("//")
        elif kind == "local":
            found[name] = ClientFolder(rest)
        elif kind == "input" and rest in inputs:
            found[name] = image_of(inputs[rest])
        else:
            raise Unsupported(f"the build context '{name}' cannot be of the kind '{kind}'")
    return found


def _caches(attrs: Mapping[str, str], imports: Sequence[Message]) -> tuple[CacheImport, ...]:
    listed: Any = []
    try:
        listed = json.loads(attrs.get("cache-imports", "")) if attrs.get("cache-imports") else []
        found = [(each["Type"], each["Attrs"].get("ref", "")) for each in listed]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidArgument(f"the caches to import are malformed: {error}") from error
    found += [("registry", name) for name in _words(attrs.get("cache-from", ""))]
    found += [(each.text(1), each.text_map(2).get("ref", "")) for each in imports]
    for kind, reference in found:
        if kind != "registry" or not reference:
            raise Unsupported(f"a cache of type '{kind}' cannot be imported; use type=registry")
    return tuple(CacheImport(reference=name) for name in dict.fromkeys(name for _, name in found))
