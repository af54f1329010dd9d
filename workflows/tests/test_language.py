"""The language's parts as the runner gets them: matrices, triggers, services, calls, includes, versions."""

import hashlib

import pytest
from hypothesis import given, strategies as st
from installed_plugins import VERBS

from linkspan.workflows.check import check
from linkspan.workflows.cron import CronInvalid, parse_cron
from linkspan.workflows.files import DiskFiles, SentFiles
from linkspan.workflows.matrix import MAX_CELLS
from linkspan.workflows.model import LoadArtifact, OnFailure, Retry
from linkspan.workflows.versions import Range, RangeInvalid

HEAD = "linkspan: v1\ndefaults: {image: busybox}\n"
SHORT = "jobs: {a: {steps: [{run: x}]}}"


def whole(text, files=None):
    fetch = SentFiles(files or {})
    found = check(HEAD + text, "dir/f.yaml", VERBS, fetch=fetch)
    assert [d.headline for d in found.diagnostics] == []
    return found.workflow


def faults(text, files=None):
    found = check(HEAD + text, "dir/f.yaml", VERBS, fetch=SentFiles(files or {}))
    return [(d.id, d.place) for d in found.diagnostics]


def job(text):
    return whole(f"jobs: {{a: {text}}}").jobs["a"]


# matrices


def cells(matrix):
    found = job(f"{{strategy: {{matrix: {matrix}}}, steps: [{{run: x}}]}}")
    return [(cell.key, dict(cell.values)) for cell in found.strategy.matrix.cells]


def test_values_of_an_axis_are_texts_unless_it_says_otherwise():
    assert cells("{v: [3.10, yes, '3']}") == [
        ("3.10", {"v": "3.10"}),
        ("yes", {"v": "yes"}),
        ("3", {"v": "3"}),
    ]
    assert cells("{n: {type: int, values: [1, 3]}, b: {type: bool, values: [true]}}") == [
        ("1-true", {"n": 1, "b": True}),
        ("3-true", {"n": 3, "b": True}),
    ]


def test_exclude_takes_away_and_include_adds():
    found = cells(
        "{v: [1, 2], db: [pg, lite], exclude: [{v: 1, db: lite}],"
        " include: [{v: 2, slow: true}, {v: 3, db: pg, extra: 7}]}"
    )
    assert found == [
        ("1-pg", {"v": "1", "db": "pg", "slow": None, "extra": None}),
        ("2-pg", {"v": "2", "db": "pg", "slow": True, "extra": None}),
        ("2-lite", {"v": "2", "db": "lite", "slow": True, "extra": None}),
        ("3-pg", {"v": "3", "db": "pg", "slow": None, "extra": 7}),
    ]


def test_a_matrix_of_includes_alone_and_keys_that_are_file_names():
    assert [key for key, _ in cells("{include: [{a: x/y}, {a: 'x y'}, {a: ..}]}")] == [
        "x_y",
        "x_y-2",
        "cell",
    ]


