"""``use`` and ``--use``: who plays a role in a run, from the check to the undo."""

import attrs
import pytest

from linkspan.sdk.errors import InvalidArgument, PermissionDenied
from linkspan.sdk.manifest import DriverManifest, PluginManifest
from linkspan.sdk.testing.fakes.secrets import FakeSecrets
from linkspan.workflows.check import check
from linkspan.workflows.creating import InvalidPipeline, NewRun, Rerun
from linkspan.workflows.planning.asking import StalePlan
from linkspan.workflows.scenarios.loading import load_scenarios
from linkspan.workflows.scenarios.playing import play, playground
from linkspan.workflows.schema import schema_of
from linkspan.workflows.verbs import Verbs

HEAD = "linkspan: v1\ndefaults: {image: img}\n"
STEP = "jobs: {a: {steps: [{run: x}]}}\n"


def driver(role, name, contract=1, features=()):
    return DriverManifest(role=role, name=name, contract=contract, features=features)


INSTALLED = Verbs(
    [
        PluginManifest(
            name="many",
            version="1.2",
            drivers=(
                driver("volume", "local"),
                driver("volume", "nfs"),
                driver("volume", "old", contract=0),
                driver("network", "bridge"),
                driver("orchestrator", "swarm", features=("rolling",)),
                driver("orchestrator", "plain"),
            ),
        )
    ]
)


def faults(text, **use):
    found = check(HEAD + text, "f.yaml", INSTALLED, use=use)
    return [(d.id, d.place, d.helps[:1]) for d in found.errors]


# checked


def test_roles_and_drivers_that_nobody_plays_are_named_with_the_nearest():
    assert faults("use: {volumes: nfs}\n" + STEP) == [
        ("LS1407", "f.yaml:3:7", ("did you mean 'volume'?",))
    ]
    assert faults("use: {volume: nsf}\n" + STEP) == [
        ("LS1407", "f.yaml:3:15", ("did you mean 'nfs'?",))
    ]
    assert faults("use: {volume: nfs, orchestrator: swarm}\n" + STEP) == []


def test_what_the_command_line_chooses_goes_before_the_files_choice():
    text = "use: {volume: old}\n" + STEP
    assert [id_ for id_, *_ in faults(text)] == ["LS1405"]
    assert faults(text, volume="local") == []
    chosen = check(HEAD + text, "f.yaml", INSTALLED, use={"volume": "nfs", "network": "bridge"})
    assert {role: choice.driver for role, choice in chosen.workflow.use.items()} == {
        "volume": "nfs",
        "network": "bridge",
    }


def test_a_feature_is_asked_of_the_driver_that_is_chosen_wherever_that_was():
    text = "requires: [{role: orchestrator, features: [rolling]}]\n" + STEP
    assert faults(text) == []
    assert [id_ for id_, *_ in faults(text, orchestrator="plain")] == ["LS1404"]
    assert faults("use: {orchestrator: plain}\n" + text, orchestrator="swarm") == []


def test_a_called_pipeline_inherits_what_it_does_not_choose_itself():
    files = {
        "other.yaml": (
            b"linkspan: v1\nuse: {network: bridge}\n"
            b"requires: [{role: orchestrator, features: [rolling]}]\njobs: {b: {image: i, steps: [{run: x}]}}\n"
        )
    }
    text = HEAD + "use: {orchestrator: plain}\njobs: {a: {uses: ./other.yaml}}\n"
    found = check(text, "f.yaml", INSTALLED, fetch=files.__getitem__)
    # The place is in the file that asks; where it was chosen is in another.
    assert [(d.id, d.file, d.secondary) for d in found.errors] == [("LS1404", "other.yaml", ())]


def test_a_secret_needs_no_driver_of_its_own_where_one_is_chosen():
    text = "secrets: {S: {}}\n" + STEP
    assert [id_ for id_, *_ in faults(text)] == ["LS1008"]
    found = check(HEAD + text, "f.yaml", INSTALLED, use={"secrets": "vault"})
    assert (found.errors, found.workflow.secrets["S"].provider) == ((), "vault")


def test_an_editor_is_offered_the_roles_and_drivers_that_are_here():
    use = schema_of(INSTALLED)["properties"]["use"]
    assert use["properties"]["volume"] == {"enum": ["local", "nfs", "old"]}
    assert use["additionalProperties"] is False
    assert "properties" not in schema_of(Verbs([]))["properties"]["use"]


