"""The sdk's kit on the verbs in the box."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from linkspan.plugins.standard_steps.build import BuildStep
from linkspan.plugins.standard_steps.deploy import DeployStep
from linkspan.plugins.standard_steps.execute import ExecStep
from linkspan.plugins.standard_steps.http_check import HttpCheckStep
from linkspan.plugins.standard_steps.login import LoginStep
from linkspan.plugins.standard_steps.notify import NotifyConfig, NotifyStep
from linkspan.plugins.standard_steps.prune import PruneStep
from linkspan.plugins.standard_steps.pull import PullStep
from linkspan.plugins.standard_steps.push import PushStep
from linkspan.plugins.standard_steps.remove_image import RemoveImageStep
from linkspan.plugins.standard_steps.rollback import RollbackStep
from linkspan.plugins.standard_steps.run_job import RunJobStep
from linkspan.plugins.standard_steps.scale import ScaleStep
from linkspan.plugins.standard_steps.scan_file import ScanFileStep
from linkspan.plugins.standard_steps.tag import TagStep
from linkspan.plugins.standard_steps.wait_for import WaitForStep
from linkspan.sdk.drivers.builder import BuildResult
from linkspan.sdk.model.container import ContainerFilter, ContainerSpec
from linkspan.sdk.model.service import ServiceSpec
from linkspan.sdk.model.step import StepIntent
from linkspan.sdk.testing.conformance.step import StepConformance
from linkspan.sdk.testing.fakes.engine import FakeEngine
from linkspan.sdk.testing.fakes.engine_images import make_image
from linkspan.sdk.testing.fakes.machine import FakeMachine
from linkspan.sdk.testing.fakes.orchestrator import FakeOrchestrator, FakeOrchestratorConfig
from linkspan.sdk.testing.fakes.registry import FakeRegistry
from linkspan.sdk.testing.host import FakeHost

SETTINGS = {
    "service": "web",
    "replicas": 2,
    "update": {"order": "start-first", "monitor": 0.1},
    "timeout": 5.0,
}


def an_intent(verb: str, workspace: Path, **settings: Any) -> StepIntent:
    return StepIntent(
        run_id="r",
        job="j",
        step="s",
        attempt=1,
        verb=verb,
        settings={name.replace("_", "-"): value for name, value in settings.items()},
        workspace=workspace,
    )


class OnOrchestrator(StepConformance):
    """A service ``web`` with app:2, which was app:1 before; ``images`` whose tasks fail are ``bad``."""

    kind: type

    @pytest.fixture
    async def step(self, fake_host: FakeHost):
        async with FakeOrchestrator.open(
            FakeOrchestratorConfig(broken=["bad"]), fake_host
        ) as orchestrator:
            fake_host.drivers["orchestrator", ""] = orchestrator
            await self.prepare(orchestrator)
            async with self.kind.open(None, fake_host) as step:
                yield step

    async def prepare(self, orchestrator: FakeOrchestrator) -> None:
        await orchestrator.init()
        spec = ServiceSpec(name="web", container=ContainerSpec(image="app:1"), replicas=2)
        await orchestrator.create_service(spec)
        await self.done(orchestrator)
        changed = attrs.evolve(spec, container=ContainerSpec(image="app:2"))
        await orchestrator.update_service("web", changed)
        await self.done(orchestrator)

    async def done(self, orchestrator: FakeOrchestrator) -> None:
        async with orchestrator.rollout("web") as moments:
            with trio.fail_after(5):
                [moment async for moment in moments]

    async def picture(self, step):
        orchestrator = step.host.driver("orchestrator")
        if await orchestrator.cluster() is None:
            return None
        services = await orchestrator.list_services()
        return [(s.spec.name, s.spec.container.image, s.spec.replicas) for s in services]


class TestDeployOfANewService(OnOrchestrator):
    kind = DeployStep
    observes = True

    async def prepare(self, orchestrator: FakeOrchestrator) -> None:
        await orchestrator.init()

    undoes = True

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("deploy", tmp_path, image="app:3", **SETTINGS)

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("deploy", tmp_path, image="bad", **SETTINGS)


class TestDeployOfAnUpdate(TestDeployOfANewService):
    async def prepare(self, orchestrator: FakeOrchestrator) -> None:
        await OnOrchestrator.prepare(self, orchestrator)


class TestScale(OnOrchestrator):
    kind = ScaleStep
    undoes = True
    observes = True

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("scale", tmp_path, service="web", replicas=5, timeout=5.0)


class TestRollback(OnOrchestrator):
    kind = RollbackStep
    undoes = True

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("rollback", tmp_path, service="web", timeout=5.0)


class OnEngine(StepConformance):
    """An engine with ``app:1``; a registry has ``far:1``."""

    kind: type

    @pytest.fixture
    async def step(self, fake_host: FakeHost):
        engine = FakeEngine(FakeMachine(fake_host.nursery))
        engine.images.put(make_image("app:1"))
        engine.images.remote["far:1"] = make_image("far:1", labels={"from": "far"})
        fake_host.fake_engine = engine
        async with self.kind.open(None, fake_host) as step:
            yield step

    async def picture(self, step):
        return sorted(tag for i in step.host.engine.images.list() for tag in i.repo_tags)


class TestPull(OnEngine):
    kind = PullStep
    undoes = True

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("pull", tmp_path, image="far:1")

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("pull", tmp_path, image="nowhere:1")


class TestRemoveImage(OnEngine):
    kind = RemoveImageStep
    observes = True
    same_outputs = False

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("remove-image", tmp_path, image="app:1")


class TestRemoveOneNameOfAnImage(OnEngine):
    kind = RemoveImageStep
    observes = True
    undoes = True
    same_outputs = False

    @pytest.fixture
    async def intent(self, step: RemoveImageStep, tmp_path: Path) -> StepIntent:
        await step.host.engine.images.tag("app:1", "app:other")
        return an_intent("remove-image", tmp_path, image="app:other")


class TestBuild(OnEngine):
    """A new image takes one name from ``app:1`` and has a new one."""

    kind = BuildStep
    undoes = True

    async def picture(self, step):
        return sorted((i.id, i.repo_tags) for i in step.host.engine.images.list())

    @pytest.fixture
    def intent(self, step: BuildStep, fake_host: FakeHost, tmp_path: Path) -> StepIntent:
        class Builder:
            async def build(self, request, progress):
                made = make_image("made")
                known = {tag for i in step.host.engine.images.list() for tag in i.repo_tags}
                if made.id not in [i.id for i in step.host.engine.images.list()]:
                    step.host.engine.images.put(attrs.evolve(made, repo_tags=()))
                for tag in request.tags:
                    if tag not in known or step.host.engine.images.inspect(tag).id != made.id:
                        await step.host.engine.images.tag(made.id, tag)
                await trio.lowlevel.checkpoint()
                return BuildResult(image_id=made.id, steps=1, cached_steps=0)

        fake_host.drivers["builder", ""] = Builder()
        return an_intent("build", tmp_path, context=".", file="Dockerfile", tags=["app:1", "app:2"])


class TestPush(StepConformance):
    observes = True
    undoes = True

    @pytest.fixture
    def step(self, host, images) -> PushStep:
        images.names["app:1"] = "sha256:a"
        return PushStep(host)

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("push", tmp_path, image="app:1", tags=["127.0.0.1:5000/app:1"])

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("push", tmp_path, image="gone:1", tags=["127.0.0.1:5000/gone:1"])

    async def picture(self, step):
        return dict(step.host.driver("registry").manifests), dict(step.host.engine.images.names)


class TestPushOverAnother(TestPush):
    @pytest.fixture
    def step(self, host, images, registry) -> PushStep:
        images.names["app:1"] = "sha256:a"
        images.names["127.0.0.1:5000/app:1"] = images.names["app:0"] = "sha256:b"
        registry.put("127.0.0.1:5000/app:1", "sha256:b")
        return PushStep(host)


async def answer(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class TestHttpCheck(StepConformance):
    @pytest.fixture
    async def url(self, nursery) -> str:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        return f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"

    @pytest.fixture
    def step(self, host) -> HttpCheckStep:
        return HttpCheckStep(host)

    @pytest.fixture
    def intent(self, tmp_path: Path, url: str) -> StepIntent:
        return an_intent("http-check", tmp_path, url=url, within=3.0, interval=0.1, timeout=1.0)

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        url = "http://127.0.0.1:1/"
        return an_intent("http-check", tmp_path, url=url, within=0.3, interval=0.1, timeout=0.1)


class TestTag(OnEngine):
    kind = TagStep
    observes = True
    undoes = True

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("tag", tmp_path, image="app:1", tags=["app:2", "shop/app:latest"])

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("tag", tmp_path, image="app:1", tags=["NOT A NAME"])


class OnContainers(OnEngine):
    """A container ``there`` runs."""

    @pytest.fixture
    async def step(self, fake_host: FakeHost):
        engine = FakeEngine(FakeMachine(fake_host.nursery))
        engine.images.put(make_image("app:1"))
        fake_host.fake_engine = engine
        made = await engine.containers.create(ContainerSpec(image="app:1"), name="there")
        await engine.containers.start(made.id)
        async with self.kind.open(None, fake_host) as step:
            yield step

    async def picture(self, step):
        containers = step.host.engine.containers.list(ContainerFilter(all=True))
        return sorted((c.name, c.state.status.value) for c in containers)


class TestExec(OnContainers):
    kind = ExecStep

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("exec", tmp_path, container="there", command=["echo", "a"], timeout=5.0)

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("exec", tmp_path, container="there", command=["false"], timeout=5.0)


class TestRunJob(OnContainers):
    kind = RunJobStep

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("run-job", tmp_path, image="app:1", command=["true"], timeout=5.0)

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("run-job", tmp_path, image="app:1", command=["false"], timeout=5.0)


class TestPrune(OnContainers):
    kind = PruneStep
    same_outputs = False

    @pytest.fixture
    async def step(self, fake_host: FakeHost):
        engine = FakeEngine(FakeMachine(fake_host.nursery))
        engine.images.put(make_image("app:1"))
        fake_host.fake_engine = engine
        await engine.containers.create(ContainerSpec(image="app:1"), name="idle")
        async with self.kind.open(None, fake_host) as step:
            yield step

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("prune", tmp_path)

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("prune", tmp_path, what=["everything"])


class TestWaitFor(OnContainers):
    kind = WaitForStep
    same_outputs = False

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("wait-for", tmp_path, container="there", timeout=5.0, interval=0.01)

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("wait-for", tmp_path, path="nowhere", timeout=0.05, interval=0.01)


class TestNotify(TestHttpCheck):
    @pytest.fixture
    def step(self) -> NotifyStep:
        return NotifyStep(NotifyConfig())

    @pytest.fixture
    def intent(self, tmp_path: Path, url: str) -> StepIntent:
        return an_intent("notify", tmp_path, url=url, text="done", timeout=3.0)

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("notify", tmp_path, url="http://127.0.0.1:1/", text="done", timeout=3.0)


class TestScanFile(StepConformance):
    @pytest.fixture
    def step(self, host, tmp_path: Path) -> ScanFileStep:
        (tmp_path / "a.txt").write_text("nothing")
        return ScanFileStep(host)

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("scan-file", tmp_path, paths=["*.txt"], secrets=True)

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("scan-file", tmp_path, paths=["*.txt"], forbid=["noth"])


class TestLogin(StepConformance):
    undoes = True

    @pytest.fixture
    async def step(self, fake_host: FakeHost):
        async with FakeRegistry.open(None, fake_host) as registry:
            registry.password = "right"
            fake_host.drivers["registry", ""] = registry
            async with LoginStep.open(None, fake_host) as step:
                yield step

    async def picture(self, step):
        return dict(step.host.driver("registry").remembered)

    @pytest.fixture
    def intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("login", tmp_path, registry="r.test", username="u", password="right")

    @pytest.fixture
    def failing_intent(self, tmp_path: Path) -> StepIntent:
        return an_intent("login", tmp_path, registry="r.test", username="u", password="wrong")
