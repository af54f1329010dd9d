"""The static manifest of a plugin: ``linkspan-plugin.toml`` beside its package's ``__init__.py``.

It is read without importing the plugin: listing, help, lint and preflight load no code. The entry
point group ``linkspan.manifest`` names the package. Example::

    name = "standard-steps"
    version = "0.1.0"
    summary = "The pipeline verbs in the box"
    stage = "beta"
    listener = "linkspan.plugins.docker_api.plugin"   # module with hook implementations; optional

    [[driver]]
    role = "step"
    name = "deploy"
    contract = 1
    features = ["rolling"]

    [[verb]]
    name = "deploy"
    summary = "Create or update a service and wait until it is well"
    outputs = ["service", "previous_replicas"]

    [verb.with.service]
    type = "string"
    required = true
    help = "The service's name"

    [[command]]
    words = "workflow run"
    run = "linkspan.workflows.cli:run"
    summary = "Run a pipeline"

    [[component]]
    name = "registry-server"
    config = "linkspan.plugins.registry_server.config:RegistryServerConfig"
"""

from typing import Literal

import attrs

from linkspan.sdk.values import frozen

SettingType = str
"""One of ``string int float bool duration size list map port any secrets``.

``secrets``, of a verb's own setting: secrets of the pipeline by name, ``[TOKEN]`` or ``{token: TOKEN}``, or texts
made of them. Naming one grants it to the step; the driver gets a map with the values.
"""
VerbUndo = Literal["records", "needless", "impossible"]


@frozen(kw_only=True)
class VerbSetting:
    """One key of a verb's ``with``.

    Attributes:
        options: The allowed values; empty means any.
        secret: The value may come from ``secrets``; that of type ``secrets`` does.
        keys: For type ``map``: the allowed keys with their types; empty means any.
        feature: ``role.feature`` that the chosen driver must have if the setting is used;
            ``{value}`` stands for what is written: ``orchestrator.{value}``.
    """

    type: SettingType
    required: bool = False
    help: str = ""
    default: object = None
    options: tuple[str, ...] = ()
    secret: bool = False
    keys: dict[str, "VerbSetting"] = attrs.field(factory=dict)
    feature: str = ""

    @property
    def takes_secrets(self) -> bool:
        """Whether what is secret may stand here."""
        return self.secret or self.type == "secrets"


@frozen(kw_only=True)
class VerbManifest:
    """A verb: what it takes and gives.

    Attributes:
        workspace: Whether it reads or writes files of the workspace. A job in which nothing does gets no
            copy of the sources.
        undo: ``records`` how to take back what it does, as far as there is a way; ``needless``: it changes
            nothing; ``impossible``: what it does stays done.
    """

    name: str
    summary: str
    settings: dict[str, VerbSetting] = attrs.field(factory=dict)
    outputs: tuple[str, ...] = ()
    workspace: bool = True
    undo: VerbUndo = "records"


@frozen(kw_only=True)
class DriverManifest:
    """A driver that the plugin provides."""

    role: str
    name: str
    contract: int = 1
    features: tuple[str, ...] = ()


@frozen(kw_only=True)
class CommandManifest:
    """A command of the command line; ``run`` is ``module:attribute`` of a click command."""

    words: str
    run: str
    summary: str = ""


@frozen(kw_only=True)
class ComponentManifest:
    """A component of the daemon with a config table of its name."""

    name: str
    config: str = ""


@frozen(kw_only=True)
class PluginManifest:
    """A plugin as its manifest describes it.

    Attributes:
        listener: Module with hook implementations; empty if it has none.
        package: The import name of the package that holds the manifest.
        distribution: Name and version of what was installed.
    """

    name: str
    version: str
    summary: str = ""
    stage: str = "beta"
    listener: str = ""
    drivers: tuple[DriverManifest, ...] = ()
    verbs: tuple[VerbManifest, ...] = ()
    commands: tuple[CommandManifest, ...] = ()
    components: tuple[ComponentManifest, ...] = ()
    package: str = ""
    distribution: str = ""
