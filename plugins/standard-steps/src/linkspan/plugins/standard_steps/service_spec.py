"""A ``deploy`` step's ``with`` as a service, and services as JSON for the journal."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
from cattrs.preconf.json import make_converter

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import ContainerSpec, Healthcheck, Mount
from linkspan.sdk.model.service import (
    FileReference,
    Placement,
    ServicePort,
    ServiceRestart,
    ServiceSpec,
    UpdatePolicy,
)

SPEC_LABEL: Final = "linkspan.deploy.spec"
"""Digest of what a deploy step asked for: two specs with the same one are the same wish, whatever an
orchestrator filled in."""

_converter = make_converter(omit_if_default=True)


def wanted_spec(
    settings: Mapping[str, Any],
    *,
    replicas: int,
    volume_driver: str = "",
    files: tuple[FileReference, ...] = (),
) -> ServiceSpec:
    """The service that a step asks for.

    Args:
        settings: Checked by the manifest.
        replicas: Where ``settings`` names none.
        volume_driver: Of its volumes; empty for the usual one.
        files: Secrets of its tasks.

    Raises:
        InvalidArgument: A port, volume or healthcheck cannot be read.
    """
    spec = ServiceSpec(
        name=settings["service"],
        container=_container(settings, volume_driver),
        replicas=settings.get("replicas", replicas),
        networks=tuple(settings.get("networks", ())),
        ports=tuple(_port(text) for text in settings.get("ports", ())),
        restart=_restart(settings.get("restart", {})),
        update=_update(settings.get("update", {})),
        rollback=attrs.evolve(_update(settings.get("update", {})), failure_action="pause"),
        placement=Placement(constraints=tuple(settings.get("constraints", ()))),
        labels=settings.get("labels", {}),
        files=files,
    )
    return attrs.evolve(spec, labels={**spec.labels, SPEC_LABEL: _digest(spec)})


def same_wish(one: ServiceSpec, other: ServiceSpec) -> bool:
    """Whether two specs ask for the same service in the same number."""
    if one.replicas != other.replicas:
        return False
    mark = one.labels.get(SPEC_LABEL)
    if mark is not None or SPEC_LABEL in other.labels:
        return mark == other.labels.get(SPEC_LABEL)
    return attrs.evolve(one, force_update=0) == attrs.evolve(other, force_update=0)


def spec_to_json(spec: ServiceSpec) -> dict[str, Any]:
    """For the journal; ``spec_from_json`` reads it back."""
    document: dict[str, Any] = json.loads(json.dumps(_converter.unstructure(spec)))
    return document


def spec_from_json(document: Mapping[str, Any]) -> ServiceSpec:
    """What ``spec_to_json`` wrote."""
    return _converter.structure(document, ServiceSpec)


def _digest(spec: ServiceSpec) -> str:
    """Of everything but the number of replicas, which ``scale`` changes on its own."""
    document = spec_to_json(attrs.evolve(spec, replicas=1))
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _container(settings: Mapping[str, Any], volume_driver: str) -> ContainerSpec:
    env: Mapping[str, str] = settings.get("env", {})
    return ContainerSpec(
        image=settings["image"],
        command=_words(settings.get("command")),
        entrypoint=_words(settings.get("entrypoint")),
        env=tuple(f"{name}={value}" for name, value in env.items()),
        user=settings.get("user", ""),
        working_dir=settings.get("working-dir", ""),
        hostname=settings.get("hostname", ""),
        healthcheck=_healthcheck(settings.get("healthcheck")),
        mounts=tuple(_mount(text, volume_driver) for text in settings.get("volumes", ())),
        stop_timeout_s=_whole_seconds(settings.get("stop-grace")),
        stop_signal=settings.get("stop-signal"),
    )


def _words(words: list[str] | None) -> tuple[str, ...] | None:
    return None if words is None else tuple(words)


def _whole_seconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds)) if seconds else 0


def _healthcheck(settings: Mapping[str, Any] | None) -> Healthcheck | None:
    if settings is None:
        return None
    test: list[str] = settings["test"]
    if not test or test[0] not in ("CMD", "CMD-SHELL", "NONE"):
        raise InvalidArgument(
            "the healthcheck's test must begin with CMD, CMD-SHELL or NONE",
            help="test: [CMD, wget, -qO-, http://127.0.0.1:8080/healthz]",
        )
    plain = Healthcheck()
    return Healthcheck(
        test=tuple(test),
        interval_s=settings.get("interval", plain.interval_s),
        timeout_s=settings.get("timeout", plain.timeout_s),
        retries=settings.get("retries", plain.retries),
        start_period_s=settings.get("start_period", plain.start_period_s),
        start_interval_s=settings.get("start_interval", plain.start_interval_s),
    )


def _restart(settings: Mapping[str, Any]) -> ServiceRestart:
    plain = ServiceRestart()
    return ServiceRestart(
        condition=settings.get("condition", plain.condition),
        delay_s=settings.get("delay", plain.delay_s),
        max_attempts=settings.get("max-attempts", plain.max_attempts),
        window_s=settings.get("window", plain.window_s),
    )


def _update(settings: Mapping[str, Any]) -> UpdatePolicy:
    plain = UpdatePolicy()
    return UpdatePolicy(
        parallelism=settings.get("parallelism", plain.parallelism),
        delay_s=settings.get("delay", plain.delay_s),
        order=settings.get("order", plain.order),
        # A failed update that waits for a person leaves two versions running: not here.
        failure_action=settings.get("failure-action", "rollback"),
        monitor_s=settings.get("monitor", plain.monitor_s),
        max_failure_ratio=settings.get("max-failure-ratio", plain.max_failure_ratio),
    )


def _port(text: str) -> ServicePort:
    """``8080:80``, ``8080:80/udp``, or ``80`` (a published port is chosen)."""
    ports, _, protocol = text.partition("/")
    published, colon, target = ports.rpartition(":")
    valid = target.isdecimal() and (published.isdecimal() or not colon)
    if not valid or protocol not in ("", "tcp", "udp"):
        raise InvalidArgument(
            f"'{text}' is not a port of a service", help='ports: ["8080:80"]  or  ["53:53/udp"]'
        )
    numbers = (int(target), int(published or 0))
    if not 1 <= numbers[0] <= 65535 or numbers[1] > 65535:
        raise InvalidArgument(f"'{text}': ports go from 1 to 65535")
    return ServicePort(
        target_port=numbers[0],
        published_port=numbers[1],
        protocol="udp" if protocol == "udp" else "tcp",
    )


def _mount(text: str, volume_driver: str) -> Mount:
    """``name:/path``, ``/host/path:/path``, either with ``:ro``."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise InvalidArgument(
            f"'{text}' is not a volume of a service", help='volumes: ["data:/srv/data"]'
        )
    kind: Literal["bind", "volume"] = "bind" if source.startswith("/") else "volume"
    return Mount(
        type=kind,
        source=source,
        target=target,
        volume_driver=volume_driver if kind == "volume" else "",
        read_only=mode == "ro",
    )
