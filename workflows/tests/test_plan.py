"""Plans: what each step would change, all that would make a run fail, and worlds that move."""

import json
import socket

import attrs
import pytest

from linkspan.sdk.drivers.step import MISSING, Step
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.manifest import DriverManifest, PluginManifest, VerbManifest, VerbSetting
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.model.step import StepChange, StepPlan
from linkspan.sdk.testing.fakes.registry import FakeRegistry
from linkspan.sdk.testing.fakes.secrets import FakeSecrets
from linkspan.workflows.calling import CallWorkers, PluginCalls
from linkspan.workflows.check import check
from linkspan.workflows.creating import InvalidPipeline, NewRun
from linkspan.workflows.planning import Planner
from linkspan.workflows.planning.asking import StalePlan
from linkspan.workflows.planning.planner import Circumstances
from linkspan.workflows.planning.world import disk_fault, port_taken, published
from linkspan.workflows.verbs import Verbs

TEXT = VerbSetting(type="string")
STRATEGY = VerbSetting(type="string", feature="orchestrator.{value}")
ROLL = VerbManifest(
    name="roll",
    summary="",
    settings={
        "service": VerbSetting(type="string", required=True),
        "image": TEXT,
        "replicas": VerbSetting(type="int"),
        "ports": VerbSetting(type="list"),
        "strategy": STRATEGY,
    },
    outputs=("image",),
)
VERBS = Verbs(
    [
        PluginManifest(name="rolls", version="1.4", verbs=(ROLL,)),
        PluginManifest(
            name="lite",
            version="1",
            drivers=(DriverManifest(role="orchestrator", name="lite", features=("rolling",)),),
        ),
    ]
)


class Roll(Step):
    """Creates what is not in ``services``; refuses what is called ``broken``."""

    def __init__(self):
        self.services = {"old": "img@1"}
        self.applied = 0

    @classmethod
    def open(cls, config, host):
        raise NotImplementedError

    async def plan(self, intent):
        name = intent.settings.get("service", "img")
        image = intent.settings.get("image", "")
        if name == "broken":
            raise InvalidArgument("it cannot be rolled", help="choose another name")
        action = "change" if name in self.services else "create"
        if self.services.get(name) == image:
            action = "none"
        change = StepChange(action=action, what=f"service {name}", detail=image)
        return StepPlan(changes=(change,), undo={"before": self.services.get(name)})

    async def apply(self, intent, context):
        self.applied += 1
        return {}


@attrs.define
class Desk:
    host: object
    roll: Roll
    workspace: object
    calls: PluginCalls

    async def plan(self, text, **inputs):
        whole = f"linkspan: v1\ndefaults: {{image: img}}\n{text}"
        checked = check(whole, "p.yaml", VERBS)
        assert checked.workflow is not None
        circumstances = Circumstances(
            workspace=self.workspace,
            given={},
            inputs=inputs,
            git={"sha": "abc", "short_sha": "a", "branch": "main", "tag": "", "dirty": False},
            digest="sha256:1",
        )
        return await Planner(self.host, VERBS, checked, circumstances, self.calls).plan()


@pytest.fixture
def desk(bench):
    roll = Roll()
    bench.host.drivers["step", "roll"] = roll
    bench.host.drivers["registry", ""] = FakeRegistry()
    bench.host.drivers["secrets", "vault"] = FakeSecrets({"HAVE": "x"})
    calls = PluginCalls(workers=CallWorkers(bench.host.nursery), say=print)
    return Desk(bench.host, roll, bench.sources, calls)


def shown(plan):
    return [
        (step.place, step.runs, [f"{c['action']} {c['what']}" for c in step.changes])
        for step in plan.steps
    ]


