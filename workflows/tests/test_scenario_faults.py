"""Scenarios in which somebody stops the run or a registry fails; and the schema of scenario files."""

import json
import os
import signal

import jsonschema
import pytest
import yaml

from linkspan.core.cli import main
from linkspan.sdk.errors import LinkspanError
from linkspan.workflows.reader import Keys
from linkspan.workflows.scenarios import at_once, expecting, loading
from linkspan.workflows.scenarios.at_once import play_all
from linkspan.workflows.scenarios.loading import load_scenarios
from linkspan.workflows.scenarios.playing import play, playground
from linkspan.workflows.scenarios.schema import scenario_schema

PIPELINE = """
linkspan: v1
defaults: {image: "alpine:3"}
jobs:
  build:
    services: {db: {image: "registry.example.test/db:1"}}
    steps:
      - {id: make, run: make, retry: {max: 2, backoff: 1h, on: [network]}}
      - {id: keep, uses: set, with: {name: a}}
  ask: {needs: [build], steps: [{id: go, uses: ask, with: {message: go}}]}
  roll: {needs: [ask], steps: [{id: out, uses: set, with: {name: b}}]}
finally:
  tell: {steps: [{id: say, run: say}]}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    tests = tmp_path / ".linkspan" / "tests"
    tests.mkdir(parents=True)
    (tmp_path / ".linkspan" / "p.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    return tests


def loaded(project, verbs, scenario):
    body = "".join(f"    {line}\n" for line in scenario.strip().splitlines())
    text = f"pipeline: p\nscenarios:\n  - name: one\n{body}"
    assert list(jsonschema.Draft202012Validator(scenario_schema()).iter_errors(as_json(text))) == []
    path = project / "p.yaml"
    path.write_text(text)
    return load_scenarios(path, text.encode(), verbs)


def as_json(text):
    return json.loads(json.dumps(yaml.safe_load(text)))


def run(project, verbs, scenario):
    """The mismatches of one scenario, as ``(what, expected, found)``."""
    found = loaded(project, verbs, scenario)
    assert found.found is not None, [d.headline for d in found.diagnostics]
    with playground() as folder:
        played = play(found.found, found.found.scenarios[0], verbs, folder)
    print(*(line for each in played.mismatches for line in each.why), sep="\n")
    return [(each.what, each.expected, each.found) for each in played.mismatches]


@pytest.mark.parametrize(
    ("kill", "told"), [("", "tell/say"), (", kill: true", "")], ids=["in order", "at once"]
)
@pytest.mark.parametrize("place", ["build/make", "build/keep"], ids=["script", "verb"])
def test_a_run_that_is_stopped_in_the_middle_cleans_up(project, verbs, place, kill, told):
    scenario = f"""
cancel: {{during: {place}{kill}}}
expect:
  result: cancelled
  order: [{told}]
  jobs: {{build: cancelled, ask: cancelled}}
  steps: {{{place}: {{result: cancelled, tries: 1}}, roll/out: {{tries: 0}}}}
"""
    assert run(project, verbs, scenario) == []


def test_a_run_that_is_stopped_can_be_resumed_and_is_not_stopped_again(project, verbs):
    scenario = """
cancel: {during: build/keep}
resume: true
steps: {ask/go: {decision: approve}}
expect: {result: success, kept: [build/make], steps: {build/keep: {tries: 2}}}
"""
    assert run(project, verbs, scenario) == []


def test_a_run_is_stopped_while_a_person_is_asked(project, verbs):
    scenario = """
steps: {ask/go: {decision: approve}}
cancel: {during: ask/go}
expect: {result: cancelled, order: [build/make, build/keep, ask/go, tell/say]}
"""
    assert run(project, verbs, scenario) == []


def test_a_pull_that_fails_for_the_network_is_tried_again_by_the_step(project, verbs):
    scenario = """
images: {"alpine:3": [{fails: no route to host, cause: network, takes: 10s}, {fails: reset, cause: network}, {}]}
steps: {ask/go: {decision: approve}}
expect: {result: success, steps: {build/make: {tries: 3}}}
"""
    assert run(project, verbs, scenario) == []


def test_an_image_of_a_service_that_is_not_there_fails_its_job(project, verbs):
    scenario = """
images: {"registry.example.test/db:1": {fails: manifest unknown}}
expect: {result: failed, jobs: {build: failed, ask: skipped}, order: [tell/say]}
"""
    assert run(project, verbs, scenario) == []


def test_what_is_arranged_and_never_comes_is_a_mismatch(project, verbs):
    scenario = """
