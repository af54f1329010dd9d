"""Services between JSON (ServiceSpec and what is in it) and the model.

Clients read a service, change a part and send it back whole, so what is decoded must encode to the
same again. Durations are nanoseconds in the API and seconds here.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from linkspan.plugins.docker_api.codec_generic import (
    decode_generic_resources,
    encode_generic_resources,
)
from linkspan.plugins.docker_api.codec_health import (
    decode_healthcheck,
    encode_healthcheck,
    nanoseconds,
)
from linkspan.plugins.docker_api.codec_mount import MOUNT_TYPES, decode_mount, encode_mount
from linkspan.plugins.docker_api.codec_payload import decode_files, encode_files
from linkspan.plugins.docker_api.codec_privileges import decode_privileges, encode_privileges
from linkspan.plugins.docker_api.codec_resources import decode_ulimits, encode_ulimits
from linkspan.plugins.docker_api.codec_said import fill_privileges, put_back, read_said
from linkspan.plugins.docker_api.document import Document
from linkspan.plugins.docker_api.timestamps import or_never
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.model.container import ContainerSpec, Healthcheck, Mount, Resources
from linkspan.sdk.model.network import EndpointSpec, Protocol
from linkspan.sdk.model.service import (
    Placement,
    Reservation,
    RolloutState,
    RolloutStatus,
    Service,
    ServiceMode,
    ServicePort,
    ServiceRestart,
    ServiceSpec,
    UpdatePolicy,
)
from linkspan.sdk.placement import parse_preference

Word = TypeVar("Word", bound=str)

_CONDITIONS: Mapping[str, Literal["none", "on-failure", "any"]] = {
    "": "any",
    "none": "none",
    "on-failure": "on-failure",
    "any": "any",
}
_ACTIONS: Mapping[str, Literal["pause", "continue", "rollback"]] = {
    "": "pause",
    "pause": "pause",
    "continue": "continue",
    "rollback": "rollback",
}
_ORDERS: Mapping[str, Literal["stop-first", "start-first"]] = {
    "": "stop-first",
    "stop-first": "stop-first",
    "start-first": "start-first",
}
_PROTOCOLS: Mapping[str, Protocol] = {"": "tcp", "tcp": "tcp", "udp": "udp", "sctp": "sctp"}
_MODES: Mapping[str, Literal["ingress", "host"]] = {
    "": "ingress",
    "ingress": "ingress",
    "host": "host",
}
_USUAL_GRACE_S = 10
_ENDPOINTS: Mapping[str, Literal["vip", "dnsrr"]] = {"": "vip", "vip": "vip", "dnsrr": "dnsrr"}
_MODE_NAMES: Mapping[str, ServiceMode] = {
    "Replicated": "replicated",
    "Global": "global",
    "ReplicatedJob": "replicated-job",
    "GlobalJob": "global-job",
}
_JOBS = ("replicated-job", "global-job")

_UNKNOWN: Mapping[str, str] = {
    "Order": "unrecognized update order {}",
    "FailureAction": "unrecognized update failure action {}",
    "Condition": 'invalid RestartCondition: "{}"',
    "Mode": 'invalid resolution mode: "{}"',
}
"""What Docker says of a word that is none."""


def _one_of(body: Document, key: str, words: Mapping[str, Word]) -> Word:
    found = words.get(body.text(key))
    if found is None:
        names = ", ".join(word for word in words if word)
        text = body.text(key)
        told = _UNKNOWN.get(key, f"invalid {body.at(key)} '{{}}'").format(text)
        raise InvalidArgument(told, help=f"use one of {names}")
    return found


def decode_service(body: Document) -> ServiceSpec:
    """A ServiceSpec.

    Raises:
        InvalidArgument: A value is wrong.
        Unsupported: Something that Docker has and Linkspan has not.
    """
    template = body.document("TaskTemplate")
    _check_runtime(template)
    mode, replicas, concurrent = _decode_mode(body.document("Mode"))
    if mode in _JOBS and "UpdateConfig" in body:
        raise InvalidArgument(
            "rpc error: code = InvalidArgument desc = Jobs may not have an update config"
        )
    endpoint = body.document("EndpointSpec")
    beside = "Networks" not in template and bool(body.items("Networks"))
    attachments = [*(body if beside else template).documents("Networks")]
    resources = template.document("Resources")
    placement = template.document("Placement")
    return ServiceSpec(
        name=body.text("Name"),
        labels=body.text_map("Labels"),
        container=_decode_task(template, attachments),
        mode=mode,
        replicas=replicas,
        max_concurrent=concurrent,
        networks=tuple(attachment.text("Target") for attachment in attachments),
        beside_template=beside,
        ports=tuple(_decode_port(port) for port in endpoint.documents("Ports")),
        restart=_decode_restart(template),
        update=_decode_policy(body, "UpdateConfig"),
        rollback=_decode_policy(body, "RollbackConfig"),
        reservation=Reservation(
            nano_cpus=resources.document("Reservations").number("NanoCPUs"),
            memory_bytes=resources.document("Reservations").number("MemoryBytes"),
            generic=decode_generic_resources(resources.document("Reservations")),
        ),
        placement=Placement(
            constraints=placement.texts("Constraints"),
            preferences=tuple(
                f"spread={preference.document('Spread').text('SpreadDescriptor')}"
                for preference in placement.documents("Preferences")
                if "Spread" in preference
            ),
            max_replicas_per_node=placement.number("MaxReplicas"),
            platforms=tuple(
                (platform.text("OS"), platform.text("Architecture"))
                for platform in placement.documents("Platforms")
            ),
        ),
        force_update=template.number("ForceUpdate"),
        endpoint_mode=_one_of(endpoint, "Mode", _ENDPOINTS) if "EndpointSpec" in body else "",
        files=decode_files(template.document("ContainerSpec")),
        said=read_said(body),
    )


def _check_runtime(template: Document) -> None:
    runtime = template.text("Runtime") or "container"
    if runtime not in ("container", "plugin"):
        raise InvalidArgument("unsupported runtime", help=f"not '{runtime}', but container")
    if f"{runtime.capitalize()}Spec" not in template:
        raise InvalidArgument("mismatched Runtime and *Spec fields")
    if runtime == "plugin":
        raise Unsupported("services of runtime 'plugin' are not supported")


def _decode_mode(body: Document) -> tuple[ServiceMode, int, int]:
    """The mode, its number of tasks, and how many of a job run at a time."""
    given = [key for key in _MODE_NAMES if key in body]
    if len(given) > 1:
        raise InvalidArgument(
            "must specify only one service mode", help=f"not {' and '.join(given)}"
        )
    key = given[0] if given else "Replicated"
    inner = body.document(key)
    concurrent = 0
    if key == "ReplicatedJob":
        concurrent = inner.number("MaxConcurrent", 1)
        replicas = inner.number("TotalCompletions", concurrent)
    else:
        replicas = inner.number("Replicas", 1)
    if replicas < 0 or concurrent < 0:
        raise InvalidArgument(f"the number of replicas cannot be negative: {replicas}")
    return _MODE_NAMES[key], replicas, concurrent


def _decode_port(body: Document) -> ServicePort:
    target, published = body.number("TargetPort"), body.number("PublishedPort")
    if not 0 < target <= 65535 or not 0 <= published <= 65535:
        raise InvalidArgument(f"invalid published port {published}:{target}")
    return ServicePort(
        target_port=target,
        published_port=published,
        protocol=_one_of(body, "Protocol", _PROTOCOLS),
        mode=_one_of(body, "PublishMode", _MODES),
    )


def _decode_restart(template: Document) -> ServiceRestart | None:
    if "RestartPolicy" not in template:
        return None
    body = template.document("RestartPolicy")
    usual = ServiceRestart()
    return ServiceRestart(
        condition=_one_of(body, "Condition", _CONDITIONS),
        delay_s=body.seconds("Delay", usual.delay_s),
        max_attempts=body.number("MaxAttempts"),
        window_s=body.seconds("Window") if "Window" in body else None,
    )


def _decode_policy(service: Document, key: str) -> UpdatePolicy | None:
    if key not in service:
        return None
    body = service.document(key)
    return UpdatePolicy(
        parallelism=body.number("Parallelism"),
        delay_s=body.seconds("Delay"),
        order=_one_of(body, "Order", _ORDERS),
        failure_action=_one_of(body, "FailureAction", _ACTIONS),
        # Zero is Docker's "not given", too.
        monitor_s=body.seconds("Monitor") or UpdatePolicy().monitor_s,
        max_failure_ratio=body.ratio("MaxFailureRatio"),
    )


def _decode_task(template: Document, attachments: list[Document]) -> ContainerSpec:
    body = template.document("ContainerSpec")
    dns = body.document("DNSConfig")
    limits = template.document("Resources").document("Limits")
    log = template.document("LogDriver")
    health = body.document("Healthcheck")
    grace_ns = body.number("StopGracePeriod")
    return ContainerSpec(
        image=body.text("Image"),
        entrypoint=body.texts("Command") or None,
        command=body.texts("Args") or None,
        hostname=body.text("Hostname"),
        env=body.texts("Env"),
        working_dir=body.text("Dir"),
        user=body.text("User"),
        group_add=body.texts("Groups"),
        labels=body.text_map("Labels"),
        tty=body.flag("TTY"),
        open_stdin=body.flag("OpenStdin"),
        read_only=body.flag("ReadOnly"),
        mounts=tuple(_decode_mount(mount) for mount in body.documents("Mounts")),
        stop_signal=body.text("StopSignal") or None,
        # Containers count in whole seconds; a fraction is rounded up rather than lost.
        stop_timeout_s=-(-grace_ns // 10**9) if "StopGracePeriod" in body else None,
        healthcheck=_decode_health(health) if health else None,
        extra_hosts=tuple(_decode_host(entry) for entry in body.texts("Hosts")),
        dns=dns.texts("Nameservers"),
        dns_search=dns.texts("Search"),
        dns_options=dns.texts("Options"),
        init=body.flag("Init") if "Init" in body else None,
        sysctls=body.text_map("Sysctls"),
        cap_add=body.texts("CapabilityAdd"),
        cap_drop=body.texts("CapabilityDrop"),
        security_opt=decode_privileges(body.document("Privileges")),
        oom_score_adj=body.number("OomScoreAdj"),
        resources=Resources(
            nano_cpus=limits.number("NanoCPUs"),
            memory_bytes=limits.number("MemoryBytes"),
            pids_limit=limits.number("Pids") or None,
            ulimits=decode_ulimits(body),
        ),
        log_driver=log.text("Name"),
        log_options=log.text_map("Options"),
        networks={
            attachment.text("Target"): EndpointSpec(
                aliases=attachment.texts("Aliases"),
                driver_options=attachment.text_map("DriverOpts"),
            )
            for attachment in attachments
            if attachment.texts("Aliases") or attachment.text_map("DriverOpts")
        },
    )


def _decode_mount(body: Document) -> Mount:
    if body.text("Type") not in MOUNT_TYPES:
        raise InvalidArgument(f'invalid MountType: "{body.text("Type")}"', code="invalid_mount")
    return decode_mount(body)


def _encode_mount(mount: Mount) -> dict[str, Any]:
    out = encode_mount(mount)
    if "DriverConfig" in (options := out.get("VolumeOptions", {})):
        options["DriverConfig"] = _without_empty(options["DriverConfig"])
    return out


def _decode_health(body: Document) -> Healthcheck:
    try:
        return decode_healthcheck(body, "HealthConfig")
    except InvalidArgument as error:
        raise error.within("rpc error: code = InvalidArgument desc = ContainerSpec") from error


def _decode_host(entry: str) -> str:
    """A line of /etc/hosts, ``10.0.0.1 name``, as Docker's containers have it: ``name:10.0.0.1``."""
    words = entry.split()
    return f"{words[1]}:{words[0]}" if len(words) == 2 else entry