async def test_a_plan_says_what_each_step_would_change_and_what_only_the_run_knows(desk):
    plan = await desk.plan(
        """
inputs: {to: {type: string, default: new}}
jobs:
  build: {steps: [{id: make, run: make}], outputs: {image: "${{ steps.make.outputs.image }}"}}
  test:
    needs: build
    strategy: {matrix: {python: [3.10, 3.11]}}
    steps: [{run: pytest, image: "img"}]
  deploy:
    needs: [build, test]
    lock: "deploy-${{ inputs.to }}"
    steps:
      - {id: a, uses: roll, with: {service: "${{ inputs.to }}", image: "img@1"}}
      - {id: b, uses: roll, with: {service: old, image: "${{ needs.build.outputs.image }}"}}
      - {id: c, uses: roll, with: {service: old, image: "img@1"}}
      - {id: d, if: "inputs.to == 'old'", uses: roll, with: {service: old}}
      - {id: e, if: "needs.build.outputs.image == 'x'", uses: roll, with: {service: old}}
""",
        to="web",
    )
    assert not plan.problems
    assert shown(plan) == [
        ("build/make", "yes", ["create container of img"]),
        ("test[3.10]/run-1", "yes", ["create container of img"]),
        ("test[3.11]/run-1", "yes", ["create container of img"]),
        ("deploy/a", "yes", ["create service web"]),
        ("deploy/b", "yes", ["change service old"]),
        ("deploy/c", "yes", ["none service old"]),
        ("deploy/d", "no", []),
        ("deploy/e", "maybe", ["change service old"]),
    ]
    assert plan.steps[4].later == ("needs.build.outputs.image",)
    assert plan.steps[4].changes[0]["detail"] == "${{ needs.build.outputs.image }}"
    assert plan.locks == ("deploy-web",)
    assert plan.plugins == {"roll": "rolls 1.4"}
    assert desk.roll.applied == 0


async def test_six_things_are_broken_and_all_six_are_told_with_their_places(desk):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        plan = await desk.plan(f"""
secrets: {{HAVE: {{from: vault}}, LOST: {{from: vault}}}}
jobs:
  a:
    steps:
      - uses: rol
      - {{run: x, image: "registry.example.test/none:1"}}
      - {{run: x, secrets: [HAVE, LOST]}}
      - {{uses: roll, with: {{service: new, ports: ["127.0.0.1:{port}:80"]}}}}
      - {{uses: roll, with: {{service: new, strategy: canary}}}}
      - {{uses: roll, with: {{service: broken}}}}
""")
    found = sorted((p.id, p.primary.span.line, p.headline) for p in plan.problems)
    assert [(id_, line) for id_, line, _ in found] == [
        ("LS1401", 8),
        ("LS1404", 12),
        ("LS1408", 4),
        ("LS1408", 9),
        ("LS1408", 11),
        ("LS1408", 13),
    ]
    words = " ".join(headline for _, _, headline in found)
    for word in (
        "secret 'LOST' has no value in 'vault'",
        "image 'registry.example.test/none:1'",
        f"port {port}/tcp is taken",
        "it cannot be rolled",
    ):
        assert word in words
    assert desk.roll.applied == 0


async def test_what_a_service_has_already_is_not_taken_from_it(desk):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        plan = await desk.plan(
            "jobs: {a: {steps: [{uses: roll, with: "
            f'{{service: old, ports: ["127.0.0.1:{port}:80"]}}}}]}}}}'
        )
    assert not plan.problems


async def test_a_registry_that_wants_a_login_is_told(desk):
    desk.host.drivers["registry", ""].password = "x"
    plan = await desk.plan("jobs: {a: {steps: [{run: x, image: 'r.example.test/a:1'}]}}")
    (problem,) = plan.problems
    assert "linkspan login r.example.test" in problem.headline


async def test_where_images_are_pushed_to_must_let_us(desk):
    push = VerbManifest(
        name="push",
        summary="",
        settings={"image": TEXT, "tags": VerbSetting(type="list")},
        outputs=("digest",),
    )
    verbs = Verbs([PluginManifest(name="p", version="1", verbs=(push,))])
    desk.host.drivers["step", "push"] = desk.roll
    desk.host.drivers["registry", ""].password = "x"
    text = "linkspan: v1\njobs: {a: {steps: [{uses: push, with: {image: img, tags: ['r.example.test/a:1']}}]}}"
    checked = check(text, "p.yaml", verbs)
    about = Circumstances(workspace=desk.workspace, given={}, inputs={}, git={}, digest="")

    async def problems():
        plan = await Planner(desk.host, verbs, checked, about, desk.calls).plan()
        return [p.headline for p in plan.problems if "registry" in p.headline]

    assert await problems() == [
        "'r.example.test/a:1': its registry wants a login: linkspan login r.example.test"
    ]
    registry = desk.host.drivers["registry", ""]
    registry.password, registry.read_only = "", True
    await registry.remember(Credentials(server_address="r.example.test"))
    (words,) = await problems()
    assert "the login at its registry may not push there: linkspan login r.example.test" in words
    registry.read_only = False
    assert await problems() == []
    assert registry.repositories == {}


