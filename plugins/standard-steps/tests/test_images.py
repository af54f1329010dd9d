"""``build``, ``push``, ``pull``, ``remove-image``."""

import attrs
import pytest

from linkspan.plugins.standard_steps import platforms
from linkspan.plugins.standard_steps.build import BuildStep
from linkspan.plugins.standard_steps.pull import PullStep
from linkspan.plugins.standard_steps.push import PushStep
from linkspan.plugins.standard_steps.remove_image import RemoveImageStep
from linkspan.sdk.drivers.builder import BuilderCap, BuildResult, CacheImport
from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound, Unsupported
from linkspan.sdk.model.image import Platform
from linkspan.sdk.progress import Progress


class Builder:
    capabilities = BuilderCap.NONE

    def __init__(self) -> None:
        self.requests = []

    async def preflight(self, request):
        """Nothing is wrong."""

    async def build(self, request, progress):
        self.requests.append(request)
        progress(Progress(stream="Step 1/3 : FROM scratch\n"))
        return BuildResult(image_id="sha256:made", steps=3, cached_steps=2)


@pytest.fixture
def builder(host):
    made = Builder()
    host.drivers["builder", ""] = made
    return made


async def test_build_hands_the_context_of_the_workspace_to_the_builder(
    host, builder, intent, context
):
    wish = intent("build", context="app", file="Dockerfile", tags=["app:1"], args={"V": "1"})
    (wish.workspace / "app").mkdir()
    outputs = await BuildStep(host).apply(wish, context)
    assert outputs == {"id": "sha256:made", "image": "app:1", "images": {}}
    (request,) = builder.requests
    assert request.context == (wish.workspace / "app").resolve()
    assert (request.tags, request.args) == (("app:1",), {"V": "1"})
    assert context.lines == ["3 steps, 2 of them cached"]
    assert [p.stream for p in context.shown] == ["Step 1/3 : FROM scratch\n"]


async def test_build_mounts_secrets_and_shares_its_steps(host, builder, intent, context):
    wish = intent(
        "build",
        context=".",
        file="Dockerfile",
        platform="linux/arm64",
        **{
            "secret-mounts": {"token": "hunter2"},
            "cache-from": ["r.example.test/app:cache"],
            "cache-to": "r.example.test/app:cache",
        },
    )
    step = BuildStep(host)
    assert [(c.action, c.what) for c in (await step.plan(wish)).changes] == [
        ("create", "image"),
        ("change", "r.example.test/app:cache in its registry"),
    ]
    await step.apply(wish, context)
    (request,) = builder.requests
    assert request.secrets == {"token": b"hunter2"}
    assert request.platform == "linux/arm64"
    assert request.cache_from == (CacheImport(reference="r.example.test/app:cache", fresh=True),)
    (export,) = request.cache_to
    assert (export.reference, export.push) == ("r.example.test/app:cache", True)


async def test_build_without_tags_is_named_by_its_id(host, builder, intent, context):
    outputs = await BuildStep(host).apply(intent("build", context=".", file="Dockerfile"), context)
    assert outputs["image"] == "sha256:made"


@pytest.mark.parametrize("name", ["..", "/etc", "link"])
async def test_a_context_outside_of_the_workspace_is_refused(host, builder, intent, context, name):
    wish = intent("build", context=name, file="Dockerfile")
    (wish.workspace / "link").symlink_to("/etc")
    with pytest.raises(InvalidArgument, match="leads out of the workspace"):
        await BuildStep(host).apply(wish, context)


async def test_a_context_that_is_not_there_is_named(host, builder, intent, context):
    with pytest.raises(NotFound, match="no folder 'nowhere'"):
        await BuildStep(host).apply(intent("build", context="nowhere", file="f"), context)


async def test_push_tags_the_image_and_gives_its_digest(host, images, registry, intent, context):
    images.names["app:1"] = "sha256:a"
    wish = intent("push", image="app:1", tags=["127.0.0.1:5000/app:1", "127.0.0.1:5000/app:new"])
    outputs = await PushStep(host).apply(wish, context)
    digest = registry.manifests["127.0.0.1:5000/app:1"].descriptor.digest
    assert outputs == {"image": f"127.0.0.1:5000/app@{digest}", "digest": digest}
    assert set(registry.manifests) == {"127.0.0.1:5000/app:1", "127.0.0.1:5000/app:new"}


