"""The tag of a container's log, ``--log-opt tag={{.Name}}/{{.ID}}``: what a template may say there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.container import Container, ContainerSpec

_NAME: Final = "log-tag"


def check_log_tag(spec: ContainerSpec) -> None:
    """Refuse a tag that cannot be made.

    Raises:
        InvalidArgument: It is no template, or asks for what a log has not.
    """
    if tag := spec.log_options.get("tag", ""):
        _filled(tag, Container(id="", name="", created_at="", spec=spec, image_id=""))


def log_tag(container: Container) -> str:
    """The tag of this container's log; empty if it has none.

    Raises:
        InvalidArgument: The tag is no template, or asks for what a log has not.
    """
    tag = container.spec.log_options.get("tag", "")
    return _filled(tag, container) if tag else ""


def _filled(tag: str, container: Container) -> str:
    if "{{" not in tag:
        return tag
    from linkspan.sdk.templates import Template, TemplateError  # few logs have a tag

    try:
        return Template(tag, name=_NAME).render(_data(container))
    except TemplateError as error:
        raise InvalidArgument(
            f"failed to initialize logging driver: {error}",
            help="a tag may have {{.Name}}, {{.ID}}, {{.ImageName}}, {{.Hostname}}, …",
        ) from error


def _data(container: Container) -> Mapping[str, Any]:
    """What Docker's ``logger.Info`` has."""
    entrypoint, *arguments = container.args or ("",)
    return {
        "ID": container.short_id,
        "FullID": container.id,
        "Name": container.name,
        "Command": " ".join(container.args),
        "ImageName": container.spec.image,
        "ImageID": container.image_id[:12],
        "ImageFullID": container.image_id,
        "Hostname": os.uname().nodename,
        "DaemonName": "docker",
        "ContainerID": container.id,
        "ContainerName": f"/{container.name}",
        "ContainerEntrypoint": entrypoint,
        "ContainerArgs": arguments,
        "ContainerImageID": container.image_id,
        "ContainerImageName": container.spec.image,
        "ContainerCreated": container.created_at,
        "ContainerEnv": list(container.env),
        "ContainerLabels": dict(container.labels),
        "Config": dict(container.spec.log_options),
        "LogPath": container.log_path,
    }
