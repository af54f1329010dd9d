"""Images between the model and JSON (list, inspect, history), and credentials from headers."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from linkspan.plugins.docker_api.codec_health import encode_healthcheck
from linkspan.plugins.docker_api.document import Document
from linkspan.plugins.docker_api.timestamps import epoch_s
from linkspan.plugins.docker_api.versions import IMAGE_CONFIG_OF_CONTAINERS, Version, fields_of
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.http import Request, parse_json
from linkspan.sdk.model.image import Credentials, Image, ImageConfig

MISSING = "<missing>"
_ARGUMENTS = re.compile(r"\|(?P<count>\d+) (?P<values>.*?) (?P<command>/\S+ -c .*)", re.DOTALL)
_NEXT_ARGUMENT = re.compile(r" (?=[A-Za-z_][A-Za-z0-9_]*=)")


def encode_image_summary(
    image: Image, *, containers: int, version: Version, shared_bytes: int = -1
) -> dict[str, Any]:
    """An entry of GET /images/json.

    Args:
        containers: How many use it; -1 if it was not counted.
        shared_bytes: Of its size, what other images have, too; -1 if it was not counted.
        version: Of the API that the client speaks: an old one wants ``<none>:<none>`` and VirtualSize.
    """
    out: dict[str, Any] = {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": int(epoch_s(image.config.created)),
        "Size": image.size_bytes,
        "SharedSize": shared_bytes,
        "Labels": dict(image.config.labels),
        "Containers": containers,
    }
    if version < (1, 44):
        out["VirtualSize"] = image.size_bytes
    if version < (1, 43):
        unnamed = not image.repo_tags
        out["RepoTags"] = out["RepoTags"] or ["<none>:<none>"]
        out["RepoDigests"] = out["RepoDigests"] or (["<none>@<none>"] if unnamed else None)
    return out


def encode_image_config(config: ImageConfig, version: Version) -> dict[str, Any]:
    """The Config of an image's inspect."""
    out: dict[str, Any] = {
        **fields_of(version, IMAGE_CONFIG_OF_CONTAINERS),
        "User": config.user,
        "Env": list(config.env) or None,
        "Cmd": list(config.command) or None,
        "Volumes": {path: {} for path in config.volumes} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint) or None,
        "OnBuild": list(config.on_build) or None,
        "Labels": dict(config.labels) or None,
    }
    if config.exposed_ports:
        out["ExposedPorts"] = {port: {} for port in config.exposed_ports}
    if config.healthcheck is not None:
        out["Healthcheck"] = encode_healthcheck(config.healthcheck)
    if config.stop_signal:
        out["StopSignal"] = config.stop_signal
    if config.shell:
        out["Shell"] = list(config.shell)
    return out


def encode_image(
    image: Image, *, graph_driver: Mapping[str, Any], api_version: tuple[int, int]
) -> dict[str, Any]:
    """GET /images/{name}/json, with the fields that the client's version has."""
    config = image.config
    out: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": str(config.history[-1].get("comment", "")) if config.history else "",
        "Created": config.created,
        "DockerVersion": str(config.raw.get("docker_version", "")),
        "Author": config.author,
        "Config": encode_image_config(config, api_version),
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        "Size": image.size_bytes,
        "GraphDriver": graph_driver,
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Metadata": {"LastTagTime": image.last_tagged_at or "0001-01-01T00:00:00Z"},
    }
    if config.platform.variant:
        out["Variant"] = config.platform.variant
    if api_version < (1, 44):
        out["VirtualSize"] = image.size_bytes
    if api_version < (1, 45):
        # docker-compose 1.29 looks here for the image's volumes, and for the arguments of its build.
        last = {"Cmd": last_command(config) or list(config.command) or None}
        out |= {"ContainerConfig": encode_image_config(config, api_version) | last}
    return out


def last_command(config: ImageConfig) -> list[str]:
    """What the last step of an image's build ran, as its container had it; empty if there is no telling.

    A step that ran nothing is a comment of the shell; arguments stand before the command (``|1``, ``A=b``).
    """
    made = str(config.history[-1].get("created_by", "")) if config.history else ""
    if not made:
        return []
    keyword, _, ran = made.partition(" ")
    if keyword != "RUN" and keyword.isupper():
        return ["/bin/sh", "-c", f"#(nop) {made}"]
    ran = ran if keyword == "RUN" else made  # Docker's classic builder has no keyword there
    arguments: list[str] = []
    if found := _ARGUMENTS.fullmatch(ran):
        ran = found["command"]
        values = _NEXT_ARGUMENT.split(found["values"])
        arguments = [f"|{found['count']}", *values]
    shell, flag, script = ran.partition(" -c ")
    return [*arguments, *((shell, flag.strip(), script) if flag else ran.split(" "))]


def encode_history(image: Image, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """GET /images/{name}/history, newest first; ``sizes`` are the layers' by ChainID."""
    out: list[dict[str, Any]] = []
    chains = iter(image.chain_ids)
    for entry in image.config.history:
        chain = "" if entry.get("empty_layer") else next(chains, "")
        out.append(
            {
                "Id": MISSING,
                "Created": int(epoch_s(str(entry.get("created", "")))),
                "CreatedBy": str(entry.get("created_by", "")),
                "Tags": None,
                "Size": sizes.get(chain, 0),
                "Comment": str(entry.get("comment", "")),
            }
        )
    for chain in chains:
        out.append(
            {
                "Id": MISSING,
                "Created": int(epoch_s(image.config.created)),
                "CreatedBy": "",
                "Tags": None,
                "Size": sizes.get(chain, 0),
                "Comment": "",
            }
        )
    out.reverse()
    if out:
        out[0]["Id"] = image.id
        out[0]["Tags"] = list(image.repo_tags) or None
    return out


def decode_credentials(body: Document) -> Credentials:
    """AuthConfig; ``auth`` holds user and password in base64 as the docker config file does."""
    username, password = body.text("username"), body.text("password")
    if not username and (packed := body.text("auth")):
        try:
            username, _, password = base64.b64decode(packed).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{body.at('auth')} is not base64 of user:password") from error
    return Credentials(
        username=username,
        password=password,
        identity_token=body.text("identitytoken"),
        registry_token=body.text("registrytoken"),
        server_address=body.text("serveraddress"),
    )


def _unpack_header(name: str, text: str) -> Document:
    """base64url JSON, with or without padding."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        value = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"header {name} is not base64url of JSON: {error}") from error
    return Document(value, name)


def registry_auth(request: Request, *, lenient: bool) -> Credentials:
    """The X-Registry-Auth header; anonymous without one.

    Args:
        lenient: A broken header counts as none, as in Docker's pull.
    """
    text = request.headers.get("x-registry-auth", "")
    if not text:
        return Credentials()
    try:
        return decode_credentials(_unpack_header("X-Registry-Auth", text))
    except InvalidArgument:
        if lenient:
            return Credentials()
        raise


def registry_config(request: Request) -> dict[str, Credentials]:
    """The X-Registry-Config header of a build: credentials by registry."""
    text = request.headers.get("x-registry-config", "")
    if not text:
        return {}
    found = _unpack_header("X-Registry-Config", text)
    return {
        # Docker Hub's key in the config file is a URL of its old API.
        "docker.io" if name == "https://index.docker.io/v1/" else name: decode_credentials(
            found.document(name)
        )
        for name in found.value
    }
