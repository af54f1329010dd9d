"""Every wrong pipeline of the data file gets exactly the answer written beside it."""

import re
from pathlib import Path

import pytest

from linkspan.sdk.diagnostic_ids import IDS
from linkspan.sdk.diagnostics import render_all
from linkspan.sdk.manifest import DriverManifest, PluginManifest, VerbManifest, VerbSetting
from linkspan.workflows.check import check
from linkspan.workflows.verbs import Verbs

CASE = re.compile(
    r"^## (\d+) (LS\d+)\n\n```yaml\n(.*?)\n```\n```text\n(.*?)\n```$", re.DOTALL | re.MULTILINE
)
CASES = CASE.findall((Path(__file__).parent / "data" / "bad-pipelines.md").read_text())
TEXT = VerbSetting(type="string")
NEEDED = VerbSetting(type="string", required=True)
LIST = VerbSetting(type="list")
DURATION = VerbSetting(type="duration")


def verb(name, outputs=(), **settings):
    named = {key.replace("_", "-"): setting for key, setting in settings.items()}
    return VerbManifest(name=name, summary="", settings=named, outputs=outputs)


UPDATE = VerbSetting(
    type="map", keys={"strategy": VerbSetting(type="string", feature="orchestrator.{value}")}
)
OCI = PluginManifest(
    name="linkspan-oci",
    version="1.4",
    verbs=(
        verb("build", ("id", "image"), context=TEXT, args=VerbSetting(type="map")),
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


def plays(plugin, version, role, name, *features, contract=1):
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


def test_the_data_file_is_read():
    assert [int(number) for number, *_ in CASES] == list(range(1, 29))


@pytest.mark.parametrize(("number", "id_", "pipeline", "answer"), CASES, ids=lambda v: str(v)[:7])
def test_a_wrong_pipeline_gets_its_answer(number, id_, pipeline, answer):
    found = check(pipeline + "\n", ".linkspan/release.yaml", VERBS, unbuilt=()).diagnostics
    shown = [d for d in found if d.id != "LS1008"]
    assert render_all(shown) == answer
    assert id_ in {d.id for d in shown}
    assert {d.id for d in found} <= IDS.keys()
