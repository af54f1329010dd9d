"""Plugins that are installed only on paper: manifests for tests of the language."""

from linkspan.sdk.manifest import DriverManifest, PluginManifest, VerbManifest, VerbSetting
from linkspan.workflows.verbs import Verbs

TEXT = VerbSetting(type="string")
NEEDED = VerbSetting(type="string", required=True)
LIST = VerbSetting(type="list")
DURATION = VerbSetting(type="duration")


def verb(name: str, outputs: tuple[str, ...] = (), **settings: VerbSetting) -> VerbManifest:
    """A verb; ``_`` in a setting's name stands for ``-``."""
    named = {key.replace("_", "-"): setting for key, setting in settings.items()}
    return VerbManifest(name=name, summary="", settings=named, outputs=outputs)


UPDATE = VerbSetting(
    type="map", keys={"strategy": VerbSetting(type="string", feature="orchestrator.{value}")}
)
OCI = PluginManifest(
    name="linkspan-oci",
    version="1.4",
    verbs=(
        verb(
            "build",
            ("id", "image"),
            context=TEXT,
            args=VerbSetting(type="map"),
            secret_mounts=VerbSetting(type="secrets"),
        ),
        verb(
            "push",
            ("image", "digest"),
            image=NEEDED,
            tags=LIST,
            digest_file=TEXT,
            provenance=VerbSetting(type="bool"),
            sign=VerbSetting(type="bool"),
        ),
        verb("pull", image=NEEDED),
        verb(
            "deploy",
            service=NEEDED,
            image=TEXT,
            replicas=VerbSetting(type="int"),
            volumes=LIST,
            update=UPDATE,
        ),
        verb("scale", service=NEEDED),
        verb("rollback", service=NEEDED),
        verb("wait-for", service=TEXT, condition=TEXT, timeout=DURATION),
        verb("http-check", url=NEEDED),
        verb("approve", message=NEEDED, timeout=DURATION),
        verb("notify", text=NEEDED),
        verb("prune", label=TEXT),
    ),
)


def plays(
    plugin: str, version: str, role: str, name: str, *features: str, contract: int = 1
) -> PluginManifest:
    """A plugin with one driver."""
    driver = DriverManifest(role=role, name=name, contract=contract, features=features)
    return PluginManifest(
        name=plugin, version=version, distribution=f"linkspan-{name}", drivers=(driver,)
    )


VERBS = Verbs(
    [
        OCI,
        plays("lite", "1.0", "orchestrator", "compose-lite", "recreate", "rolling"),
        plays(
            "swarm", "1.0", "orchestrator", "swarm", "recreate", "rolling", "canary", "blue-green"
        ),
        plays("nfs-volumes", "0.4", "volume", "nfs", contract=0),
        plays("local-volumes", "1.0", "volume", "local"),
    ]
)
