"""Every wrong pipeline of the data file gets exactly the answer written beside it."""

import re
from pathlib import Path

import pytest

from linkspan.sdk.diagnostic_ids import IDS
from linkspan.sdk.diagnostics import render_all
from linkspan.sdk.manifest import PluginManifest, VerbManifest, VerbSetting
from linkspan.workflows.check import check
from linkspan.workflows.verbs import Verbs

CASE = re.compile(
    r"^## (\d+) (LS\d+)\n\n```yaml\n(.*?)\n```\n```text\n(.*?)\n```$", re.DOTALL | re.MULTILINE
)
CASES = CASE.findall((Path(__file__).parent / "data" / "bad-pipelines.md").read_text())
VERBS = Verbs(
    [
        PluginManifest(
            name="linkspan-oci",
            version="1.4",
            verbs=(
                VerbManifest(name="build", summary="", outputs=("id", "image")),
                VerbManifest(
                    name="push",
                    summary="",
                    settings={
                        "image": VerbSetting(type="string", required=True),
                        "tags": VerbSetting(type="list"),
                        "digest-file": VerbSetting(type="string"),
                        "provenance": VerbSetting(type="bool"),
                        "sign": VerbSetting(type="bool"),
                    },
                    outputs=("image", "digest"),
                ),
                VerbManifest(
                    name="deploy",
                    summary="",
                    settings={
                        "service": VerbSetting(type="string", required=True),
                        "image": VerbSetting(type="string"),
                        "replicas": VerbSetting(type="int"),
                    },
                ),
            ),
        )
    ]
)


def test_the_data_file_is_read():
    assert len(CASES) == 20


@pytest.mark.parametrize(("number", "id_", "pipeline", "answer"), CASES, ids=lambda v: str(v)[:7])
def test_a_wrong_pipeline_gets_its_answer(number, id_, pipeline, answer):
    found = check(pipeline + "\n", ".linkspan/release.yaml", VERBS).diagnostics
    shown = [d for d in found if d.id != "LS1008"]
    assert render_all(shown) == answer
    assert id_ in {d.id for d in shown}
    assert {d.id for d in found} <= IDS.keys()
