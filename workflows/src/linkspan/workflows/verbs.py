"""The verbs that installed plugins answer, from their manifests alone."""

from collections.abc import Iterable, Iterator, Mapping

import attrs

from linkspan.sdk.manifest import PluginManifest, VerbManifest


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


class Verbs(Mapping[str, Verb]):
    """Verbs by name, in the order of their plugins."""

    def __init__(self, manifests: Iterable[PluginManifest]) -> None:
        self._verbs: dict[str, Verb] = {}
        for manifest in manifests:
            for verb in manifest.verbs:
                self._verbs.setdefault(
                    verb.name, Verb(manifest=verb, plugin=manifest.name, version=manifest.version)
                )

    def __getitem__(self, name: str) -> Verb:
        return self._verbs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._verbs)

    def __len__(self) -> int:
        return len(self._verbs)
