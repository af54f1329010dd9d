"""Reading an image's config document (OCI image-spec config.md, with Docker's extensions)."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import Healthcheck
from linkspan.sdk.model.image import ImageConfig, Platform

_NS = 1e9


def digest_of(data: bytes) -> str:
    """``sha256:`` and the hex digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """ChainIDs, bottom first (config.md "Layer ChainID")."""
    out: list[str] = []
    for diff_id in diff_ids:
        out.append(digest_of(f"{out[-1]} {diff_id}".encode()) if out else diff_id)
    return tuple(out)


def healthcheck_from(document: Mapping[str, Any] | None) -> Healthcheck | None:
    """A health check as configs and the Docker API have it: times in nanoseconds, 0 means default."""
    if not document or not document.get("Test"):
        return None

    def seconds(key: str) -> float:
        return (document.get(key) or 0) / _NS

    return Healthcheck(
        test=_texts(document.get("Test")),
        interval_s=seconds("Interval"),
        timeout_s=seconds("Timeout"),
        retries=int(document.get("Retries") or 0),
        start_period_s=seconds("StartPeriod"),
        start_interval_s=seconds("StartInterval"),
    )


def healthcheck_document(check: Healthcheck) -> dict[str, Any]:
    """What ``healthcheck_from`` reads; what was not said is left out, as Docker does."""
    said = {
        "Test": list(check.test),
        "Interval": _nanoseconds(check.interval_s),
        "Timeout": _nanoseconds(check.timeout_s),
        "StartPeriod": _nanoseconds(check.start_period_s),
        "StartInterval": _nanoseconds(check.start_interval_s),
        "Retries": check.retries,
    }
    return {key: value for key, value in said.items() if value}


def _nanoseconds(seconds: float) -> int:
    """At most what 64 bits hold: the longest time of all is rounded up on its way through a float."""
    return min(round(seconds * _NS), 2**63 - 1)


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"the image's config has {value!r} where texts are expected")
    return tuple(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"the image's config has {value!r} where a mapping is expected")
    return value


def parse_image_config(data: bytes) -> ImageConfig:
    """Read a config document.

    Raises:
        InvalidArgument: code ``bad_image_config``: no JSON object, or a part has the wrong type.
    """
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"the image's config is not JSON: {error}", code="bad_image_config"
        ) from error
    if not isinstance(raw, dict):
        raise InvalidArgument("the image's config is not a JSON object", code="bad_image_config")
    rootfs = _mapping(raw.get("rootfs"))
    config = _mapping(raw.get("config"))
    if rootfs.get("type", "layers") != "layers":
        raise InvalidArgument(
            f"the image's rootfs type is '{rootfs['type']}', not 'layers'", code="bad_image_config"
        )
    return ImageConfig(
        created=str(raw.get("created") or ""),
        author=str(raw.get("author") or ""),
        platform=Platform(
            os=str(raw.get("os") or "linux"),
            architecture=str(raw.get("architecture") or "amd64"),
            variant=str(raw.get("variant") or ""),
            os_version=str(raw.get("os.version") or ""),
        ),
        user=str(config.get("User") or ""),
        exposed_ports=tuple(_mapping(config.get("ExposedPorts"))),
        env=_texts(config.get("Env")),
        entrypoint=_texts(config.get("Entrypoint")),
        command=_texts(config.get("Cmd")),
        volumes=tuple(_mapping(config.get("Volumes"))),
        working_dir=str(config.get("WorkingDir") or ""),
        labels={str(k): str(v) for k, v in _mapping(config.get("Labels")).items()},
        stop_signal=str(config.get("StopSignal") or ""),
        healthcheck=healthcheck_from(_mapping(config.get("Healthcheck"))),
        shell=_texts(config.get("Shell")),
        on_build=_texts(config.get("OnBuild")),
        diff_ids=_texts(rootfs.get("diff_ids")),
        history=tuple(_mapping(item) for item in raw.get("history") or ()),
        raw=raw,
    )