def _encode_host(entry: str) -> str:
    name, colon, address = entry.partition(":")
    return f"{address} {name}" if colon else entry


# To JSON


def _without_empty(value: dict[str, Any]) -> dict[str, Any]:
    """As Go's ``omitempty`` does."""
    return {key: inner for key, inner in value.items() if inner not in ("", 0, None, [], {}, False)}


def encode_service_spec(spec: ServiceSpec, *, defaults: bool = False) -> dict[str, Any]:
    """A ServiceSpec; with ``defaults``, what holds where the client said nothing is shown, too."""
    key = next(key for key, mode in _MODE_NAMES.items() if mode == spec.mode)
    mode: dict[str, Any] = {}
    if key == "Replicated":
        mode = {"Replicas": spec.replicas}
    elif key == "ReplicatedJob":
        mode = {"MaxConcurrent": spec.max_concurrent, "TotalCompletions": spec.replicas}
    out: dict[str, Any] = {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": {
            **_encode_template(spec, defaults=defaults),
            "Runtime": "container",
        },
        "Mode": {key: mode},
    }
    if spec.beside_template:
        out["Networks"] = _encode_attachments(spec)
    for name, policy in (("UpdateConfig", spec.update), ("RollbackConfig", spec.rollback)):
        # A job is never exchanged; clients send back what they read.
        if defaults or (policy is not None and not spec.is_job):
            out[name] = _encode_policy(policy or UpdatePolicy(), defaults=defaults)
    if spec.endpoint_mode or spec.ports:
        ports = [_encode_port(port) for port in spec.ports]
        out["EndpointSpec"] = _without_empty({"Mode": spec.endpoint_mode or "vip", "Ports": ports})
    put_back(out, spec.said)
    fill_privileges(out["TaskTemplate"]["ContainerSpec"])
    return out