async def test_images_of_verbs_must_be_there_or_be_made_by_a_step_of_the_run(desk):
    deploy = VerbManifest(name="deploy", summary="", settings={"image": TEXT})
    build = VerbManifest(name="build", summary="", settings={"tags": VerbSetting(type="list")})
    verbs = Verbs([PluginManifest(name="p", version="1", verbs=(deploy, build))])
    for name in ("deploy", "build"):
        desk.host.drivers["step", name] = desk.roll
    text = """linkspan: v1
jobs:
  go:
    needs: [make]
    steps:
      - {uses: deploy, with: {image: "r.example.test/made:1"}}
      - {uses: deploy, with: {image: "r.example.test/gone:1"}}
      - {uses: deploy, with: {image: img}}
      - {run: x, image: made}
  make: {steps: [{uses: build, with: {tags: ["r.example.test/made:1", made]}}]}
"""
    checked = check(text, "p.yaml", verbs)
    about = Circumstances(workspace=desk.workspace, given={}, inputs={}, git={}, digest="")
    plan = await Planner(desk.host, verbs, checked, about, desk.calls).plan()
    (problem,) = plan.problems
    assert problem.headline.startswith("image 'r.example.test/gone:1': it is not here, and not in")
    assert (problem.primary.span.line, problem.primary.span.column) == (7, 38)
    # A tag may move: what it means now is part of the plan.
    assert [c for c in plan.steps[2].changes if c["what"] == "image img"] == [
        {"action": "none", "what": "image img", "detail": "sha256:0"}
    ]


class Maker(Step):
    """``make`` creates what it is told; ``want`` cannot do without it."""

    @classmethod
    def open(cls, config, host):
        raise NotImplementedError

    async def plan(self, intent):
        if intent.verb == "want":
            thing = intent.settings["thing"]
            raise NotFound(f"{thing} not found", details={MISSING: thing}, help="make it")
        change = StepChange(action="create", what=intent.settings["thing"])
        return StepPlan(changes=(change,))

    async def apply(self, intent, context):
        raise NotImplementedError


@pytest.fixture
def order(desk):
    """Plans jobs of ``make`` and ``want``; gives the problems, a line each with its first help."""
    settings = {
        "thing": TEXT,
        "count": VerbSetting(type="int"),
        "volumes": VerbSetting(type="list"),
    }
    names = ("make", "want")
    verbs = Verbs(
        [
            PluginManifest(
                name="p",
                version="1",
                verbs=tuple(VerbManifest(name=n, summary="", settings=settings) for n in names),
            )
        ]
    )
    for name in names:
        desk.host.drivers["step", name] = Maker()

    async def plan(text, **others):
        whole = f"linkspan: v1\ndefaults: {{image: img}}\n{text}"
        files = {f"{name}.yaml": f"linkspan: v1\n{text}".encode() for name, text in others.items()}
        checked = check(whole, "p.yaml", verbs, fetch=files.__getitem__)
        assert not checked.errors, checked.errors
        about = Circumstances(workspace=desk.workspace, given={}, inputs={}, git={}, digest="")
        found = await Planner(desk.host, verbs, checked, about, desk.calls).plan()
        return [(p.headline, p.helps[0]) for p in found.problems]

    return plan


MAKE, WANT = (f"{{uses: {verb}, with: {{thing: network front}}}}" for verb in ("make", "want"))


