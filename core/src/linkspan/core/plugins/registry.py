"""All installed plugins: found by entry points, described by manifests, loaded when asked for."""

import importlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib import metadata
from typing import Any, Final, TypedDict, TypeVar

from linkspan.core.config.load import LoadedConfig
from linkspan.core.config.schema import PluginsConfig
from linkspan.core.plugins.blocking import Owners
from linkspan.core.plugins.drivers import (
    DriverEntry,
    distribution_of,
    find_drivers,
    load_driver,
    no_such_driver,
)
from linkspan.core.plugins.guard import CallStats, guarded, guarded_open
from linkspan.core.plugins.hooks import HookRunner
from linkspan.core.plugins.listing import PluginProblem, PluginRow, rows_of
from linkspan.core.plugins.manifest import ManifestError, ManifestFinder, read_manifest
from linkspan.sdk.drivers.base import Driver
from linkspan.sdk.errors import LinkspanError, NotUsable
from linkspan.sdk.host import Host
from linkspan.sdk.manifest import ComponentManifest, PluginManifest, VerbManifest

D = TypeVar("D")
MANIFEST_GROUP: Final = "linkspan.manifest"
LISTENER_GROUP: Final = "linkspan"


class _Owner(TypedDict):
    plugin: str
    version: str
    role: str
    stats: CallStats


