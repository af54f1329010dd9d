"""Scenario files: what they say is done by the real runner, and what is not so is told with its place."""

import json
import time
from xml.etree import ElementTree

import pytest
import trio

from linkspan.core.cli import main
from linkspan.workflows.commands import scenarios as command
from linkspan.workflows.scenarios.clock import ScenarioClock, Stuck
from linkspan.workflows.scenarios.loading import load_scenarios
from linkspan.workflows.scenarios.playing import play, playground

PIPELINE = """
linkspan: v1
inputs: {v: {type: string, default: "1"}}
secrets: {TOKEN: {from: file}}
defaults: {image: "alpine:3"}
jobs:
  build:
    outputs: {sum: "${{ steps.make.outputs.sum }}"}
    steps:
      - {id: make, run: make, retry: {max: 2, backoff: 1h}, env: {V: "${{ inputs.v }}"}}
      - {id: check, run: check, timeout: 1m}
  test:
    needs: [build]
    strategy: {matrix: {n: ["1", "2"]}}
    services: {db: {image: "db:1"}}
    artifacts: {report: [out.txt]}
    steps: [{id: unit, run: "test it", if: "git.branch != 'skip'"}]
  go:
    needs: [build, test]
    steps:
      - {id: first, uses: set, with: {name: a, value: "${{ needs.build.outputs.sum }}"}, on-failure: pause}
      - {id: last, uses: set, with: {name: b, takes: 2m, token: "${{ secrets.TOKEN }}"}, secrets: [TOKEN]}
finally:
  tell: {steps: [{id: say, run: say}]}
"""
FILES = "test/unit: {files: {out.txt: x}}"
MAKE = "build/make: {outputs: {sum: abc}}"
STEPS = f"secrets: {{TOKEN: hunter2hunter2}}, steps: {{{MAKE}, {FILES}}}"


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".linkspan" / "tests").mkdir(parents=True)
    (tmp_path / ".linkspan" / "p.yaml").write_text(PIPELINE)
    return tmp_path


def written(project, text):
    path = project / ".linkspan" / "tests" / "p.yaml"
    path.write_text(text)
    return path


def run(project, verbs, scenario, *, steps=f"{MAKE}, {FILES}", secrets=True):
    """The mismatches of one scenario, as ``(what, expected, found)``."""
    secret = "    secrets: {TOKEN: hunter2hunter2}\n" if secrets else ""
    body = "".join(f"    {line}\n" for line in scenario.strip().splitlines())
    text = f"pipeline: p\nscenarios:\n  - name: one\n{secret}    steps: {{{steps}}}\n{body}"
    loaded = load_scenarios(written(project, text), text.encode(), verbs)
    assert loaded.found is not None, [d.headline for d in loaded.diagnostics]
    with playground() as folder:
        played = play(loaded.found, loaded.found.scenarios[0], verbs, folder)
        assert list(folder.iterdir()) == []
    print(*(line for each in played.mismatches for line in each.why), sep="\n")
    return [(each.what, each.expected, each.found) for each in played.mismatches]


def test_a_run_that_is_as_expected_has_no_mismatch(project, verbs):
    expect = """
inputs: {v: "7"}
expect:
  result: success
  order: [build/make, "test[1]/unit", go/first, go/last, tell/say]
  undone: []
  skipped: []
  kept: []
  jobs: {"test[2]": success}
  steps:
    build/make: {tries: 1, outputs: {sum: abc}, env: {V: "7"}, with: {image: "alpine:3"}}
    go/first: {with: {name: a, value: abc}}
    go/last: {with: {takes: 2m, token: hunter2hunter2}}
"""
    assert run(project, verbs, expect) == []