@pytest.mark.parametrize(
    "jobs",
    [
        f"{{a: {{steps: [{MAKE}, {WANT}]}}}}",
        f"{{b: {{needs: [a], steps: [{WANT}]}}, a: {{steps: [{MAKE}]}}}}",
        f"{{c: {{needs: b, steps: [{WANT}]}}, b: {{needs: a, steps: [{{run: x}}]}}, a: {{steps: [{MAKE}]}}}}",
        f"{{a: {{steps: [{{parallel: [{MAKE}, {{run: x}}]}}, {WANT}]}}}}",
        f"{{a: {{steps: [{MAKE}]}}}}\nfinally: {{z: {{steps: [{WANT}]}}}}",
        # Whoever has the daemon's socket may make anything.
        "{a: {volumes: ['/run/linkspan.sock:/s'], steps: [{run: x}]}, "
        f"b: {{needs: a, steps: [{WANT}]}}}}",
        f"{{a: {{steps: [{{uses: make, with: {{thing: x, volumes: ['/d.sock:/s']}}}}, {WANT}]}}}}",
        # A step of which not everything is known, whatever it names.
        "{a: {steps: [{id: s, run: x}, "
        "{uses: make, with: {thing: front, count: '${{ from_json(steps.s.outputs.n) }}'}}, "
        f"{WANT}]}}}}",
    ],
)
async def test_what_a_step_makes_is_there_for_those_that_come_after_it(order, jobs):
    assert await order(f"jobs: {jobs}") == []


@pytest.mark.parametrize(
    ("jobs", "help_"),
    [
        (f"{{a: {{steps: [{WANT}]}}}}", "make it"),
        (f"{{a: {{steps: [{WANT}, {MAKE}]}}}}", "a/make-2 makes it, but not before this step"),
        (
            f"{{a: {{steps: [{MAKE}]}}, b: {{steps: [{WANT}]}}}}",
            "a/make-1 makes it; wait for it:  needs: [a]",
        ),
        (
            f"{{a: {{needs: [b], steps: [{MAKE}]}}, b: {{steps: [{WANT}]}}}}",
            "a/make-1 makes it; wait for it:  needs: [a]",
        ),
        (f"{{a: {{steps: [{{parallel: [{MAKE}, {WANT}]}}]}}}}", "make it"),
        (f"{{a: {{if: 'false', steps: [{MAKE}]}}, b: {{needs: a, steps: [{WANT}]}}}}", "make it"),
        ("{a: {steps: [{uses: make, with: {thing: network back}}, " + f"{WANT}]}}}}", "make it"),
        (
            "{a: {steps: [{id: s, run: x}, "
            "{uses: make, with: {thing: back, count: '${{ from_json(steps.s.outputs.n) }}'}}, "
            f"{WANT}]}}}}",
            "make it",
        ),
    ],
)
async def test_what_is_made_too_late_or_never_is_missing(order, jobs, help_):
    assert await order(f"jobs: {jobs}") == [("network front not found", help_)]


async def test_what_is_missing_whatever_the_run_finds_out_is_told(order):
    unknown = 'volumes: ["${{ steps.s.outputs.v }}"]'
    found = await order(
        f"jobs: {{a: {{steps: [{{id: s, run: x}}, {{uses: want, with: {{thing: network front, {unknown}}}}}]}},"
        f" b: {{steps: [{{id: s, run: x}}, {{uses: want, with: {{thing: '${{{{ steps.s.outputs.v }}}}'}}}}]}}}}"
    )
    assert found == [("network front not found", "make it")]


async def test_pipelines_that_call_each_other_make_things_for_each_other(order):
    inner = f"jobs: {{x: {{steps: [{MAKE}]}}, y: {{steps: [{WANT}]}}}}"
    found = await order(
        f"jobs: {{a: {{uses: ./inner.yaml}}, b: {{needs: a, steps: [{WANT}]}}, c: {{steps: [{WANT}]}}}}",
        inner=inner,
    )
    assert found == [
        ("network front not found", "a/x/make-1 makes it; wait for it:  needs: [x]"),
        ("network front not found", "a/x/make-1 makes it; wait for it:  needs: [a]"),
    ]


async def test_images_that_are_made_too_late_are_missing(order):
    found = await order(
        "jobs: {a: {steps: [{uses: make, with: {thing: 'image app:1'}}]}, b: {steps: [{run: x, image: app:1}]},"
        " c: {needs: a, steps: [{run: x, image: 'app:1'}]}}"
    )
    ((headline, help_),) = found
    assert headline.startswith("image 'app:1': it is not here")
    assert help_ == "a/make-1 makes it; wait for it:  needs: [a]"


async def test_a_long_chain_of_jobs_is_put_in_order(order):
    chain = "\n".join(f"  j{n}: {{needs: j{n - 1}, steps: [{{run: x}}]}}" for n in range(1, 2000))
    last = f"  z: {{needs: j1999, steps: [{WANT}]}}"
    assert await order(f"jobs:\n{last}\n{chain}\n  j0: {{steps: [{MAKE}]}}") == []


