"""Values of the options of ``run``, ``create`` and ``service``: what people write, as the API has it."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from linkspan.core.cli.command import Size


def environment(pairs: Iterable[str], files: Iterable[str]) -> list[str]:
    """``NAME=value`` lines: files first, then single ones; a bare name takes this process's value.

    Where there is none, a bare name is taken out of the image's environment, if it was not in a file.
    """
    found: list[str] = []
    for file in files:
        for number, line in enumerate(_text_of(file, "--env-file").splitlines(), 1):
            entry = line.lstrip()
            if not entry or entry.startswith("#"):
                continue
            name = entry.partition("=")[0]
            if not name or " " in name or "\t" in name:
                reason = f"{file}:{number}: '{name}' is not the name of a variable"
                raise click.BadParameter(reason, param_hint="--env-file")
            found.extend(_variable(entry))
    for pair in pairs:
        if not pair or pair.startswith("="):
            raise click.BadParameter(f"'{pair}' has no name", param_hint="--env")
        found.extend(_variable(pair) or [pair])
    return found


def _variable(entry: str) -> list[str]:
    if "=" in entry:
        return [entry]
    return [f"{entry}={os.environ[entry]}"] if entry in os.environ else []


def port_bindings(texts: Iterable[str]) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """ExposedPorts and PortBindings of ``8080:80``, ``127.0.0.1:53:53/udp``, ``8000-8002:80-82``."""
    exposed: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in texts:
        ip, host, container, protocol = split_port(_short_port(text))
        inside: list[int] = _range(container, text)
        outside: Sequence[int | str] | None = _range(host, text) if host else None
        if outside is not None and len(outside) != len(inside):
            if len(inside) != 1:
                reason = f"the ranges of '{text}' are not of the same length"
                raise click.BadParameter(reason, param_hint="--publish")
            outside = [host]  # the daemon takes the first that is free
        for index, number in enumerate(inside):
            key = f"{number}/{protocol}"
            exposed[key] = {}
            public = str(outside[index]) if outside is not None else ""
            bindings.setdefault(key, []).append({"HostIp": ip, "HostPort": public})
    return exposed, bindings


def _short_port(text: str) -> str:
    """``published=8080,target=80,protocol=udp`` in the short form."""
    if "=" not in text:
        return text
    given = dict(part.partition("=")[::2] for part in text.split(","))
    if "target" not in given or not given.keys() <= {"published", "target", "protocol", "mode"}:
        raise _bad_port(text)
    return f"{given.get('published', '')}:{given['target']}/{given.get('protocol', 'tcp')}"


def split_port(text: str) -> tuple[str, str, str, str]:
    """Host address, host port, container port, protocol of a published port."""
    body, slash, protocol = text.partition("/")
    address = ""
    if body.startswith("["):
        address, bracket, body = body[1:].partition("]")
        if not bracket or not body.startswith(":"):
            raise _bad_port(text)
        body = body[1:]
    parts = body.split(":")
    if not address and len(parts) == 3:
        address, parts = parts[0], parts[1:]
    if len(parts) > 2 or (slash and protocol not in ("tcp", "udp", "sctp")):
        raise _bad_port(text)
    host, container = parts if len(parts) == 2 else ("", parts[0])
    if not re.fullmatch(r"\d+(-\d+)?", container) or not re.fullmatch(r"(\d+(-\d+)?)?", host):
        raise _bad_port(text)
    return address, host, container, protocol or "tcp"


def _bad_port(text: str) -> click.BadParameter:
    return click.BadParameter(
        f"'{text}' is not of the form [IP:][HOST:]PORT[/udp]", param_hint="--publish"
    )


def _range(text: str, whole: str) -> list[int]:
    first, _, last = text.partition("-")
    numbers = list(range(int(first), int(last or first) + 1))
    if not numbers or not 0 <= numbers[0] <= numbers[-1] <= 65535:
        raise click.BadParameter(f"'{whole}' has no valid port", param_hint="--publish")
    return numbers


def split_volumes(texts: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Anonymous volumes (``/data``), and binds (``./src:/src:ro``, ``name:/data``) made absolute."""
    anonymous: dict[str, Any] = {}
    binds: list[str] = []
    for text in texts:
        source, colon, rest = text.partition(":")
        if not source or (colon and not rest):
            reason = f"'{text}' is not of the form SOURCE:TARGET[:OPTIONS]"
            raise click.BadParameter(reason, param_hint="--volume")
        if not colon:
            anonymous[source] = {}
        elif source.startswith((".", "~")):
            binds.append(f"{Path(source).expanduser().absolute()}:{rest}")
        else:
            binds.append(text)
    return anonymous, binds