@pytest.mark.parametrize(
    ("expect", "mismatch"),
    [
        ("result: failed", ("result", "failed", "success")),
        ("order: [go/last, go/first]", ("order", "go/last, go/first", "go/first, go/last")),
        ("undone: [go/first]", ("undone", "go/first", "nothing")),
        ("skipped: [go/last]", ("skipped", "go/last", "nothing")),
        ("kept: [build/make]", ("kept", "build/make", "nothing")),
        ("jobs: {go: failed}", ("go: result", "failed", "success")),
        ("steps: {go/last: {result: skipped}}", ("go/last: result", "skipped", "success")),
        ("steps: {build/make: {tries: 2}}", ("build/make: tries", "2", "1")),
        ("steps: {build/make: {outputs: {sum: x}}}", ("build/make: outputs.sum", "x", "abc")),
        ("steps: {build/make: {env: {V: '2'}}}", ("build/make: env.V", "2", "1")),
        ("steps: {go/first: {with: {name: b}}}", ("go/first: with.name", "b", "a")),
        ("steps: {go/last: {with: {takes: 3m}}}", ("go/last: with.takes", "3m", "120.0")),
        ("steps: {go/last: {with: {number: 1}}}", ("go/last: with.number", "1", "nothing")),
        ("steps: {build/make: {log: done}}", ("build/make: log", "done", "nothing")),
        ("steps: {build/make: {error: bad}}", ("build/make: error", "bad", "nothing")),
    ],
)
def test_what_is_not_so_is_a_mismatch(project, verbs, expect, mismatch):
    assert run(project, verbs, f"expect: {{{expect}}}") == [mismatch]


def test_a_script_that_fails_is_tried_again_and_hours_pass_at_once(project, verbs):
    steps = f"build/make: [{{exit: 1, log: [bad]}}, {{exit: 3}}, {{outputs: {{sum: z}}}}], {FILES}"
    expect = "expect: {result: success, steps: {build/make: {tries: 3, log: bad}}}"
    assert run(project, verbs, expect, steps=steps) == []


def test_a_step_that_hangs_runs_into_its_time_limit(project, verbs):
    expect = """
expect:
  result: failed
  steps: {build/check: {result: timed-out, error: timeout of 60s}}
  skipped: ["test[1]/unit", "test[2]/unit", go/first, go/last]
"""
    assert run(project, verbs, expect, steps="build/check: {takes: 3h}") == []


def test_a_step_that_just_ends_in_time_does_not(project, verbs):
    steps = f"{MAKE}, build/check: {{takes: 59s}}, {FILES}"
    assert run(project, verbs, "expect: {result: success}", steps=steps) == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("{fails: no such file}", "no such file"),
        ("{cause: oom}", "out of memory"),
        ("{exit: 9}", "exit code 9"),
    ],
)
def test_scripts_fail_in_every_way(project, verbs, answer, error):
    expect = f"expect: {{result: failed, steps: {{build/check: {{error: {error}}}}}}}"
    assert run(project, verbs, expect, steps=f"build/check: {answer}") == []


def test_one_cell_of_a_matrix_answers_for_itself(project, verbs):
    # The other cell has ended by then: nothing stops it.
    steps = f'{MAKE}, {FILES}, "test[2]/unit": {{exit: 1, takes: 1s}}'
    expect = 'expect: {result: failed, jobs: {"test[1]": success, "test[2]": failed}}'
    assert run(project, verbs, expect, steps=steps) == []


def test_a_verb_that_fails_is_undone(project, verbs):
    steps = f"{MAKE}, {FILES}, go/last: {{fails: broken}}"
    assert run(project, verbs, "expect: {result: failed, undone: [go/last]}", steps=steps) == []


@pytest.mark.parametrize("answer", ["undo: false", "undo-fails: stuck"])
def test_a_verb_without_a_way_back_is_not(project, verbs, answer):
    steps = f"{MAKE}, {FILES}, go/last: {{fails: broken, {answer}}}"
    assert run(project, verbs, "expect: {result: failed, undone: []}", steps=steps) == []


@pytest.mark.parametrize(
    ("decision", "result"), [("approve", "success"), ("reject", "rejected"), ("none", "suspended")]
)
def test_a_person_decides_as_the_scenario_says(project, verbs, decision, result):
    steps = f"{MAKE}, {FILES}, go/first: {{decision: {decision}}}"
    assert run(project, verbs, f"expect: {{result: {result}}}", steps=steps) == []


def test_a_pause_goes_on_with_the_next_answer(project, verbs):
    steps = f"{MAKE}, {FILES}, go/first: [{{fails: no, decision: approve}}, {{}}]"
    expect = "expect: {result: success, steps: {go/first: {tries: 2}}}"
    assert run(project, verbs, expect, steps=steps) == []