async def test_push_asks_the_registry_what_became_of_it(host, images, registry, intent, context):
    images.names["app:1"] = "sha256:a"
    wish = intent("push", image="app:1", tags=["127.0.0.1:5000/app:1"])
    step = PushStep(host)
    assert not (await step.observe(wish)).applied
    registry.put("127.0.0.1:5000/app:1", "sha256:other")
    assert (await step.observe(wish)).detail.endswith("is another image")
    outputs = await step.apply(wish, context)
    seen = await step.observe(wish)
    assert (seen.applied, seen.outputs) == (True, outputs)


@pytest.fixture
async def pushed(host, images, intent, context):
    """A step that has pushed a new tag, and its intent as undo gets it."""
    images.names["app:1"] = "sha256:a"
    step, wish = PushStep(host), intent("push", image="app:1", tags=["127.0.0.1:5000/app:1"])
    wish = attrs.evolve(wish, undo=dict((await step.plan(wish)).undo))
    return step, attrs.evolve(wish, outputs=await step.apply(wish, context))


async def test_a_registry_that_deletes_nothing_is_an_error_that_names_what_stays(
    pushed, registry, images, context
):
    step, wish = pushed
    registry.refuses = Unsupported("it deletes nothing", code="delete_not_offered")
    with pytest.raises(Conflict, match=r"127\.0\.0\.1:5000/app:1 \(it deletes nothing\)") as caught:
        await step.undo(wish, context)
    assert (caught.value.code, "by hand" in caught.value.help) == ("push_remains", True)
    # The names here are given back all the same, and what was removed by hand is no failure.
    assert list(images.names) == ["app:1"]
    registry.manifests.clear()
    assert (await step.undo(wish, context))["detail"] == "nothing to take back"


async def test_what_somebody_has_pushed_since_stays_in_the_registry(pushed, registry, context):
    step, wish = pushed
    registry.put("127.0.0.1:5000/app:1", "sha256:later")
    assert "another image was pushed since" in (await step.undo(wish, context))["detail"]
    assert list(registry.manifests) == ["127.0.0.1:5000/app:1"]


async def test_a_tag_of_which_the_registry_told_nothing_before_stays(pushed, registry, context):
    step, wish = pushed
    blind = attrs.evolve(wish, undo={**wish.undo, "held": {"127.0.0.1:5000/app:1": None}})
    assert "did not say what was there" in (await step.undo(blind, context))["detail"]
    assert list(registry.manifests) == ["127.0.0.1:5000/app:1"]


async def test_an_id_without_tags_cannot_be_pushed(host, intent, context):
    with pytest.raises(InvalidArgument, match="names no tag"):
        await PushStep(host).plan(intent("push", image="sha256:abc"))


async def test_pull_gives_id_and_digest(host, intent, context):
    outputs = await PullStep(host).apply(intent("pull", image="app"), context)
    assert outputs == {"id": "sha256:pulled", "image": "app@sha256:dd"}


async def test_remove_image_removes_and_is_content_if_there_is_none(host, images, intent, context):
    images.names["app:1"] = "sha256:a"
    step, wish = RemoveImageStep(host), intent("remove-image", image="app:1")
    assert (await step.plan(wish)).changes[0].action == "destroy"
    assert not (await step.observe(wish)).applied
    assert (await step.apply(wish, context))["removed"] == ["app:1", "sha256:a"]
    assert (await step.observe(wish)).applied
    assert (await step.plan(wish)).changes[0].action == "none"
    assert (await step.apply(wish, context))["removed"] == []


async def test_an_image_in_use_is_a_conflict(host, images, intent, context):
    images.names["app:1"] = "sha256:a"
    images.used = True
    with pytest.raises(Conflict):
        await RemoveImageStep(host).apply(intent("remove-image", image="app:1"), context)
    kept = intent("remove-image", image="app:1", unless_used=True)
    assert await RemoveImageStep(host).apply(kept, context) == {"removed": []}
    assert context.lines == ["app:1 stays: the image is used"]


class Platforms(Builder):
    """Makes an image for each platform; it cannot run commands of ``refuses``."""

    def __init__(self, host, refuses="", fails="") -> None:
        super().__init__()
        self.host, self.refuses, self.fails = host, refuses, fails
        self.asked = []

    async def preflight(self, request):
        self.asked.append(request.platform)
        if request.platform == self.refuses:
            raise InvalidArgument("no emulator")

    async def build(self, request, progress):
        self.requests.append(request)
        if request.platform == self.fails:
            raise LinkspanError("it failed")
        made = f"sha256:{request.platform or 'made'}"
        self.host.engine.images.unnamed.add(made)
        return BuildResult(image_id=made, steps=1, cached_steps=0)


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(platforms, "host_platform", lambda: Platform(architecture="amd64"))


