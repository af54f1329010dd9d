"""Mending, reports for other programs, and comments that allow a warning."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from installed_plugins import VERBS

from linkspan.sdk.diagnostics import Edit
from linkspan.workflows.check import check
from linkspan.workflows.mending import apply, mend
from linkspan.workflows.reports import as_github, as_sarif
from linkspan.workflows.verbs import Verbs

HEAD = "linkspan: v1\ndefaults: {image: busybox}\n"


def mended(text, verbs=VERBS):
    return mend(text, "f.yaml", lambda new: check(new, "f.yaml", verbs).diagnostics)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("jobs: {a: {stepz: [{run: x}]}}", "jobs: {a: {steps: [{run: x}]}}"),
        (
            "jobs: {a: {steps: [{run: x}], timeout-minutes: 10}}",
            "jobs: {a: {steps: [{run: x}], timeout: 10m}}",
        ),
        (
            "jobs: {a: {steps: [{run: x}], container: node:20}}",
            "jobs: {a: {steps: [{run: x}], image: node:20}}",
        ),
        (
            "jobs: {a: {steps: [{run: x}], continue-on-error: 'yes'}}",
            "jobs: {a: {steps: [{run: x}], continue-on-error: true}}",
        ),
        (
            "jobs:\n  a: # why\n    steps:\n\t  - run: x  # because\n",
            "jobs:\n  a: # why\n    steps:\n      - run: x  # because\n",
        ),
        (
            "jobs:\n  a:\n    steps:\n      - run: echo a: b",
            'jobs:\n  a:\n    steps:\n      - run: "echo a: b"',
        ),
        (
            "jobs: {a: {steps: [{run: 'echo ${{ git.branch }}_x ${{ run.id }}'}]}}",
            "jobs: {a: {steps: [{run: 'echo ${GIT_BRANCH}_x $RUN_ID'}]}}",
        ),
        (
            "jobs: {a: {steps: [{run: x}]}, b: {needs: aa, steps: [{run: x}]}}",
            "jobs: {a: {steps: [{run: x}]}, b: {needs: a, steps: [{run: x}]}}",
        ),
        (
            "jobs: {a: {steps: [{uses: push, with: {image: web, tag: main}}]}}",
            "jobs: {a: {steps: [{uses: push, with: {image: web, tags: [main]}}]}}",
        ),
        (
            'jobs: {a: {if: "${{ success() }} && failure()", steps: [{run: x}]}}',
            "jobs: {a: {if: success() && failure(), steps: [{run: x}]}}",
        ),
    ],
)
def test_what_is_safe_is_mended_and_all_else_stays(wrong, right):
    result = mended(HEAD + wrong)
    assert result.text == HEAD + right
    assert result.done
    assert not [d for d in result.left if d.severity == "error"]
    again = mended(result.text)
    assert (again.text, again.done) == (result.text, ())


def test_a_missing_version_is_written_below_the_first_comment():
    text = "# ours\n---\njobs: {a: {image: x, steps: [{run: x}]}}\n"
    assert mended(text).text == "# ours\n---\nlinkspan: v1\n" + text[len("# ours\n---\n") :]


@pytest.mark.parametrize(
    "text",
    [
        "jobs: {a: {needs: zzz, steps: [{run: x}]}}",
        "jobs: {a: {steps: [{run: \"echo '${{ git.branch }}'\"}]}}",
        "jobs: {a: {steps: [{run: x}], timeout: 10}}",
        "jobs: {a: {steps: [{run: x}], need: [a], needs: []}}",
        "secrets: {TOKEN: {from: env}}\njobs: {a: {steps: [{run: x, secrets: [TOKNE]}]}}",
    ],
)
def test_what_a_person_must_decide_is_left_alone(text):
    result = mended(HEAD + text)
    assert result.text == HEAD + text
    assert result.left


@given(
    st.text(max_size=40), st.lists(st.tuples(st.integers(0, 40), st.text(max_size=5)), max_size=4)
)
def test_insertions_add_their_texts_and_take_nothing_away(text, places):
    edits = [Edit(start=min(at, len(text)), end=min(at, len(text)), text=new) for at, new in places]
    assert len(apply(text, edits)) == len(text) + sum(len(edit.text) for edit in edits)


def test_github_gets_a_command_for_each_fault_with_its_place():
    found = check(
        HEAD + "jobs: {a: {need: x, steps: [{run: x}]}}", "a,b.yaml", Verbs([])
    ).diagnostics
    (line,) = as_github(found)
    assert line == (
        "::error file=a%2Cb.yaml,line=3,col=12,endColumn=16,title=LS1001::unknown key 'need' in job 'a'"
        "%0Adid you mean 'needs'?   (apply with: linkspan workflow lint --fix)"
    )


def test_sarif_names_rules_places_and_second_places():
    text = HEAD + "jobs:\n  a: {env: {A: x},\n    env: {B: y}, steps: [{run: x}]}\n"
    found = check(text, "f.yaml", Verbs([])).diagnostics
    log = as_sarif(found, "1.0")
    (run,) = log["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["LS1002"]
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "f.yaml"}
    assert place["region"] == {"startLine": 5, "startColumn": 5, "endColumn": 8}
    assert result["relatedLocations"][0]["message"] == {"text": "first definition"}


SECRET = "jobs: {a: {env: {DB_PASSWORD: hunter2-prod}, steps: [{run: x}]}}"


@pytest.mark.parametrize(
    ("text", "silent"),
    [
        (f"{SECRET}  # linkspan: allow LS1304 of the test database", True),
        (f"# linkspan: allow LS1304, LS1504 of the test database\n{SECRET}", True),
        (f"{SECRET}  # linkspan: allow LS1304", False),
        (f"{SECRET}  # linkspan: allow LS1504 another one", False),
        (f"# linkspan: allow LS1304 too far away\n\n{SECRET}", False),
    ],
)
def test_a_warning_is_silent_where_somebody_gave_a_reason(text, silent):
    found = check(HEAD + text, "f.yaml", Verbs([])).diagnostics
    assert [d.id for d in found] == ([] if silent else ["LS1304"])


def test_an_error_cannot_be_allowed():
    text = HEAD + "# linkspan: allow LS1001 please\njobs: {a: {need: x, steps: [{run: x}]}}"
    assert [d.id for d in check(text, "f.yaml", Verbs([])).diagnostics] == ["LS1001"]


def test_the_command_mends_files_in_place_and_keeps_mode_marks_and_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
):
    from linkspan.core.cli.main import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / ".linkspan").mkdir()
    file = tmp_path / ".linkspan" / "ci.yaml"
    body = HEAD + "jobs: {a: {stepz: [{run: x}]}}  # ü\n"
    file.write_bytes(b"\xef\xbb\xbf" + body.replace("\n", "\r\n").encode())
    file.chmod(0o640)
    assert run(["workflow", "lint"]) == 2
    assert b"can be mended: linkspan workflow lint --fix" in capsysbinary.readouterr().err
    assert run(["workflow", "lint", "--fix"]) == 0
    expected = body.replace("stepz", "steps").replace("\n", "\r\n").encode()
    assert file.read_bytes() == b"\xef\xbb\xbf" + expected
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(file.parent.iterdir()) == [file]
    assert b"1 mended, no errors in 1 file" in capsysbinary.readouterr().err


SKIPPED = """\
linkspan: v1
defaults: {image: x}
inputs: {ask: {type: bool, default: false}}
jobs:
  test: {steps: [{run: x}]}
  free: {steps: [{run: x}]}
  gate: {needs: [test], if: inputs.ask, steps: [{run: x}]}
  go: {needs: [test, free, gate], if: "%s", steps: [{run: x}]}