@pytest.mark.parametrize(
    ("matrix", "id_"),
    [
        ("{v: []}", "LS1013"),
        ("{v: [1, 1]}", "LS1014"),
        ("{}", "LS1013"),
        ("{v: [1], exclude: [{v: 1}]}", "LS1013"),
        ("{v: [1], exclude: [{w: 1}]}", "LS1201"),
        ("{v: {type: int, values: [x]}}", "LS1010"),
        ("{v: x}", "LS1010"),
        (f"{{v: {list(range(MAX_CELLS + 1))}}}", "LS1013"),
        ("text", "LS1010"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(matrix, id_):
    text = f"jobs: {{a: {{strategy: {{matrix: {matrix}}}, steps: [{{run: x}}]}}}}"
    assert id_ in [found for found, _ in faults(text)]


def test_the_outputs_of_cells_are_read_cell_by_cell():
    text = """
jobs:
  a:
    strategy: {matrix: {v: [1, 2]}}
    outputs: {o: "${{ steps.s.outputs.o }}"}
    steps: [{id: s, run: x, if: "matrix.v == '1'"}]
  b: {needs: a, if: "needs.a.cells[0].outputs.o == 'x' && needs.a.result == 'success'", steps: [{run: x}]}
"""
    assert whole(text)
    assert faults(text.replace("needs.a.cells[0].outputs.o", "needs.a.outputs.o"))[0][0] == "LS1201"
    assert faults(text.replace("matrix.v", "matrix.w"))[0][0] == "LS1201"
    assert faults("jobs: {a: {steps: [{run: x, if: \"matrix.v == '1'\"}]}}")[0][0] == "LS1201"


# triggers


def test_every_trigger_is_typed():
    found = whole(
        """
on:
  push: {branches: [main, '!x'], paths: src/**}
  tag:
  schedule: [{cron: "0 3 * * 1-5", timezone: Europe/Berlin}, {cron: "@daily"}]
  watch: {paths: [src/**], debounce: 1s}
  webhook: {provider: github, secret: HOOK, events: [push]}
  manual: false
secrets: {HOOK: {from: file}}
"""
        + SHORT
    ).triggers
    assert found.push.branches == ("main", "!x")
    assert found.push.paths == ("src/**",)
    assert found.tag.tags == ()
    assert [each.timezone for each in found.schedules] == ["Europe/Berlin", "UTC"]
    assert found.schedules[0].fields.weekdays == frozenset({1, 2, 3, 4, 5})
    assert found.watch.debounce_s == 1
    assert (found.webhooks[0].secret, found.webhooks[0].events) == ("HOOK", ("push",))
    assert found.manual is False
    assert whole(SHORT).triggers.manual is True
    assert whole("on: [push, manual]\n" + SHORT).triggers.manual is True
    assert whole("on: push\n" + SHORT).triggers.manual is True


@pytest.mark.parametrize(
    ("on", "id_"),
    [
        ("{schedule: [{cron: '61 * * * *'}]}", "LS1013"),
        ("{schedule: [{cron: '0 0 30 2 *'}]}", "LS1013"),
        ("{schedule: [{cron: '* * * *'}]}", "LS1013"),
        ("{schedule: [{cron: '0 0 * * *', timezone: Mars/Olympus}]}", "LS1013"),
        ("{schedule: {}}", "LS1008"),
        ("schedule", "LS1008"),
        ("webhook", "LS1008"),
        ("{webhook: {provider: github}}", "LS1008"),
        ("{webhook: {secret: NONE}}", "LS1302"),
        ("{push: {branches-ignore: [x]}}", "LS1009"),
        ("[pull_request]", "LS1012"),
        ("{manual: maybe}", "LS1011"),
    ],
)
def test_a_trigger_that_cannot_be_is_refused(on, id_):
    assert [found for found, _ in faults(f"on: {on}\n{SHORT}")] == [id_]


@pytest.mark.parametrize(
    ("text", "minutes", "weekdays"),
    [
        ("*/20 * * * *", {0, 20, 40}, set(range(7))),
        ("5-9/2,30 * * * sun", {5, 7, 9, 30}, {0}),
        ("10/25 * * * 5-7", {10, 35}, {5, 6, 0}),
        ("@weekly", {0}, {0}),
    ],
)
def test_cron_is_read_as_everywhere(text, minutes, weekdays):
    cron = parse_cron(text)
    assert (cron.minutes, cron.weekdays) == (frozenset(minutes), frozenset(weekdays))


def test_a_day_matches_by_either_field_if_both_are_restricted():
    cron = parse_cron("0 0 13 * fri")
    assert cron.on_day(1, 13, 1)
    assert cron.on_day(1, 2, 5)
    assert not cron.on_day(1, 2, 1)
    assert not parse_cron("0 0 13 * *").on_day(1, 12, 5)


@given(st.text("0123456789*,-/ @abcdefgjlmnoprtuvyw", max_size=24))
def test_no_text_makes_cron_raise_anything_else(text):
    try:
        cron = parse_cron(text)
    except CronInvalid:
        return
    assert cron.minutes <= set(range(60))
    assert cron.months <= set(range(1, 13))


# jobs and steps


def test_everything_of_a_job_and_its_steps_is_typed():
    found = whole(
        """
secrets: {T: {from: file, key: other, generate: {length: 40}}, U: {from: env, required: false}}
use: {orchestrator: swarm}
requires: [{role: orchestrator, features: [canary]}, {plugin: swarm, version: ">=1,<2"}]
concurrency: {group: "x-${{ run.name }}", on-conflict: reject}
jobs:
  first: {artifacts: {j: out/*.xml}, steps: [{run: x}]}
  a:
    needs: first
    secrets: [U]
    volumes: ["data:/data:ro", "./x:/y"]
    cache: {path: ~/.c, key: k, restore: [a, b], save: success}
    artifacts: {r: [a, b]}
    load-artifacts: [j, {name: j, from: first, path: in}]
    environment: production
    lock: l
    labels: {team: shop}
    steps:
      - {id: bg, run: serve, background: true}
      - parallel: [{id: p, run: x}, {uses: pull, with: {image: a}}]
      - {id: s, run: x, secrets: [T], sources: [src/**], generates: out, reports: {junit: out/j.xml}}
      - {wait: bg}
      - {cancel: [bg]}
      - {uses: deploy, with: {service: a}, on-failure: pause, undo: {uses: rollback, with: {service: a}}}
      - {uses: scale, with: {service: a}, on-failure: "rollback:p", retry: {max: 3, on: [network, "exit:7"]}}
"""
    )
    assert (found.secrets["T"].key, found.secrets["T"].generate_length) == ("other", 40)
    assert found.secrets["U"].required is False
    assert found.use["orchestrator"].driver == "swarm"
    assert (found.requires[0].features, found.requires[1].version) == (("canary",), ">=1,<2")
    assert found.concurrency.on_conflict == "reject"
    a = found.jobs["a"]
    assert (a.secrets, a.volumes) == (("U",), ("data:/data:ro", "./x:/y"))
    assert (a.caches[0].restore, a.caches[0].save) == (("a", "b"), "success")
    assert a.artifacts["r"].paths == ("a", "b")
    span = a.load_artifacts[0].span
    assert a.load_artifacts == (
        LoadArtifact(name="j", span=span),
        LoadArtifact(name="j", job="first", path="in", span=span),
    )
    assert (a.environment, a.lock, a.labels) == ("production", "l", {"team": "shop"})
    background, parallel, script, wait, cancel, deploy, scale = a.steps
    assert background.background
    assert [step.id for step in parallel.parallel] == ["p", "pull-2-2"]
    assert (script.secrets, script.sources, script.generates) == (("T",), ("src/**",), ("out",))
    assert script.reports == {"junit": "out/j.xml"}
    assert (wait.wait, cancel.cancel) == (("bg",), ("bg",))
    assert deploy.on_failure == OnFailure(action="pause")
    assert (deploy.undo.verb, deploy.undo.settings) == ("rollback", {"service": "a"})
    assert scale.on_failure == OnFailure(action="rollback", target="p")
    assert scale.retry == Retry(max=3, on=("network", "exit:7"))
    assert [step.id for step in a.all_steps()][1:4] == ["parallel-2", "p", "pull-2-2"]


@pytest.mark.parametrize(
    ("steps", "id_"),
    [
        ("[{run: x, uses: push}]", "LS1001"),
        ("[{run: x, parallel: [{run: y}]}]", "LS1001"),
        ("[{parallel: [{run: x}], env: {A: b}}]", "LS1001"),
        ("[{parallel: [{parallel: [{run: x}]}]}]", "LS1001"),
        ("[{parallel: []}]", "LS1008"),
        ("[{wait: nothing}]", "LS1101"),
        ("[{id: a, run: x}, {id: a, run: y}]", "LS1014"),
        ("[{id: a, run: x}, {parallel: [{id: a, run: y}]}]", "LS1014"),
        ("[{run: x, on-failure: explode}]", "LS1013"),
        ("[{run: x, reports: {junit: ../x}}]", "LS1013"),
        ("[{run: x, undo: {with: {}}}]", "LS1008"),
        ("[x]", "LS1010"),
        ("[{uses: push@, with: {image: a}}]", "LS1013"),
        ("[{uses: push@^2, with: {image: a}}]", "LS1406"),
    ],
)
def test_a_step_that_cannot_be_is_refused(steps, id_):
    assert id_ in [found for found, _ in faults(f"jobs: {{a: {{steps: {steps}}}}}")]


def test_a_step_may_ask_for_a_version_that_is_there():
    assert job("{steps: [{uses: push@^1.4, with: {image: a}}]}").steps[0].verb_version == "^1.4"


def test_services_take_what_compose_writes():
    service = job(
        "{steps: [{run: x}], services: {d: {image: x, environment: [A=1, B=], command: run it,"
        " entrypoint: [a], ports: ['127.0.0.1:80:80'], volumes: ['v:/v'], extra_hosts: {h: 1.2.3.4},"
        " mem_limit: 512m, shm_size: 64Mi, ulimits: {nofile: 5, core: {soft: 1, hard: 2}}, labels: [a.b=c],"
        " sysctls: {net.x: 1}, stop_grace_period: 5s, pull_policy: if_not_present, init: true,"
        " healthcheck: {test: curl x, retries: 2, start_interval: 1s}}}}"
    ).services["d"]
    assert service.environment == {"A": "1", "B": ""}
    assert service.command == ("/bin/sh", "-c", "run it")
    assert (service.mem_limit, service.shm_size) == (512 << 20, 64 << 20)
    assert service.ulimits == {"nofile": (5, 5), "core": (1, 2)}
    assert service.labels == {"a.b": "c"}
    assert service.extra_hosts == ("h:1.2.3.4",)
    assert service.pull_policy == "missing"
    assert service.healthcheck.test == ("CMD-SHELL", "curl x")
    none = job("{steps: [{run: x}], services: {d: {image: x, healthcheck: {disable: true}}}}")
    assert none.services["d"].healthcheck.test == ("NONE",)


@pytest.mark.parametrize(
    "keys",
    [
        "ports: [http]",
        "volumes: ['v:relative']",
        "environment: [FROM_OUTSIDE]",
        "depends_on: [none]",
        "healthcheck: {test: [curl]}",
        "mem_limit: 5",
    ],
)
def test_a_service_that_cannot_be_is_refused(keys):
    assert faults(f"jobs: {{a: {{steps: [{{run: x}}], services: {{d: {{image: x, {keys}}}}}}}}}")


def test_artifacts_come_from_jobs_that_are_waited_for():
    text = "jobs: {a: {artifacts: {x: y}, steps: [{run: x}]}, b: {%s, load-artifacts: [%s], steps: [{run: x}]}}"
    assert faults(text % ("needs: a", "x")) == []
    assert [i for i, _ in faults(text % ("env: {}", "x"))] == ["LS1101"]
    assert [i for i, _ in faults(text % ("env: {}", "{name: x, from: a}"))] == ["LS1103"]


# other files

CALLED = """\
linkspan: v1
inputs: {version: {type: int, required: true}, name: {type: string, default: n}}
outputs: {image: "${{ needs.build.outputs.image }}"}
jobs:
  build:
    image: busybox
    outputs: {image: "${{ steps.s.outputs.i }}"}
    steps: [{id: s, run: x}]
"""


def test_a_job_can_be_another_pipeline_and_gives_its_outputs():
    text = """
jobs:
  lib: {uses: ./lib/other.yaml, with: {version: 3}}
  use: {needs: lib, steps: [{run: x, env: {I: "${{ needs.lib.outputs.image }}"}}]}
"""
    files = {"dir/lib/other.yaml": CALLED}
    found = whole(text, files)
    call = found.jobs["lib"].call
    assert (call.file, call.inputs) == ("dir/lib/other.yaml", {"version": 3})
    assert call.workflow.jobs["build"].file == "dir/lib/other.yaml"
    assert found.others == files
    assert faults(text.replace("outputs.image", "outputs.none"), files)[0][0] == "LS1201"


@pytest.mark.parametrize(
    ("with_", "id_"),
    [("{}", "LS1403"), ("{version: x}", "LS1010"), ("{version: 1, other: 2}", "LS1402")],
)
def test_the_inputs_of_a_call_are_checked(with_, id_):
    text = f"jobs: {{a: {{uses: ./o.yaml, with: {with_}}}}}"
    assert faults(text, {"dir/o.yaml": CALLED})[0][0] == id_


def test_faults_of_another_file_are_told_with_its_name():
    wrong = CALLED.replace("steps: [{id: s", "stepz: [{id: s")
    found = faults("jobs: {a: {uses: ./o.yaml, with: {version: 1}}}", {"dir/o.yaml": wrong})
    assert ("LS1001", "dir/o.yaml:8:5") in found


def test_pipelines_that_call_each_other_in_a_circle_are_refused():
    text = "jobs: {a: {uses: ./o.yaml}}"
    other = "linkspan: v1\njobs: {b: {uses: ./p.yaml}}"
    third = "linkspan: v1\njobs: {c: {uses: ./o.yaml}}"
    assert faults(text, {"dir/o.yaml": other, "dir/p.yaml": third}) == [
        ("LS1102", "dir/p.yaml:2:18")
    ]


def test_jobs_of_an_included_file_are_jobs_of_the_pipeline():
    common = "defaults: {image: alpine}\njobs: {lint: {steps: [{run: x}]}}"
    digest = hashlib.sha256(common.encode()).hexdigest()
    include = f"include: [{{file: ./c.yaml, digest: 'sha256:{digest}'}}]\n"
    text = include + "jobs: {a: {needs: lint, steps: [{run: x}]}}"
    found = whole(text, {"dir/c.yaml": common})
    assert list(found.jobs) == ["lint", "a"]
    assert (found.jobs["lint"].image, found.jobs["a"].image) == ("alpine", "busybox")
    assert found.jobs["lint"].file == "dir/c.yaml"
    assert faults(text, {"dir/c.yaml": common + "\n"})[0][0] == "LS1017"
    twice = common.replace("lint", "a")
    assert "LS1014" in [i for i, _ in faults("include: ./c.yaml\n" + SHORT, {"dir/c.yaml": twice})]
    assert faults("include: ./c.yaml\n" + SHORT, {"dir/c.yaml": "env: {A: b}"})[0][0] == "LS1001"
    assert faults("include: ./none.yaml\n" + SHORT)[0] == ("LS1017", "dir/f.yaml:3:10")


def test_files_outside_of_the_workspace_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "secret.yaml").write_text("linkspan: v1\n" + SHORT)
    inside = tmp_path / "work"
    inside.mkdir()
    (inside / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    monkeypatch.chdir(inside)
    for ref in ("../secret.yaml", "./link.yaml", "./none.yaml", "./"):
        text = f"{HEAD}jobs: {{a: {{uses: {ref}}}}}"
        found = check(text, "f.yaml", VERBS, fetch=DiskFiles(inside)).diagnostics
        assert [d.id for d in found] == ["LS1017"], ref


# versions


@pytest.mark.parametrize(
    ("wanted", "holds", "not_"),
    [
        ("^2", ["2.0", "2.9.1"], ["1.9", "3.0", "3.0rc1", "2.0rc1"]),
        ("^0.3", ["0.3.0", "0.3.9"], ["0.4.0", "0.2"]),
        ("~1.4", ["1.4", "1.4.7"], ["1.5", "1.3"]),
        ("1.4", ["1.4.0", "1.4.9"], ["1.5", "1.3"]),
        (">=1.2,<2", ["1.2", "1.9"], ["2", "1.1"]),
        ("=1.2", ["1.2", "1.2.0"], ["1.2.1"]),
        ("*", ["0", "9"], ["x"]),
        ("!=1.0", ["1.1"], ["1.0"]),
    ],
)
def test_ranges_hold_what_they_say(wanted, holds, not_):
    assert [version for version in holds if not Range(wanted).holds(version)] == []
    assert [version for version in not_ if Range(wanted).holds(version)] == []


@given(st.text("0123456789.^~<>=!*, vrc-+", max_size=12), st.text("0123456789.rc", max_size=8))
def test_no_text_makes_a_range_raise_anything_else(wanted, version):
    try:
        found = Range(wanted)
    except RangeInvalid:
        return
    found.holds(version)