async def test_each_platform_is_built_and_this_machines_gets_the_tags(
    host, machine, registry, intent, context
):
    builder = host.drivers["builder", ""] = Platforms(host)
    wish = intent(
        "build",
        context=".",
        file="Dockerfile",
        tags=["r.example.test/app:1"],
        platforms=["linux/amd64", "linux/arm64/v8", "s390x"],
    )
    (wish.workspace / "Dockerfile").write_text("FROM scratch")
    plan = await BuildStep(host).plan(wish)
    assert plan.changes[0].detail == "linux/arm64, linux/s390x, linux/amd64"
    assert builder.asked == ["linux/arm64", "linux/s390x", "linux/amd64"]
    outputs = await BuildStep(host).apply(attrs.evolve(wish, undo=plan.undo), context)
    assert [(r.platform, r.tags) for r in builder.requests] == [
        ("linux/arm64", ()),
        ("linux/s390x", ()),
        ("linux/amd64", ()),
    ]
    assert outputs["id"] == "sha256:linux/amd64"
    assert host.engine.images.names["r.example.test/app:1"] == outputs["id"]
    assert list(outputs["images"]) == ["linux/arm64", "linux/s390x", "linux/amd64"]
    pushed = await PushStep(host).apply(intent("push", image=outputs["image"]), context)
    assert host.engine.images.indexes == {"r.example.test/app:1": tuple(outputs["images"].values())}
    assert pushed["digest"] == registry.manifests["r.example.test/app:1"].descriptor.digest
    # Built for itself again, it stands for itself.
    alone = attrs.evolve(wish, settings={**wish.settings, "platforms": ["linux/amd64"]})
    await BuildStep(host).apply(alone, context)
    await PushStep(host).apply(intent("push", image=outputs["image"]), context)
    assert len(host.engine.images.indexes) == 1


async def test_a_platform_whose_commands_nobody_can_run_is_told_before_anything_is_built(
    host, machine, intent
):
    builder = host.drivers["builder", ""] = Platforms(host, refuses="linux/arm64")
    wish = intent("build", context=".", file="Dockerfile", platforms=["arm64", "amd64"])
    await BuildStep(host).plan(wish)
    assert builder.asked == [], "another step may write the file"
    (wish.workspace / "Dockerfile").write_text("FROM scratch")
    with pytest.raises(InvalidArgument, match="no emulator"):
        await BuildStep(host).plan(wish)


async def test_a_build_that_fails_for_one_platform_leaves_none_of_the_others(
    host, machine, intent, context
):
    host.drivers["builder", ""] = Platforms(host, fails="linux/amd64")
    wish = intent("build", context=".", file="Dockerfile", platforms=["arm64", "amd64"])
    wish = attrs.evolve(wish, undo=(await BuildStep(host).plan(wish)).undo)
    with pytest.raises(LinkspanError, match="it failed"):
        await BuildStep(host).apply(wish, context)
    assert host.engine.images.dropped == ["sha256:linux/arm64"]


@pytest.mark.parametrize(
    "more",
    [
        {"platforms": ["linux/arm64", "linux/arm64/v8"]},
        {"platforms": ["linux/arm64"], "platform": "linux/arm64"},
        {"platforms": ["linux/arm64/v8/x/y"]},
    ],
)
async def test_platforms_that_say_nothing_sensible_are_refused(host, builder, intent, more):
    with pytest.raises(InvalidArgument):
        await BuildStep(host).plan(intent("build", context=".", file="Dockerfile", **more))


async def test_an_image_of_unchanged_sources_is_built_again_only_if_it_is_gone_or_has_lost_its_name(
    host, machine, intent, context
):
    host.drivers["builder", ""] = Platforms(host)
    wish = intent(
        "build", context=".", file="Dockerfile", tags=["app:1"], platforms=["arm64", "amd64"]
    )
    step = BuildStep(host)
    assert not (await step.observe(wish)).applied
    wish = attrs.evolve(wish, outputs=await step.apply(wish, context))
    seen = await step.observe(wish)
    assert (seen.applied, seen.outputs) == (True, wish.outputs)
    host.engine.images.unnamed.remove("sha256:linux/arm64")
    assert not (await step.observe(wish)).applied
    host.engine.images.unnamed.add("sha256:linux/arm64")
    host.engine.images.names["app:1"] = "sha256:linux/arm64"
    assert not (await step.observe(wish)).applied
