"""How an image was made: a predicate of SLSA provenance v1, and the in-toto statement around it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from linkspan.sdk.drivers.builder import BaseImage, BuildRequest
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.step import StepIntent
from linkspan.sdk.reference import parse_reference

PREDICATE: Final = "application/vnd.linkspan.provenance.v1+json"
"""Media type under which a built image keeps its predicate."""
IN_TOTO: Final = "application/vnd.in-toto+json"
"""Media type of a statement, and of the artifact that carries it."""
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
_STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
_BUILD_TYPE: Final = "urn:linkspan:build:v1"
_SECRET_WORD: Final = re.compile(
    r"(^|[_-])(password|passwd|secret|token|apikey)($|[_-])", re.IGNORECASE
)


def predicate(
    intent: StepIntent,
    request: BuildRequest,
    bases: Sequence[BaseImage],
    *,
    daemon: str,
    version: str,
    started: str,
    finished: str,
) -> bytes:
    """What is known about a build when it has ended.

    Args:
        daemon: Its id, which stands for who has built.
        version: Of Linkspan.
        started, finished: RFC 3339.
    """
    document = {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": _parameters(intent, request),
            "internalParameters": {"drivers": dict(intent.use)},
            "resolvedDependencies": [*map(_base, bases), *_sources(intent.git)],
        },
        "runDetails": {
            "builder": {"id": f"urn:linkspan:daemon:{daemon}", "version": {"linkspan": version}},
            "metadata": {
                "invocationId": f"{intent.run_id}/{intent.job}/{intent.step}/{intent.attempt}",
                "startedOn": started,
                "finishedOn": finished,
            },
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def statement(predicate_data: bytes, subjects: Mapping[str, str]) -> bytes:
    """A predicate about images.

    Args:
        predicate_data: From ``predicate``.
        subjects: Reference → digest of its manifest, ``sha256:…``.
    """
    document = {
        "_type": _STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
            for name, digest in subjects.items()
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": json.loads(predicate_data),
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def _parameters(intent: StepIntent, request: BuildRequest) -> Mapping[str, Any]:
    """What whoever asked for the build could choose; of secrets only that they were given."""
    found = {
        "context": intent.settings["context"],
        "file": request.file,
        "target": request.target,
        "platform": request.platform,
        "args": {
            name: "***" if _SECRET_WORD.search(name) else value
            for name, value in request.args.items()
        },
        "labels": dict(request.labels),
        "secrets": sorted(request.secrets),
        "noCache": request.no_cache,
        "cacheFrom": [each.reference for each in request.cache_from],
    }
    return {name: value for name, value in found.items() if value}


def _base(base: BaseImage) -> Mapping[str, Any]:
    name = _image_url(base.name, str(base.platform))
    if base.digest:
        return {"uri": name, "digest": {"sha256": base.digest.removeprefix("sha256:")}}
    # It was made here and never pushed: only its config has a digest.
    return {
        "uri": name,
        "digest": {"sha256": base.image_id.removeprefix("sha256:")},
        "mediaType": "application/vnd.oci.image.config.v1+json",
    }


def _image_url(name: str, platform: str) -> str:
    """``pkg:docker/team/app@1?repository_url=r.example.test&platform=linux%2Famd64``."""
    try:
        reference = parse_reference(name).with_default_tag()
    except InvalidArgument:
        return f"pkg:docker/{quote(name, safe='')}?{urlencode({'platform': platform})}"
    host = "" if reference.domain == "docker.io" else reference.domain
    path = reference.path.removeprefix("library/") if not host else reference.path
    query = {"repository_url": host} if host else {}
    version = quote(reference.tag or reference.digest, safe="")
    return f"pkg:docker/{path}@{version}?{urlencode({**query, 'platform': platform})}"


def _sources(git: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if not git.get("sha"):
        return ()
    notes = {name: git[name] for name in ("branch", "tag", "dirty") if git.get(name)}
    found = {"name": "sources", "digest": {"gitCommit": git["sha"]}}
    return ({**found, "annotations": notes} if notes else found,)