# run

PIPELINE = """
use: {volume: nfs, network: wide}
jobs:
  a:
    services: {db: {image: img, volumes: ["data:/db"]}}
    volumes: ["cache:/c", "./here:/h"]
    steps:
      - {run: mkdir -p here}
      - {id: put, uses: set, with: {name: x, value: "1"}}
  b:
    needs: [a]
    uses: ./other.yaml
"""
OTHER = """
linkspan: v1
use: {volume: local}
jobs: {c: {steps: [{id: deep, uses: set, with: {name: y, value: "1"}}]}}
"""


@attrs.define
class Seen:
    uses: list = attrs.field(factory=list)

    def __call__(self, intent):
        self.uses.append((intent.step, dict(intent.use)))


@pytest.fixture
def chosen(bench):
    for role, name in (("volume", "nfs"), ("volume", "local"), ("network", "wide")):
        bench.host.drivers[role, name] = object()
    bench.others["other.yaml"] = OTHER
    bench.world.changed = Seen()
    return bench


def new_run(bench, text=PIPELINE, **more):
    given = {
        "file": "p.yaml",
        "text": HEAD + text,
        "others": bench.others,
        "workspace": bench.sources,
    }
    return NewRun(**given | more)


async def started(bench, **more):
    run = (await bench.manager.create(new_run(bench, **more)))["id"]
    assert await bench.manager.wait(run) == "success"
    return run


async def test_networks_volumes_and_verbs_of_a_run_are_those_of_the_chosen_drivers(chosen):
    await started(chosen)
    assert [spec.driver for spec in chosen.engine.networks.specs] == ["wide"]
    mounts = {
        m.target: m.volume_driver for spec in chosen.engine.containers.made for m in spec.mounts
    }
    assert (mounts["/db"], mounts["/c"], mounts["/h"]) == ("nfs", "nfs", "")
    assert chosen.world.changed.uses == [
        ("put", {"volume": "nfs", "network": "wide"}),
        ("deep", {"volume": "local", "network": "wide"}),
    ]


async def test_the_command_line_chooses_for_called_pipelines_too_and_a_rerun_remembers(chosen):
    chosen.host.drivers["volume", "tape"] = object()
    run = await started(chosen, use={"volume": "tape"})
    assert [use["volume"] for _, use in chosen.world.changed.uses] == ["tape", "tape"]
    again = (await chosen.manager.rerun(run, Rerun()))["id"]
    assert await chosen.manager.wait(again) == "success"
    other = (await chosen.manager.rerun(run, Rerun(use={"volume": "nfs"})))["id"]
    assert await chosen.manager.wait(other) == "success"
    assert [use["volume"] for _, use in chosen.world.changed.uses[2:]] == ["tape"] * 2 + ["nfs"] * 2


async def test_a_resumed_run_and_its_undo_go_on_with_the_recorded_choice(chosen):
    chosen.host.drivers["volume", "tape"] = object()
    chosen.world.failures["deep"] = [OSError("once")]
    run = (await chosen.manager.create(new_run(chosen, use={"volume": "tape"})))["id"]
    assert await chosen.manager.wait(run) == "failed"
    await chosen.manager.resume(run)
    assert await chosen.manager.wait(run) == "success"
    assert [use["volume"] for _, use in chosen.world.changed.uses] == ["tape"] * 3
    del chosen.host.drivers["volume", "tape"]
    with pytest.raises(InvalidPipeline, match="LS1410"):
        await chosen.manager.undo(run)
    assert chosen.world.values == {"x": "1", "y": "1"}
    chosen.host.drivers["volume", "tape"] = object()
    await chosen.manager.undo(run)
    assert chosen.world.values == {}


async def test_a_driver_that_the_daemon_does_not_have_is_a_fault_before_anything_runs(chosen):
    chosen.host.drivers["volume", ""] = chosen.host.drivers["volume", "local"]
    del chosen.host.drivers["volume", "nfs"]
    with pytest.raises(InvalidPipeline) as caught:
        await chosen.manager.create(new_run(chosen))
    shown = caught.value.message.splitlines()
    assert shown[0] == "error[LS1410]: this daemon does not play volume as 'nfs'"
    assert shown[1].strip() == "--> p.yaml:4:15"
    assert "= help: or with what it has:  --use volume=local" in caught.value.message
    assert chosen.manager.list_runs() == []
    assert chosen.engine.networks.made == []