def _encode_port(port: ServicePort) -> dict[str, Any]:
    out: dict[str, Any] = {"Protocol": port.protocol, "TargetPort": port.target_port}
    if port.published_port:
        out["PublishedPort"] = port.published_port
    return {**out, "PublishMode": port.mode}


def _encode_policy(policy: UpdatePolicy, *, defaults: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"Parallelism": policy.parallelism}
    if policy.delay_s:
        out["Delay"] = nanoseconds(policy.delay_s)
    out["FailureAction"] = policy.failure_action
    if defaults or policy.monitor_s != UpdatePolicy().monitor_s:
        out["Monitor"] = nanoseconds(policy.monitor_s)
    return {**out, "MaxFailureRatio": policy.max_failure_ratio or 0, "Order": policy.order}


def _encode_restart(restart: ServiceRestart, *, defaults: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"Condition": restart.condition}
    if defaults or restart.delay_s != ServiceRestart().delay_s:
        out["Delay"] = nanoseconds(restart.delay_s)
    out["MaxAttempts"] = restart.max_attempts
    if restart.window_s is not None:
        out["Window"] = nanoseconds(restart.window_s)
    return out


def encode_task_spec(spec: ServiceSpec) -> dict[str, Any]:
    """The TaskTemplate of a service, as a task shows it."""
    template: dict[str, Any] = encode_service_spec(spec)["TaskTemplate"]
    del template["Runtime"]
    return template