def test_a_pause_without_end_is_left_suspended(project, verbs):
    steps = f"{MAKE}, {FILES}, go/first: {{fails: no, decision: approve}}"
    assert run(project, verbs, "expect: {result: suspended}", steps=steps) == []


def test_a_crash_after_a_step_keeps_it(project, verbs):
    expect = "crash: {after: build/make}\nexpect: {result: success, kept: [build/make]}"
    assert run(project, verbs, expect) == []


@pytest.mark.parametrize(("applied", "tries"), [("true", 1), ("false", 2)])
def test_a_crash_during_a_verb_asks_it_what_became_of_it(project, verbs, applied, tries):
    steps = f"{MAKE}, {FILES}, go/last: {{applied: {applied}}}"
    expect = f"""
crash: {{during: go/last}}
expect: {{result: success, steps: {{go/last: {{tries: {tries}}}, build/make: {{tries: 1}}}}}}
"""
    assert run(project, verbs, expect, steps=steps) == []


def test_a_crash_during_a_script_runs_it_again(project, verbs):
    expect = (
        "crash: {during: build/make}\nexpect: {result: success, steps: {build/make: {tries: 2}}}"
    )
    assert run(project, verbs, expect) == []


def test_a_crash_that_never_comes_is_a_mismatch(project, verbs):
    steps = "build/make: {fails: no, cause: network}"
    expect = "crash: {after: go/last}\nexpect: {result: failed}"
    [(what, expected, _)] = run(project, verbs, expect, steps=steps)
    assert (what, expected) == ("crash", "a crash after 'go/last'")


def test_a_failed_run_is_resumed_once(project, verbs):
    steps = f"{MAKE}, {FILES}, build/check: [{{exit: 1}}, {{exit: 0}}]"
    expect = "resume: true\nexpect: {result: success, kept: [build/make]}"
    assert run(project, verbs, expect, steps=steps) == []


def test_a_secret_without_a_value_is_not_there(project, verbs):
    expect = "expect: {result: failed, steps: {go/last: {error: TOKEN}}}"
    assert run(project, verbs, expect, secrets=False) == []


def test_sources_and_git_are_those_of_the_scenario(project, verbs):
    expect = """
git: {branch: skip}
files: {out.txt: here already}
expect: {result: success, steps: {"test[1]/unit": {result: skipped}}}
"""
    assert run(project, verbs, expect, steps=MAKE) == []


def test_files_that_cannot_be_are_told(project, verbs):
    expect = "files: {a: x, a/b: y}\nexpect: {result: success}"
    [(what, _, found)] = run(project, verbs, expect)
    assert what == "the run"
    assert "/a" in found


def test_two_scenarios_do_not_know_of_each_other(project, verbs):
    """One that dies leaves nothing to the next: neither files, nor calls, nor a daemon that is dead."""
    text = f"""
pipeline: p
scenarios:
  - {{name: dies, {STEPS}, crash: {{after: build/make}}, expect: {{result: success}}}}
  - {{name: lives, {STEPS}, expect: {{result: success, kept: [], steps: {{build/make: {{tries: 1}}}}}}}}
"""
    loaded = load_scenarios(written(project, text), text.encode(), verbs)
    with playground() as folder:
        for scenario in loaded.found.scenarios * 2:
            assert play(loaded.found, scenario, verbs, folder).mismatches == []


# the clock


def test_the_clock_jumps_over_what_nothing_happens_in():
    clock = ScenarioClock()

    async def work():
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(clock.keep_jumping)
                await trio.sleep(5)
                # A worker thread takes real time, in which the limit must not run out.
                await trio.to_thread.run_sync(time.sleep, 0.05)
                nursery.cancel_scope.cancel()
        return trio.current_time()

    assert trio.run(work, clock=clock) == pytest.approx(5)


def test_what_waits_for_nothing_is_told():
    clock = ScenarioClock()

    async def work():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.keep_jumping)
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as raised:
        trio.run(work, clock=clock)
    assert raised.group_contains(Stuck)


# faults of the file