class PluginRegistry:
    """Knows the installed plugins; imports none of them before it is asked to.

    Attributes:
        manifests: By plugin name.
        drivers: Installed drivers by role and name.
        problems: What does not work, and why; nothing here stops anything else.
    """

    def __init__(
        self,
        settings: PluginsConfig | None = None,
        *,
        entry_points: Iterable[metadata.EntryPoint] | None = None,
    ) -> None:
        """Make an empty registry; ``discover`` fills it.

        Args:
            settings: Which plugins may take part.
            entry_points: Instead of those of the environment, for tests.
        """
        self.settings = settings or PluginsConfig()
        self.manifests: dict[str, PluginManifest] = {}
        self.drivers: Mapping[tuple[str, str], DriverEntry] = {}
        self.problems: list[PluginProblem] = []
        self._given = None if entry_points is None else list(entry_points)
        self._points: list[metadata.EntryPoint] = []
        self._classes: dict[tuple[str, str], type[Driver[Any]]] = {}
        self._stats: dict[tuple[str, str], CallStats] = {}

    def discover(self) -> "PluginRegistry":
        """Read entry points and manifests afresh; import nothing of a plugin."""
        points = _installed() if self._given is None else self._given
        self._points = [p for p in points if p.group.partition(".")[0] == "linkspan"]
        self.manifests, self.problems = {}, []
        self.drivers = find_drivers(self._points)
        finder = ManifestFinder()
        for point in self._points:
            if point.group == MANIFEST_GROUP:
                self._read_manifest(point, finder)
        self._compare()
        return self

    def _read_manifest(self, point: metadata.EntryPoint, finder: ManifestFinder) -> None:
        distribution = distribution_of(point)
        try:
            manifest = read_manifest(point.value, distribution, finder=finder)
        except ManifestError as exc:
            first = exc.diagnostics[0]
            reason = f"{first.place}: {first.headline}" if first.place else first.headline
            if len(exc.diagnostics) > 1:
                reason += f" (and {len(exc.diagnostics) - 1} more)"
            self._problem(point.name, distribution, "manifest", reason)
            return
        other = self.manifests.get(manifest.name)
        if other is not None:
            if other.package != manifest.package:
                reason = f"the name '{manifest.name}' is taken by {other.distribution}"
                self._problem(point.name, distribution, "manifest", reason)
            return
        self.manifests[manifest.name] = manifest

    def _compare(self) -> None:
        """Manifests and entry points should tell the same."""
        described = set()
        for manifest in self.manifests.values():
            for driver in manifest.drivers:
                described.add((driver.role, driver.name))
                if (driver.role, driver.name) not in self.drivers:
                    group = f"linkspan.{driver.role}.v{driver.contract}"
                    reason = f"it has no entry point '{driver.name}' in {group}"
                    part = f"{driver.role}/{driver.name}"
                    self._problem(manifest.name, manifest.distribution, part, reason)
        for (role, name), entry in self.drivers.items():
            if (role, name) not in described:
                owner = self.plugin_of(role, name)
                self._problem(owner, entry.distribution, f"{role}/{name}", "not in its manifest")

    def _problem(self, plugin: str, distribution: str, part: str, reason: str) -> None:
        problem = PluginProblem(plugin=plugin, distribution=distribution, part=part, reason=reason)
        if problem not in self.problems:
            self.problems.append(problem)

    def plugin_of(self, role: str, name: str) -> str:
        """The name of the plugin that provides a driver; empty if nobody does."""
        for manifest in self.manifests.values():
            if any(d.role == role and d.name == name for d in manifest.drivers):
                return manifest.name
        entry = self.drivers.get((role, name))
        if entry is None:
            return ""
        for manifest in self.manifests.values():
            if manifest.distribution and manifest.distribution == entry.distribution:
                return manifest.name
        return entry.distribution.partition(" ")[0].removeprefix("linkspan-")

    def version_of(self, plugin: str) -> str:
        """A plugin's version; empty if it is unknown."""
        manifest = self.manifests.get(plugin)
        return manifest.version if manifest else ""

    def refusal(self, plugin: str) -> str:
        """Why a plugin may not take part, in words; empty if it may."""
        if plugin in self.settings.disable:
            return "disabled by [plugins] disable"
        manifest = self.manifests.get(plugin)
        if manifest and manifest.stage == "alpha" and plugin not in self.settings.enable_alpha:
            return "alpha; switch it on with [plugins] enable-alpha"
        return ""

    def driver_names(self, role: str) -> list[str]:
        """Installed drivers of a role."""
        return sorted(name for r, name in self.drivers if r == role)

    def driver_class(self, role: str, name: str) -> type[Driver[Any]]:
        """Import a driver's class.

        Raises:
            NotFound: code ``driver_not_found``.
            NotUsable: code ``plugin_disabled``: it is disabled, or alpha and not switched on.
            DriverUnloadable: Its code cannot be loaded; listed with the reason.
        """
        known = self._classes.get((role, name))
        if known is not None:
            return known
        entry = self.drivers.get((role, name))
        if entry is None:
            raise no_such_driver(role, name, self.driver_names(role))
        plugin = self.plugin_of(role, name)
        refusal = self.refusal(plugin)
        if refusal:
            raise NotUsable(
                f"{role} driver '{name}' of plugin '{plugin}' is {refusal}",
                code="plugin_disabled",
                details={"role": role, "driver": name, "plugin": plugin},
            )
        try:
            loaded = load_driver(entry)
        except LinkspanError as exc:
            self._problem(plugin, entry.distribution, f"{role}/{name}", exc.message)
            raise
        self._classes[role, name] = loaded
        return loaded

    def owners(self) -> Owners:
        """Whose code is whose, for whoever looks at a stack."""
        modules = [(target.partition(":")[0], name) for name, target, _ in self._listener_targets()]
        modules += [
            (point.value.partition(":")[0], self.plugin_of(role, name))
            for (role, name), entry in self.drivers.items()
            for point in entry.points
        ]
        return Owners.of(self.manifests.values(), modules)

    def guard(self, role: str, name: str, driver: D) -> D:
        """Wrap an open driver: faults are attributed and counted."""
        return guarded(driver, **self._owner(role, name))

    def open_driver(
        self, role: str, name: str, config: Any, host: Host
    ) -> AbstractAsyncContextManager[Any]:
        """Open a driver, guarded: what ``open`` raises outside its contract is a DriverFault too.

        Raises:
            NotFound, NotUsable, DriverUnloadable: As ``driver_class``.
        """
        kind = self.driver_class(role, name)
        owner = self._owner(role, name)
        return guarded_open(kind.open(config, host), **owner)

    def _owner(self, role: str, name: str) -> _Owner:
        plugin = self.plugin_of(role, name)
        return {
            "plugin": plugin,
            "version": self.version_of(plugin),
            "role": role,
            "stats": self._stats.setdefault((role, name), CallStats()),
        }

    def stats(self, role: str, name: str) -> CallStats:
        """Calls and faults of a driver since the daemon's start."""
        return self._stats.get((role, name), CallStats())

    def listeners(self) -> list[tuple[str, Any]]:
        """Import the hook modules of all plugins that may take part: plugin name and module.

        A module that cannot be imported is listed with its reason and left out.
        """
        found: list[tuple[str, Any]] = []
        for plugin, target, distribution in self._listener_targets():
            if self.refusal(plugin):
                continue
            module, _, attribute = target.partition(":")
            try:
                listener: Any = importlib.import_module(module)
                for part in attribute.split(".") if attribute else ():
                    listener = getattr(listener, part)
            except KeyboardInterrupt:
                raise
            except BaseException as exc:  # noqa: BLE001 - sys.exit() in a plugin must not end us
                reason = f"{type(exc).__name__}: {exc}"
                self._problem(plugin, distribution, "listener", reason)
                continue
            found.append((plugin, listener))
        return found

    def _listener_targets(self) -> list[tuple[str, str, str]]:
        targets = [
            (m.name, m.listener, m.distribution) for m in self.manifests.values() if m.listener
        ]
        taken = {target for _, target, _ in targets}
        for point in self._points:
            if point.group == LISTENER_GROUP and point.value not in taken:
                targets.append((point.name, point.value, distribution_of(point)))
        return targets

    def hook_runner(self) -> HookRunner:
        """A runner with all listeners; one that does not fit the hooks is listed and left out."""
        runner = HookRunner(
            timeout_s=self.settings.hook_timeout_s, max_failures=self.settings.hook_max_failures
        )
        for plugin, listener in self.listeners():
            try:
                runner.register(listener, plugin)
            except LinkspanError as exc:
                distribution = getattr(self.manifests.get(plugin), "distribution", "")
                self._problem(plugin, distribution, "listener", exc.message)
        return runner

    @property
    def components(self) -> Mapping[str, ComponentManifest]:
        """Components of plugins that may take part, by name."""
        return {
            component.name: component
            for manifest in self.manifests.values()
            if not self.refusal(manifest.name)
            for component in manifest.components
        }

    def component_config_type(self, name: str) -> type[Any] | None:
        """Import the class of a component's table; None if it has no settings.

        Raises:
            NotFound: There is no such component.
            NotUsable: Its code cannot be loaded.
        """
        component = self.components.get(name)
        if component is None:
            raise no_such_driver("component", name, self.components)
        if not component.config:
            return None
        module, _, attribute = component.config.partition(":")
        try:
            loaded: type[Any] = getattr(importlib.import_module(module), attribute)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            raise NotUsable(
                f"component '{name}': {component.config} cannot be loaded: "
                f"{type(exc).__name__}: {exc}"
            ) from exc
        return loaded

    @property
    def verbs(self) -> Mapping[str, tuple[str, VerbManifest]]:
        """Verbs of plugins that may take part: plugin name and description."""
        return {
            verb.name: (manifest.name, verb)
            for manifest in self.manifests.values()
            if not self.refusal(manifest.name)
            for verb in manifest.verbs
        }

    def listing(self, config: LoadedConfig | None = None) -> list[PluginRow]:
        """One row for each thing that a plugin provides, for ``linkspan plugin ls``."""
        return rows_of(self, config)


def _installed() -> list[metadata.EntryPoint]:
    points = metadata.entry_points()
    return [point for group in sorted(points.groups) for point in points.select(group=group)]