def _encode_template(spec: ServiceSpec, *, defaults: bool) -> dict[str, Any]:
    container = spec.container
    limits = _without_empty(
        {
            "NanoCPUs": container.resources.nano_cpus,
            "MemoryBytes": container.resources.memory_bytes,
            "Pids": container.resources.pids_limit,
        }
    )
    reservations = _without_empty(
        {
            "NanoCPUs": spec.reservation.nano_cpus,
            "MemoryBytes": spec.reservation.memory_bytes,
            "GenericResources": encode_generic_resources(spec.reservation.generic),
        }
    )
    shown: dict[str, Any] = {
        "ContainerSpec": {**_encode_container(container), **encode_files(spec.files)},
        "Resources": _without_empty({"Limits": limits, "Reservations": reservations}),
        "Placement": _encode_placement(spec.placement),
    }
    out = shown if defaults else _without_empty(shown)
    if defaults:
        usual = {"StopGracePeriod": _USUAL_GRACE_S * 10**9, "DNSConfig": {}}
        out["ContainerSpec"] = usual | out["ContainerSpec"]
    if defaults or spec.restart is not None:
        restart = spec.restart or ServiceRestart()
        out["RestartPolicy"] = _encode_restart(restart, defaults=defaults)
    if spec.networks and not spec.beside_template:
        out["Networks"] = _encode_attachments(spec)
    if container.log_driver:
        out["LogDriver"] = _without_empty(
            {"Name": container.log_driver, "Options": dict(container.log_options)}
        )
    return {**out, "ForceUpdate": spec.force_update}


def _encode_placement(placement: Placement) -> dict[str, Any]:
    return _without_empty(
        {
            "Constraints": list(placement.constraints),
            "Preferences": [
                {"Spread": {"SpreadDescriptor": parse_preference(text)}}
                for text in placement.preferences
            ],
            "MaxReplicas": placement.max_replicas_per_node,
            "Platforms": [
                _without_empty({"Architecture": architecture, "OS": system})
                for system, architecture in placement.platforms
            ],
        }
    )


def _encode_attachments(spec: ServiceSpec) -> list[dict[str, Any]]:
    return [_encode_attachment(name, spec.container) for name in spec.networks]


def _encode_attachment(name: str, container: ContainerSpec) -> dict[str, Any]:
    settings = container.networks.get(name, EndpointSpec())
    return _without_empty(
        {
            "Target": name,
            "Aliases": list(settings.aliases),
            "DriverOpts": dict(settings.driver_options),
        }
    )


