"""Every wrong pipeline of the data file gets exactly the answer written beside it."""

import re
from pathlib import Path

import pytest
from installed_plugins import VERBS

from linkspan.sdk.diagnostic_ids import IDS
from linkspan.sdk.diagnostics import render_all
from linkspan.workflows.check import check

CASE = re.compile(
    r"^## (\d+) (LS\d+)\n\n```yaml\n(.*?)\n```\n```text\n(.*?)\n```$", re.DOTALL | re.MULTILINE
)
CASES = CASE.findall((Path(__file__).parent / "data" / "bad-pipelines.md").read_text())


def test_the_data_file_is_read():
    assert [int(number) for number, *_ in CASES] == list(range(1, 29))


@pytest.mark.parametrize(("number", "id_", "pipeline", "answer"), CASES, ids=lambda v: str(v)[:7])
def test_a_wrong_pipeline_gets_its_answer(number, id_, pipeline, answer):
    found = check(pipeline + "\n", ".linkspan/release.yaml", VERBS).diagnostics
    shown = [d for d in found if d.id != "LS1008"]
    assert render_all(shown) == answer
    assert id_ in {d.id for d in shown}
    assert {d.id for d in found} <= IDS.keys()
