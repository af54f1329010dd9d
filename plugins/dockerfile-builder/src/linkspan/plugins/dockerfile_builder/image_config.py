"""The config document of the image that a stage builds (OCI image-spec config.md).

Field names and what is left out follow BuildKit; see docs/reference/dockerfile.md ("Image config").
"""

import copy
import datetime
import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from linkspan.plugins.dockerfile_builder.instructions import Healthcheck
from linkspan.sdk.model.image import Platform
from linkspan.sdk.platform import normalize_platform

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
CACHE_KEY = "linkspan.build.cache"
"""Of a config that carries the steps of a build; see ``cache_exchange``."""
HISTORY_COMMENT = "linkspan.dockerfile.v0"

# What the classic builder of Docker wrote about its containers, and the cache that an image carries: false for
# an image built on top.
_DROPPED = (
    *("container", "container_config", "docker_version", "id", "parent", "throwaway"),
    *(CACHE_KEY, "moby.buildkit.cache.v0", "moby.buildkit.buildinfo.v1"),
)
_PORT = re.compile(r"(?:.*:)?([0-9]+)(?:-([0-9]+))?(?:/([A-Za-z]+))?")


@attrs.define
class ImageState:
    """The config as it stands after the steps so far.

    Attributes:
        document: Everything but ``rootfs`` and ``history``.
        diff_ids: Of all layers, bottom first.
        history: Entries; ``created`` of steps without a layer is filled in at the end.
        last_created: Of the newest layer; empty if there is none.
        epoch: SOURCE_DATE_EPOCH as RFC 3339: stands for all times of this build.
    """

    document: dict[str, Any]
    diff_ids: list[str]
    history: list[dict[str, Any]]
    inherited: int = 0
    last_created: str = ""
    epoch: str = ""
    command_is_ours: bool = False

    @classmethod
    def scratch(cls, os_name: str, architecture: str, variant: str = "") -> "ImageState":
        """An image without anything."""
        document: dict[str, Any] = {"architecture": architecture, "os": os_name}
        if variant:
            document["variant"] = variant
        document["config"] = {"Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"}
        return cls(document=document, diff_ids=[], history=[])

    @classmethod
    def from_document(cls, raw: Mapping[str, Any]) -> "ImageState":
        """On top of an image; unknown keys survive."""
        document = copy.deepcopy(dict(raw))
        for key in _DROPPED:
            document.pop(key, None)
        history = list(document.pop("history", None) or [])
        rootfs = document.pop("rootfs", None) or {}
        document["config"] = dict(document.get("config") or {})
        state = cls(
            document=document,
            diff_ids=list(rootfs.get("diff_ids") or []),
            history=history,
            inherited=len(history),
            last_created=document.get("created") or "",
        )
        if "PATH" not in state.environment():
            state.set_env("PATH", DEFAULT_PATH)
        return state

    def child(self) -> "ImageState":
        """A copy for a stage that begins with this one."""
        state = copy.deepcopy(self)
        state.command_is_ours = False
        return state

    @property
    def platform(self) -> Platform | None:
        """What its programs run on; None if it does not say."""
        os_name, architecture = self.document.get("os"), self.document.get("architecture")
        if not isinstance(os_name, str) or not isinstance(architecture, str):
            return None
        variant = str(self.document.get("variant") or "")
        return normalize_platform(Platform(os=os_name, architecture=architecture, variant=variant))

    @property
    def config(self) -> dict[str, Any]:
        """What the image says about running it."""
        found: dict[str, Any] = self.document["config"]
        return found

    @property
    def shell(self) -> tuple[str, ...]:
        """Of the shell form."""
        return tuple(self.config.get("Shell") or DEFAULT_SHELL)

    @property
    def user(self) -> str:
        """As written; empty is root."""
        return str(self.config.get("User") or "")

    @property
    def working_dir(self) -> str:
        """Absolute."""
        return str(self.config.get("WorkingDir") or "/")

    def environment(self) -> dict[str, str]:
        """Name → value."""
        pairs = (entry.partition("=") for entry in self.config.get("Env") or ())
        return {name: value for name, _, value in pairs}

    def set_env(self, name: str, value: str) -> None:
        """Set in place, keeping the order."""
        entries = list(self.config.get("Env") or ())
        text = f"{name}={value}"
        for index, entry in enumerate(entries):
            if entry.partition("=")[0] == name:
                entries[index] = text
                break
        else:
            entries.append(text)
        self.config["Env"] = entries

    def set_command(self, words: tuple[str, ...]) -> None:
        """CMD; an empty list stays one."""
        self.config["Cmd"] = list(words)
        self.command_is_ours = True

    def set_entrypoint(self, words: tuple[str, ...]) -> None:
        """ENTRYPOINT; an inherited CMD belonged to the old one and goes."""
        if words:
            self.config["Entrypoint"] = list(words)
        else:
            self.config.pop("Entrypoint", None)
        if not self.command_is_ours:
            self.config.pop("Cmd", None)

    def add_to_set(self, key: str, names: tuple[str, ...]) -> None:
        """``ExposedPorts`` or ``Volumes``."""
        self.config[key] = {**(self.config.get(key) or {}), **{name: {} for name in names}}

    def set_labels(self, labels: Mapping[str, str]) -> None:
        """Later ones win."""
        self.config["Labels"] = {**(self.config.get("Labels") or {}), **labels}

    def set_healthcheck(self, check: Healthcheck) -> tuple[str, ...]:
        """Set it; return the test of the one that was there, empty if none was."""
        had = tuple((self.config.get("Healthcheck") or {}).get("Test") or ())
        value: dict[str, Any] = {"Test": list(check.test)}
        for name, number in (
            ("Interval", check.interval_ns),
            ("Timeout", check.timeout_ns),
            ("StartPeriod", check.start_period_ns),
            ("StartInterval", check.start_interval_ns),
            ("Retries", check.retries),
        ):
            if number:
                value[name] = number
        self.config["Healthcheck"] = value
        return had

    def take_triggers(self) -> tuple[str, ...]:
        """ONBUILD of the base, which run once and are not inherited."""
        return tuple(self.config.pop("OnBuild", None) or ())

    def add_trigger(self, expression: str) -> None:
        """ONBUILD."""
        self.config["OnBuild"] = [*(self.config.get("OnBuild") or ()), expression]

    def add_history(self, created_by: str, *, diff_id: str = "", created: str = "") -> None:
        """One step; without ``diff_id`` it made no layer."""
        entry: dict[str, Any] = {"created_by": created_by, "comment": HISTORY_COMMENT}
        if self.document.get("author"):
            entry["author"] = self.document["author"]
        if diff_id:
            self.diff_ids.append(diff_id)
            entry["created"] = self.last_created = self.epoch or created
        else:
            entry["empty_layer"] = True
        self.history.append(entry)

    def serialize(self, more: Mapping[str, Any] | None = None) -> bytes:
        """The document (with more keys), always the same bytes for the same state."""
        history = [dict(entry) for entry in self.history]
        created = self.epoch or self.last_created
        following = created
        for entry in reversed(history[self.inherited :]):
            # A step without a layer is as old as the layer after it: so a cached build gives
            # the same bytes again.
            following = entry.setdefault("created", following)
            if not following:
                del entry["created"]
        document = {
            **self.document,
            **(more or {}),
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": history,
        }
        if created:
            document["created"] = created
        return json.dumps(
            document, separators=(",", ":"), sort_keys=True, ensure_ascii=False
        ).encode("utf-8", "surrogateescape")


def rfc3339(seconds: float) -> str:
    """A time since the epoch as image configs have it, UTC.

    Raises:
        ValueError: It is no time between the years 1 and 9999.
    """
    try:
        time = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(seconds) from error
    return time.isoformat().replace("+00:00", "Z")


def parse_ports(words: tuple[str, ...]) -> tuple[str, ...]:
    """``80``, ``53/udp``, ``90-92``, ``8080:80`` to ``80/tcp``, …; a host part is dropped.

    Raises:
        ValueError: With Docker's text.
    """
    ports: list[str] = []
    for word in words:
        match = _PORT.fullmatch(word)
        if match is None:
            raise ValueError(f"Invalid containerPort: {word}")
        first, last = int(match[1][:6]), int((match[2] or match[1])[:6])
        protocol = (match[3] or "tcp").lower()
        if protocol not in ("tcp", "udp", "sctp"):
            raise ValueError(f"invalid proto: {match[3]}")
        if not 0 < first <= last <= 65535:
            raise ValueError(f"Invalid containerPort: {word}")
        ports.extend(f"{port}/{protocol}" for port in range(first, last + 1))
    return tuple(ports)