"""


@pytest.mark.parametrize(
    ("condition", "column"),
    [
        ("success() || needs.gate.result == 'skipped'", 53),
        ("'skipped' == needs.gate.result", 40),
        ("needs.gate.result in ['success', 'skipped']", 40),
        ("needs.gate.result == 'skipped' && !failure()", None),
        ("needs.test.result == 'success' && needs.gate.result == 'skipped'", None),
        ("needs.free.result == 'skipped'", None),
        ("needs.gate.result == 'failed'", None),
    ],
)
def test_a_condition_that_also_holds_after_a_failure_is_warned_of(condition, column):
    found = check(SKIPPED % condition, "f.yaml", VERBS).diagnostics
    places = [(d.id, d.severity, d.primary.span.column) for d in found]
    assert places == ([] if column is None else [("LS1505", "warning", column)])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("script: [make, 'echo a, b']", "steps: [{run: make}, {run: 'echo a, b'}]"),
        ("script: make all", "steps: [{run: make all}]"),
        (
            "commands:\n      - make\n      - 'x: y'",
            "steps:\n      - run: make\n      - run: 'x: y'",
        ),
        ("depends_on: [b, c]\n    steps: []", "needs: [b, c]\n    steps: []"),
        ("depends_on: b\n    steps: []", "needs: b\n    steps: []"),
        # A person has to think about these.
        ("script: make [all]", "script: make [all]"),
        ("script:\n      - |\n        a\n        b", "script:\n      - |\n        a\n        b"),
        ("script: [a]\n    steps: []", "script: [a]\n    steps: []"),
        (
            "depends_on: {b: {condition: x}}\n    steps: []",
            "depends_on: {b: {condition: x}}\n    steps: []",
        ),
    ],
)
def test_habits_of_other_tools_are_mended_where_nobody_has_to_think(theirs, ours):
    def look(text: str):
        return check(text, "f.yaml", Verbs([])).diagnostics

    head = HEAD + "jobs:\n  a:\n    "
    assert mend(head + theirs + "\n", "f.yaml", look).text == head + ours + "\n"


def test_a_job_with_another_tools_script_is_not_told_that_it_has_no_steps():
    found = check(HEAD + "jobs: {a: {script: [x]}}", "f.yaml", Verbs([])).diagnostics
    assert [d.id for d in found] == ["LS1009"]


def test_a_pipeline_without_jobs_is_shown_how_one_is_written():
    (found,) = check(HEAD + "jobs: {}", "f.yaml", Verbs([])).diagnostics
    assert found.headline == "'jobs' holds no job"
    assert found.helps == ("write one:  {NAME: {steps: [{run: COMMAND}]}}",)