images: {alpine: {fails: x}}
cancel: {during: roll/out}
steps: {build/make: {exit: 1}}
expect: {result: failed}
"""
    assert run(project, verbs, scenario) == [
        ("cancel", "a cancel during 'roll/out'", "the run did not come so far"),
        ("images", "a pull of 'alpine'", "pulled: alpine:3, registry.example.test/db:1"),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cancel: {kill: true}", "needs the key 'during'"),
        ("cancel: {during: build/mak}", "no step 'build/mak'"),
        ("cancel: {after: build/make}", "unknown key 'after'"),
        ("images: {alpine: {cause: network}}", "needs `fails: MESSAGE`"),
        ("images: {alpine: {fails: x, cause: oom}}", "'cause' must be"),
        ("images: {UPPER: {}}", "UPPER"),
    ],
)
def test_what_cannot_be_arranged_is_a_fault_with_its_place(project, verbs, line, words):
    text = f"pipeline: p\nscenarios:\n  - name: one\n    {line}\n    expect: {{result: success}}\n"
    found = load_scenarios(project / "p.yaml", text.encode(), verbs)
    assert found.found is None
    assert any(words in each.headline for each in found.diagnostics)
    assert {each.primary.span.line for each in found.diagnostics} == {4}


def test_the_schema_names_exactly_the_keys_of_scenario_files():
    schema = scenario_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    found: list[set[str]] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if "^x-" in value.get("patternProperties", {}):
                found.append(set(value["properties"]))
            for item in value.values():
                walk(item)

    walk(schema)
    tables = [
        set(value.known)
        for module in (loading, expecting)
        for value in vars(module).values()
        if isinstance(value, Keys)
    ]
    assert sorted(map(sorted, found)) == sorted(map(sorted, tables))


@pytest.mark.parametrize(
    "text",
    [
        "scenarios: [{name: a, expect: {result: success}}]",
        "{pipeline: p, scenarios: []}",
        "{pipeline: p, scenarios: [{name: a}]}",
        "{pipeline: p, scenarios: [{name: a, expect: {}}]}",
        "{pipeline: p, scenarios: [{name: a, expect: {result: good}}]}",
        "{pipeline: p, scenarios: [{name: a, expect: {order: [make]}}]}",
        "{pipeline: p, scenarios: [{name: a, expect: {result: failed}, crash: {}}]}",
        "{pipeline: p, scenarios: [{name: a, expect: {result: failed}, steps: {a/b: {exits: 1}}}]}",
        "{pipeline: p, scenarios: [{name: a, expect: {result: failed}, steps: {a/b: {exit: 256}}}]}",
    ],
)
def test_the_schema_refuses_what_is_wrong(text):
    assert list(jsonschema.Draft202012Validator(scenario_schema()).iter_errors(as_json(text)))


def test_the_command_prints_the_schema(capsys):
    assert main.run(["workflow", "schema", "--scenarios"]) == 0
    assert json.loads(capsys.readouterr().out) == scenario_schema()


# on all processors


@pytest.fixture
def many(project, verbs, monkeypatch):
    """Fifteen scenarios, of which every third fails, for three processes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    body = "".join(
        f"  - {{name: s{n}, cancel: {{during: build/make}}, expect: {{result: {result}}}}}\n"
        for n in range(15)
        for result in ["cancelled" if n % 3 else "success"]
    )
    text = f"pipeline: p\nscenarios:\n{body}"
    found = load_scenarios(project / "p.yaml", text.encode(), verbs).found
    assert found is not None
    return [(found, scenario) for scenario in found.scenarios]


def test_many_scenarios_are_told_in_their_order_whichever_process_plays_them(many, verbs):
    with playground() as folder:
        played = list(play_all(many, verbs, folder))
        assert list(folder.iterdir()) == []
    assert [each.scenario.name for each in played] == [f"s{n}" for n in range(15)]
    assert [bool(each.mismatches) for each in played] == [n % 3 == 0 for n in range(15)]
    assert played[0].mismatches[0].found == "cancelled"


def test_a_process_that_is_killed_while_it_plays_is_told(many, verbs, monkeypatch):
    monkeypatch.setattr(at_once, "play", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with playground() as folder, pytest.raises(LinkspanError, match="was killed"):
        list(play_all(many, verbs, folder))


def test_a_fault_of_our_own_is_told_with_its_place(many, verbs, monkeypatch):
    monkeypatch.setattr(at_once, "play", lambda *_: 1 // 0)
    with playground() as folder, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(play_all(many, verbs, folder))


def test_whoever_stops_reading_leaves_no_process(many, verbs, monkeypatch):
    made: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: made.append(fork()) or made[-1])
    with playground() as folder:
        played = play_all(many, verbs, folder)
        next(played)
        played.close()
    assert len(made) == 3
    for process in made:
        with pytest.raises(ChildProcessError):
            os.waitpid(process, os.WNOHANG)