def mount(text: str) -> dict[str, Any]:
    """An API Mount of ``type=bind,src=/a,dst=/b,readonly``."""
    found: dict[str, Any] = {"Type": "volume"}
    for part in _fields(text, "--mount"):
        key, equals, value = part.partition("=")
        match key.strip().lower():
            case "type":
                found["Type"] = value
            case "source" | "src":
                found["Source"] = value
            case "target" | "dst" | "destination":
                found["Target"] = value
            case "readonly" | "ro":
                found["ReadOnly"] = _is_on(equals, value)
            case "bind-propagation":
                found.setdefault("BindOptions", {})["Propagation"] = value
            case "bind-nonrecursive":
                found.setdefault("BindOptions", {})["NonRecursive"] = _is_on(equals, value)
            case "bind-recursive":
                found.setdefault("BindOptions", {}).update(_recursive(value, text))
            case "bind-create-src":
                found.setdefault("BindOptions", {})["CreateMountpoint"] = _is_on(equals, value)
            case "image-subpath":
                found.setdefault("ImageOptions", {})["Subpath"] = value
            case "volume-label":
                name, _, setting = value.partition("=")
                found.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = setting
            case "volume-driver":
                options = found.setdefault("VolumeOptions", {})
                options.setdefault("DriverConfig", {})["Name"] = value
            case "volume-opt":
                name, _, setting = value.partition("=")
                options = found.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
                options.setdefault("Options", {})[name] = setting
            case "volume-nocopy":
                found.setdefault("VolumeOptions", {})["NoCopy"] = _is_on(equals, value)
            case "volume-subpath":
                found.setdefault("VolumeOptions", {})["Subpath"] = value
            case "tmpfs-size":
                found.setdefault("TmpfsOptions", {})["SizeBytes"] = Size().convert(
                    value, None, None
                )
            case "tmpfs-mode":
                found.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
            case _:
                raise click.BadParameter(f"unknown key '{key}' in '{text}'", param_hint="--mount")
    if not found.get("Target"):
        raise click.BadParameter(f"'{text}' has no target", param_hint="--mount")
    if found["Type"] == "bind" and found.get("Source", "").startswith("."):
        found["Source"] = str(Path(found["Source"]).absolute())
    return found


def _is_on(equals: str, value: str) -> bool:
    return not equals or value.lower() in ("true", "1")


def _recursive(value: str, text: str) -> dict[str, bool]:
    """What ``bind-recursive`` of a mount means."""
    known: dict[str, dict[str, bool]] = {
        "enabled": {},
        "disabled": {"NonRecursive": True},
        "writable": {"ReadOnlyNonRecursive": True},
        "readonly": {"ReadOnlyForceRecursive": True},
    }
    if value not in known:
        raise click.BadParameter(
            f"'bind-recursive' of '{text}' is none of {', '.join(known)}", param_hint="--mount"
        )
    return known[value]


def restart_policy(text: str) -> dict[str, Any]:
    """An API RestartPolicy of ``always`` or ``on-failure:3``."""
    name, colon, count = text.partition(":")
    if name not in ("", "no", "always", "on-failure", "unless-stopped"):
        reason = f"'{text}' is none of no, always, on-failure[:N], unless-stopped"
        raise click.BadParameter(reason, param_hint="--restart")
    if colon and (name != "on-failure" or not count.isdigit()):
        reason = f"a count is possible for on-failure only: '{text}'"
        raise click.BadParameter(reason, param_hint="--restart")
    return {"Name": name or "no", "MaximumRetryCount": int(count) if count else 0}


def ulimit(text: str) -> dict[str, Any]:
    """An API Ulimit of ``nofile=1024:2048``."""
    name, equals, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    if not equals or not re.fullmatch(r"-?\d+", soft) or not re.fullmatch(r"(-?\d+)?", hard):
        reason = f"'{text}' is not of the form NAME=SOFT[:HARD]"
        raise click.BadParameter(reason, param_hint="--ulimit")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def security_option(text: str) -> str:
    """A seccomp profile is read here: the daemon may not see this machine's files."""
    key, equals, value = text.partition("=")
    if key != "seccomp" or not equals or value == "unconfined":
        return text
    try:
        profile = json.loads(Path(value).read_bytes())
    except OSError as exc:
        reason = f"cannot read the profile '{value}': {exc.strerror}"
    except ValueError as exc:
        reason = f"the profile '{value}' is no JSON: {exc}"
    else:
        return f"seccomp={json.dumps(profile, separators=(',', ':'))}"
    raise click.BadParameter(reason, param_hint="--security-opt")


def split_words(text: str, option: str) -> list[str]:
    """Words of a command line, as a shell splits them."""
    import shlex

    try:
        return shlex.split(text)
    except ValueError as exc:
        reason = f"the quotes of '{text}' do not match: {exc}"
        raise click.BadParameter(reason, param_hint=option) from exc


def host_line(text: str) -> str:
    """An API ExtraHosts entry of ``name:IP``, ``name=IP`` or ``name=[IPv6]``."""
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not name or not separator or not address:
        raise click.BadParameter(f"'{text}' is not of the form NAME:IP", param_hint="--add-host")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    return f"{name}:{address}"


def device(text: str) -> dict[str, str]:
    """An API DeviceMapping of ``/dev/a:/dev/b:rw``."""
    source, _, rest = text.partition(":")
    target, _, permissions = rest.partition(":")
    if target and not target.startswith("/"):
        target, permissions = "", target
    return {
        "PathOnHost": source,
        "PathInContainer": target or source,
        "CgroupPermissions": permissions or "rwm",
    }