BAD = """\
pipeline: p
scenaros: 1
scenarios:
  - name: x
    inputs: {w: 1}
    steps:
      build/mak: {exit: 1}
      build/make: {undo: true, takes: 5, exit: 300}
      go/first: {outputs: {nope: 1}, exit: 1, cause: oom}
      build/check: {cause: network, files: {../x: y}}
    crash: {after: a/b}
    expect: {result: good, order: [test/unit], jobs: {no: success}}
  - {name: x, expect: {}}
"""


def test_every_fault_of_a_file_is_told_with_its_place(project, verbs):
    loaded = load_scenarios(written(project, BAD), BAD.encode(), verbs)
    assert loaded.found is None
    found = [f"{d.id} {d.place.rpartition('p.yaml:')[2]}" for d in loaded.diagnostics]
    assert found == [
        "LS1001 2:1",
        "LS1013 5:5",
        "LS1601 7:7",
        "LS1601 8:20",
        "LS1010 8:39",
        "LS1013 8:48",
        "LS1601 9:28",
        "LS1601 9:38",
        "LS1601 9:54",
        "LS1601 10:28",
        "LS1013 10:45",
        "LS1601 11:20",
        "LS1013 12:22",
        "LS1601 12:36",
        "LS1601 12:55",
        "LS1014 13:12",
        "LS1008 13:23",
    ]


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("", "LS1008"),
        ("[]", "LS1010"),
        ("pipeline: p", "LS1008"),
        ("pipeline: q\nscenarios: []", "LS1017"),
        ("pipeline: p\nscenarios: []", "LS1013"),
        ("pipeline: p\nscenarios: {", "LS1006"),
        ("pipeline: p\nscenarios: [3]", "LS1010"),
        ("pipeline: ../broken.yaml\nscenarios: []", "LS1010"),
    ],
)
def test_a_file_that_is_not_one_is_refused(project, verbs, text, id_):
    (project / ".linkspan" / "broken.yaml").write_text("linkspan: v1\njobs: 3\n")
    loaded = load_scenarios(written(project, text), text.encode(), verbs)
    assert loaded.found is None
    assert id_ in [each.id for each in loaded.diagnostics]


# the command

TWO = """
pipeline: p
scenarios:
  - {name: "stops <early>", steps: {build/check: {exit: 4}}, expect: {result: success}}
  - {name: is told, steps: {build/check: {exit: 4}}, expect: {result: failed}}
"""


@pytest.fixture
def linkspan(project, verbs, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr(command, "installed", lambda: verbs)

    def run(*words):
        status = main.run(["workflow", "test", *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_command_says_what_was_expected_and_what_happened(project, linkspan):
    written(project, TWO)
    status, out, err = linkspan()
    assert status == 1
    assert ".linkspan/tests/p.yaml:4:79: result" in out
    assert "expected: success" in out
    assert "happened: failed" in out
    assert "because: build/check failed: the script ended with exit code 4" in out
    assert "1 passed, 1 failed" in err


def test_a_name_chooses_scenarios(project, linkspan):
    written(project, TWO)
    status, out, _ = linkspan("--name", "is told")
    assert status == 0
    assert "early" not in out
    assert linkspan("--name", "nothing like it")[0] == 2


def test_programs_get_a_document_and_a_report(project, linkspan):
    written(project, TWO)
    status, out, _ = linkspan("--format", "json", "--junit", "report.xml")
    assert status == 1
    first, second = json.loads(out)
    assert (first["passed"], second["passed"]) == (False, True)
    assert first["mismatches"][0]["place"] == ".linkspan/tests/p.yaml:4:79"
    suite = ElementTree.parse(project / "report.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert suite[0].get("name") == "stops <early>"


def test_faults_of_a_file_end_with_status_2_and_nothing_is_run(project, linkspan):
    written(project, BAD)
    status, out, _ = linkspan()
    assert status == 2
    assert "p.yaml:7:7" in out
    assert linkspan("nothing.yaml")[0] == 2


def test_without_scenarios_the_command_says_where_they_live(project, linkspan):
    status, _, err = linkspan()
    assert status == 2
    assert ".linkspan/tests/*.yaml" in err
