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


ELSEWHERE = {
    "LS1408": "test_plan.py",
    "LS1409": "../../tests/system/test_pipeline_plan.py",
    "LS1410": "test_use.py",
    "LS1601": "test_scenarios.py",
}
"""What a pipeline's file alone cannot earn, and where it is earned."""


MORE_THAN_PLANNED = {
    "11": (
        "LS1201",
        "the example reads a step by an id that no step has: that is told as well",
    ),
    "20": (
        "pip install 'linkspan-acme-scan>=2,<3'\n",
        "there is no index of plugins that could tell how well known one is, and how old",
    ),
    "24": (
        f"needs {VERBS.contract('volume')}\n",
        "versions are those of this Linkspan's contracts, of which none was ever deprecated",
    ),
}
"""Answers that say something else than the language's first description, which knew other facts: what, and why."""


@pytest.mark.parametrize("number", MORE_THAN_PLANNED)
def test_an_answer_that_differs_from_its_plan_tells_what_is_so(number):
    (answer,) = [each for wanted, _, _, each in CASES if wanted == number]
    assert MORE_THAN_PLANNED[number][0] in answer


def test_the_data_file_is_read():
    assert [int(number) for number, *_ in CASES] == list(range(1, len(CASES) + 1))
    assert len(CASES) >= 28


def test_every_message_about_a_pipeline_has_an_example():
    ids = {id_ for id_ in IDS if id_.startswith("LS1")}
    assert {id_ for _, id_, *_ in CASES} == ids - ELSEWHERE.keys()
    for id_, file in ELSEWHERE.items():
        assert id_ in (Path(__file__).parent / file).read_text(), id_


@pytest.mark.parametrize(("number", "id_", "pipeline", "answer"), CASES, ids=lambda v: str(v)[:7])
def test_an_example_shows_id_place_caret_and_help(number, id_, pipeline, answer):
    found = next(each for each in answer.split("\n\n") if f"[{id_}]: " in each)
    head, place, *rest = found.splitlines()
    assert re.fullmatch(rf"(error|warning)\[{id_}\]: \S.*", head)
    line, column = re.fullmatch(r" *--> \.linkspan/release\.yaml:(\d+):(\d+)", place).groups()
    shown = next(i for i, each in enumerate(rest) if re.match(rf" *{line} \| ", each))
    carets = [each for each in rest[shown + 1 :] if re.match(r" +\| +\^", each)]
    # Below the very column that is named.
    assert carets[0].index("^") - carets[0].index("|") - 2 == int(column) - 1
    assert any(re.match(r" += help: \S", each) for each in rest)


@pytest.mark.parametrize(("number", "id_", "pipeline", "answer"), CASES, ids=lambda v: str(v)[:7])
def test_a_wrong_pipeline_gets_its_answer(number, id_, pipeline, answer):
    found = check(pipeline + "\n", ".linkspan/release.yaml", VERBS).diagnostics
    shown = [d for d in found if d.id != "LS1008" or id_ == "LS1008"]
    assert render_all(shown) == answer
    assert id_ in {d.id for d in shown}
    assert {d.id for d in found} <= IDS.keys()