def throttle(text: str, option: str, *, size: bool) -> dict[str, Any]:
    """An API ThrottleDevice of ``/dev/sda:1mb`` (``size``), or of ``/dev/sda:1000``."""
    path, colon, rate = text.rpartition(":")
    if not colon or not path.startswith("/dev/") or not rate:
        raise click.BadParameter(f"'{text}' is not of the form /dev/NAME:RATE", param_hint=option)
    if not size and not rate.isdigit():
        raise click.BadParameter(f"'{rate}' of '{text}' is no number", param_hint=option)
    return {"Path": path, "Rate": Size().convert(rate, None, None) if size else int(rate)}


def weight(text: str) -> dict[str, Any]:
    """An API WeightDevice of ``/dev/sda:200``."""
    path, colon, number = text.rpartition(":")
    if not colon or not path.startswith("/dev/") or not number.isdigit():
        raise click.BadParameter(
            f"'{text}' is not of the form /dev/NAME:WEIGHT", param_hint="--blkio-weight-device"
        )
    if int(number) and not 10 <= int(number) <= 1000:
        raise click.BadParameter(
            f"the weight of '{text}' is not between 10 and 1000", param_hint="--blkio-weight-device"
        )
    return {"Path": path, "Weight": int(number)}


def gpus(text: str) -> dict[str, Any]:
    """An API DeviceRequest of ``all``, ``2``, ``device=0``, ``"device=0,1",capabilities=utility``."""
    found: dict[str, Any] = {"Driver": "", "Count": 0, "Capabilities": [["gpu"]]}
    fields = _fields(text, "--gpus")
    for number, field in enumerate(fields):
        key, equals, value = field.partition("=")
        if not equals and number == 0:
            key, value = "count", key
        match key.strip():
            case "count":
                if value != "all" and not re.fullmatch(r"-?\d+", value):
                    raise click.BadParameter(
                        f"'{value}' of '{text}' is neither all nor a number", param_hint="--gpus"
                    )
                found["Count"] = -1 if value == "all" else int(value)
            case "device":
                found["DeviceIDs"] = value.split(",")
            case "driver":
                found["Driver"] = value
            case "capabilities":
                found["Capabilities"] = [["gpu", *value.split(",")]]
            case "options":
                found["Options"] = dict(_pair(part) for part in value.split(","))
            case _:
                raise click.BadParameter(f"unknown key '{key}' in '{text}'", param_hint="--gpus")
    if not fields:
        raise click.BadParameter("nothing is asked for", param_hint="--gpus")
    if not found.get("DeviceIDs") and not found["Count"]:
        found["Count"] = 1
    return found


def _fields(text: str, option: str) -> list[str]:
    """Parts between commas; one in quotes may have commas itself."""
    import csv

    try:
        return next(csv.reader([text]), [])
    except csv.Error as exc:
        raise click.BadParameter(f"'{text}': {exc}", param_hint=option) from exc


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def endpoint(text: str) -> tuple[str, dict[str, Any]]:
    """Name and API EndpointSettings of ``app`` or ``name=app,alias=db,ip=10.9.0.7,driver-opt=a=b``."""
    if "=" not in text:
        return text, {}
    name = ""
    found: dict[str, Any] = {}
    for part in _fields(text, "--network"):
        key, _, value = part.partition("=")
        addresses = found.get("IPAMConfig", {})
        match key.strip().lower():
            case "name":
                name = value
            case "alias":
                found.setdefault("Aliases", []).append(value)
            case "ip":
                found["IPAMConfig"] = {**addresses, "IPv4Address": value}
            case "ip6":
                found["IPAMConfig"] = {**addresses, "IPv6Address": value}
            case "link-local-ip":
                ips = [*addresses.get("LinkLocalIPs", []), value]
                found["IPAMConfig"] = {**addresses, "LinkLocalIPs": ips}
            case "mac-address":
                found["MacAddress"] = value
            case "gw-priority":
                if not re.fullmatch(r"-?\d+", value):
                    raise click.BadParameter(f"'{value}' is no number", param_hint="--network")
                found["GwPriority"] = int(value)
            case "driver-opt":
                option, setting = _pair(value)
                found.setdefault("DriverOpts", {})[option] = setting
            case _:
                raise click.BadParameter(f"unknown key '{key}' in '{text}'", param_hint="--network")
    if not name:
        raise click.BadParameter(f"'{text}' has no name=", param_hint="--network")
    return name, found


def _text_of(file: str, option: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as exc:
        reason = exc.strerror or str(exc)
    except UnicodeDecodeError:
        reason = "it is no text in UTF-8"
    raise click.BadParameter(f"cannot read '{file}': {reason}", param_hint=option)


def lines_of(files: Iterable[str], option: str) -> list[str]:
    """The lines of files, without empty ones and remarks."""
    found: list[str] = []
    for file in files:
        lines = (line.lstrip() for line in _text_of(file, option).splitlines())
        found.extend(line for line in lines if line and not line.startswith("#"))
    return found