def _encode_container(spec: ContainerSpec) -> dict[str, Any]:
    dns = {
        "Nameservers": list(spec.dns),
        "Search": list(spec.dns_search),
        "Options": list(spec.dns_options),
    }
    out = _without_empty(
        {
            "Image": spec.image,
            "Labels": dict(spec.labels),
            "Command": list(spec.entrypoint or ()),
            "Args": list(spec.command or ()),
            "Hostname": spec.hostname,
            "Env": list(spec.env),
            "Dir": spec.working_dir,
            "User": spec.user,
            "Groups": list(spec.group_add),
            "TTY": spec.tty,
            "OpenStdin": spec.open_stdin,
            "ReadOnly": spec.read_only,
            "Mounts": [_encode_mount(mount) for mount in spec.mounts],
            "StopSignal": spec.stop_signal,
            "Hosts": [_encode_host(entry) for entry in spec.extra_hosts],
            "DNSConfig": _without_empty(dns),
            "Sysctls": dict(spec.sysctls),
            "CapabilityAdd": list(spec.cap_add),
            "CapabilityDrop": list(spec.cap_drop),
            "Privileges": encode_privileges(spec.security_opt),
            "OomScoreAdj": spec.oom_score_adj,
            "Ulimits": encode_ulimits(spec.resources.ulimits),
        }
    )
    if spec.stop_timeout_s is not None:
        out["StopGracePeriod"] = spec.stop_timeout_s * 10**9
    if spec.healthcheck is not None:
        out["Healthcheck"] = encode_healthcheck(spec.healthcheck)
    if spec.init is not None:
        out["Init"] = spec.init
    return {**out, "Isolation": "default"}


def encode_service(
    service: Service, *, with_status: bool = False, defaults: bool = False
) -> dict[str, Any]:
    """A Service; its parts as in ``encode_service_spec``."""
    out: dict[str, Any] = {
        "ID": service.id,
        "Version": {"Index": service.version},
        "CreatedAt": or_never(service.created_at),
        "UpdatedAt": or_never(service.updated_at),
        "Spec": encode_service_spec(service.spec, defaults=defaults),
    }
    if service.previous_spec is not None:
        out["PreviousSpec"] = encode_service_spec(service.previous_spec, defaults=defaults)
    out["Endpoint"] = _encode_endpoint(service, out["Spec"].get("EndpointSpec", {}))
    # A job's tasks are not exchanged: they are run anew.
    updating = (RolloutState.UPDATING, RolloutState.PAUSED, RolloutState.COMPLETED)
    rollout = service.rollout
    if rollout is not None and not (service.spec.is_job and rollout.state in updating):
        out["UpdateStatus"] = _encode_rollout(rollout)
    spec = service.spec
    if spec.is_job:
        out["JobStatus"] = {
            "JobIteration": _without_empty({"Index": service.job_iteration}),
            "LastExecution": or_never(service.job_started_at),
        }
    if with_status:
        desired = service.desired_tasks
        if spec.mode == "replicated-job":
            # As in Docker, also when all of it is done.
            desired = spec.max_concurrent or desired
        elif spec.is_job:
            desired -= service.completed_tasks
        out["ServiceStatus"] = {
            "RunningTasks": service.running_tasks,
            "DesiredTasks": desired,
            "CompletedTasks": service.completed_tasks if spec.is_job else 0,
        }
    return out


def _encode_endpoint(service: Service, asked: dict[str, Any]) -> dict[str, Any]:
    """What was allocated: nothing if there is neither a port nor an address to have."""
    addressed = service.spec.networks and service.spec.endpoint_mode != "dnsrr"
    if not addressed and not service.spec.ports:
        return {"Spec": {}}
    out: dict[str, Any] = {"Spec": asked}
    if service.ports:
        names = {
            _port_key(port): {"Name": port["Name"]} for port in asked["Ports"] if "Name" in port
        }
        ports = [_encode_port(port) for port in service.ports]
        out["Ports"] = [{**names.get(_port_key(port), {}), **port} for port in ports]
    return out


def _port_key(port: dict[str, Any]) -> tuple[object, ...]:
    return port["TargetPort"], port["Protocol"], port["PublishMode"]


def _encode_rollout(rollout: RolloutStatus) -> dict[str, Any]:
    out: dict[str, Any] = {"State": rollout.state.value}
    if rollout.started_at:
        out["StartedAt"] = rollout.started_at
    if rollout.completed_at:
        out["CompletedAt"] = rollout.completed_at
    return {**out, "Message": rollout.message}
