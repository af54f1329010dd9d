"""What the installed plugins offer to pipelines, from their manifests alone: verbs, roles, drivers."""

import importlib
from collections.abc import Iterable, Iterator, Mapping

import attrs

from linkspan.sdk.manifest import PluginManifest, VerbManifest
from linkspan.sdk.stability import ContractInfo


@attrs.frozen(kw_only=True)
class Verb:
    """A verb and whose it is; ``plugin`` and ``version`` are named in messages and in the journal."""

    manifest: VerbManifest
    plugin: str
    version: str

    @property
    def name(self) -> str:
        """``deploy``."""
        return self.manifest.name

    @property
    def provider(self) -> str:
        """``standard-steps 0.1.0``."""
        return f"{self.plugin} {self.version}"


@attrs.frozen(kw_only=True)
class InstalledDriver:
    """A driver of a role, as its manifest describes it.

    Attributes:
        contract: The version of the role's contract that it speaks.
    """

    role: str
    name: str
    plugin: str
    version: str
    distribution: str
    contract: int
    features: tuple[str, ...]

    @property
    def provider(self) -> str:
        """``nfs-volumes 0.4``."""
        return f"{self.plugin} {self.version}"


class Verbs(Mapping[str, Verb]):
    """Verbs by name, in the order of their plugins; and the drivers beside them."""

    def __init__(self, manifests: Iterable[PluginManifest]) -> None:
        self._verbs: dict[str, Verb] = {}
        self._drivers: dict[tuple[str, str], InstalledDriver] = {}
        self.plugins: dict[str, str] = {}
        """Version of each installed plugin, by its own name and by that of what it was installed from."""
        self.packages: dict[str, str] = {}
        """What each plugin was installed from, as far as that is known."""
        for manifest in manifests:
            package = manifest.distribution.partition(" ")[0]
            if package:
                self.packages[manifest.name] = package
            self.plugins |= dict.fromkeys(filter(None, (manifest.name, package)), manifest.version)
            for verb in manifest.verbs:
                self._verbs.setdefault(
                    verb.name, Verb(manifest=verb, plugin=manifest.name, version=manifest.version)
                )
            for driver in manifest.drivers:
                self._drivers.setdefault(
                    (driver.role, driver.name),
                    InstalledDriver(
                        role=driver.role,
                        name=driver.name,
                        plugin=manifest.name,
                        version=manifest.version,
                        distribution=manifest.distribution,
                        contract=driver.contract,
                        features=driver.features,
                    ),
                )
        self.roles: tuple[str, ...] = tuple(
            dict.fromkeys(role for role, _ in self._drivers if role != "step")
        )
        """Roles that some driver plays; verbs' own left out."""

    def driver(self, role: str, name: str) -> InstalledDriver | None:
        """One driver."""
        return self._drivers.get((role, name))

    def drivers_of(self, role: str) -> list[str]:
        """Names of the drivers of a role."""
        return [name for each, name in self._drivers if each == role]

    def offering(self, role: str, feature: str) -> list[str]:
        """The drivers of a role that have a feature."""
        names = self.drivers_of(role)
        return [name for name in names if feature in self._drivers[role, name].features]

    def contract(self, role: str) -> int | None:
        """The version of a role's contract that this Linkspan speaks; None for roles of others."""
        try:
            module = importlib.import_module(f"linkspan.sdk.drivers.{role}")
        except ImportError:
            return None
        for value in vars(module).values():
            info = getattr(value, "contract", None)
            if isinstance(info, ContractInfo) and info.role == role:
                return info.version
        return None

    def __getitem__(self, name: str) -> Verb:
        return self._verbs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._verbs)

    def __len__(self) -> int:
        return len(self._verbs)