async def test_an_untrusted_pipeline_chooses_nothing(chosen):
    text = "jobs: {a: {steps: [{run: x}]}}\n"
    for new in (
        new_run(chosen, text="use: {volume: nfs}\n" + text, untrusted=True),
        new_run(chosen, text=text, untrusted=True, use={"volume": "nfs"}),
    ):
        with pytest.raises(PermissionDenied, match=r"choose drivers \(volume\)"):
            await chosen.manager.create(new)


async def test_a_secret_comes_from_the_driver_that_plays_secrets(chosen):
    chosen.host.drivers["secrets", "vault"] = FakeSecrets({"TOKEN": "from-the-vault"})
    text = """
secrets: {TOKEN: {}}
jobs: {a: {steps: [{uses: set, with: {name: x, value: "1"}, secrets: [TOKEN]}]}}
"""
    await started(chosen, text=text, use={"secrets": "vault"})
    assert chosen.world.secrets == {"TOKEN": "from-the-vault"}


# plan


async def test_a_plan_says_who_plays_and_a_run_of_it_is_refused_when_that_is_another(chosen):
    new = new_run(chosen, use={"volume": "nfs"})
    planned = await chosen.manager.plan(new)
    assert planned["problems"] == []
    assert planned["use"] == {"volume": "nfs"}
    assert planned["drivers"] == {"volume": "nfs", "network": "wide"}
    moved = planned | {"drivers": {"volume": "nfs (many 1.1)", "network": "wide"}}
    with pytest.raises(StalePlan, match="driver of volume: nfs"):
        await chosen.manager.create(attrs.evolve(new, plan=moved))
    assert (await chosen.manager.create(attrs.evolve(new, plan=planned)))["state"] == "running"
    del chosen.host.drivers["volume", "nfs"]
    (problem,) = (await chosen.manager.plan(new))["problems"]
    assert problem["id"] == "LS1410"


async def test_a_wish_that_nobody_can_meet_is_an_error_of_whoever_wishes(chosen):
    chosen.manager._runs.verbs = INSTALLED
    for use, hint in (
        ({"volumes": "nfs"}, "did you mean 'volume'?"),
        ({"volume": "nsf"}, "did you mean 'nfs'?"),
        ({"volume": "old"}, "pip install -U many"),
    ):
        for ask in (chosen.manager.create, chosen.manager.plan):
            with pytest.raises(InvalidArgument) as caught:
                await ask(new_run(chosen, use=use))
            assert (caught.value.code, caught.value.help) == ("invalid_use", hint)


async def test_the_commands_take_it(shell):
    shell.bench.host.drivers["volume", "local"] = object()
    shell.write("use: {volume: nothing}\njobs: {a: {volumes: ['v:/v'], steps: [{run: 'true'}]}}\n")
    done = await shell("lint", "p.yaml", "--use", "volume=local")
    assert (done.returncode, done.stderr.splitlines()[-1][:9]) == (0, "no errors")
    done = await shell("run", "p.yaml", "--use", "volume=local", "--progress", "plain")
    assert (done.returncode, done.stderr) == (0, done.stderr)
    assert [m.volume_driver for m in shell.bench.engine.containers.made[0].mounts][2:] == ["local"]
    done = await shell("plan", "p.yaml", "--use", "volume=local")
    assert "volume by local" in done.stdout
    done = await shell("run", "p.yaml", "--use", "volume=locl")
    assert done.returncode == 2
    assert "did you mean 'local'?" in done.stderr
    done = await shell("run", "p.yaml", "--use", "volume")
    assert done.returncode == 2


def test_a_scenario_plays_a_pipeline_that_chooses(tmp_path):
    text = HEAD + "use: {volume: nfs}\njobs: {a: {volumes: ['v:/v'], steps: [{run: x}]}}\n"
    (tmp_path / ".linkspan" / "tests").mkdir(parents=True)
    (tmp_path / ".linkspan" / "p.yaml").write_text(text)
    path = tmp_path / ".linkspan" / "tests" / "p.yaml"
    path.write_text("pipeline: p\nscenarios: [{name: it runs, expect: {result: success}}]\n")
    loaded = load_scenarios(path, path.read_bytes(), INSTALLED)
    assert loaded.found is not None, loaded.diagnostics
    with playground() as folder:
        played = play(loaded.found, loaded.found.scenarios[0], INSTALLED, folder)
    assert played.mismatches == []