async def test_a_secret_that_is_made_on_first_use_need_not_be_there(desk):
    plan = await desk.plan(
        "secrets: {NEW: {from: vault, generate: {length: 24}}, OFF: {from: vault, required: false}}\n"
        "jobs: {a: {steps: [{run: x, secrets: [NEW, OFF]}]}}"
    )
    assert not plan.problems
    assert desk.host.drivers["secrets", "vault"].values == {"HAVE": "x"}


JOBS = (
    "linkspan: v1\ndefaults: {image: img}\n"
    "jobs: {a: {steps: [{uses: set, with: {name: x, value: new}}]}}"
)


def new(bench, **more):
    return NewRun(file="p.yaml", text=JOBS, workspace=bench.sources, **more)


async def test_a_run_follows_its_plan_while_the_world_stands_still(bench):
    plan = await bench.manager.plan(new(bench))
    assert plan["problems"] == []
    kept = json.loads(json.dumps(plan))
    started = await bench.manager.create(new(bench, plan=kept))
    await bench.manager.wait(started["id"])
    assert bench.world.values == {"x": "new"}


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        ({"text": JOBS + "  # changed"}, "the pipeline's text has changed"),
        ({"git": {"sha": "b"}}, "git sha: None → b"),
    ],
)
async def test_a_run_is_refused_when_something_has_moved(bench, moved, words):
    plan = await bench.manager.plan(new(bench))
    with pytest.raises(StalePlan) as caught:
        await bench.manager.create(attrs.evolve(new(bench, plan=plan), **moved))
    assert words in caught.value.details["differences"]
    assert bench.manager.list_runs() == []
    assert bench.world.values == {}


async def test_a_run_is_refused_when_a_step_would_change_something_else(desk, bench):
    text = (
        "linkspan: v1\ndefaults: {image: img}\n"
        "jobs: {a: {steps: [{id: s, run: x, image: 'r.example.test/a:1'}]}}"
    )
    request = NewRun(file="p.yaml", text=text, workspace=bench.sources)
    repository = desk.host.drivers["registry", ""].repository("r.example.test/a")
    repository.put_manifest("1", "application/vnd.oci.image.manifest.v1+json", b"{}")
    plan = await bench.manager.plan(request)
    assert plan["problems"] == []
    repository.put_manifest("1", "application/vnd.oci.image.manifest.v1+json", b"{ }")
    with pytest.raises(StalePlan, match="a/s: create container of r"):
        await bench.manager.create(attrs.evolve(request, plan=plan))


async def test_what_is_no_plan_is_refused(bench):
    with pytest.raises(InvalidArgument, match="not a plan"):
        await bench.manager.create(new(bench, plan={"id": "x"}))


async def test_a_file_that_cannot_be_read_has_no_plan(bench):
    with pytest.raises(InvalidPipeline):
        await bench.manager.plan(attrs.evolve(new(bench), text="a: ["))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080:80", ("", 8080, "tcp")),
        ("127.0.0.1:53:53/udp", ("127.0.0.1", 53, "udp")),
        ("[::1]:53:53", ("::1", 53, "tcp")),
        ("80", None),
        ("0:80", None),
        ("8000-8010:80", None),
    ],
)
def test_published_ports_are_read_as_docker_writes_them(text, place):
    assert published(text) == place


def test_a_port_is_free_again_when_its_listener_is_gone():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "is taken" in port_taken("127.0.0.1", port, "tcp")
    assert port_taken("127.0.0.1", port, "tcp") == ""
    assert "no address" in port_taken("203.0.113.1", port, "tcp")
    assert "no port" in port_taken("", 99999, "tcp")


def test_a_workspace_that_does_not_fit_on_the_disk_is_told(tmp_path, monkeypatch):
    (tmp_path / "big").write_bytes(b"x" * 1000)
    assert disk_fault(tmp_path, tmp_path, None, 1) == ""
    usage = type("Usage", (), {"free": 1500})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "2 copies of the workspace take 2kB" in disk_fault(tmp_path, tmp_path, None, 2)
    assert "1kB of it go" in disk_fault(tmp_path, tmp_path, ("big", "gone"), 1)
