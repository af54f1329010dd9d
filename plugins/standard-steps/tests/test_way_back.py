"""What undo gives back of images, and what it says about what it cannot."""

import attrs
import pytest

from linkspan.plugins.standard_steps.image_names import drop_if_new, give_back, names_now
from linkspan.plugins.standard_steps.pull import PullStep
from linkspan.plugins.standard_steps.remove_image import RemoveImageStep
from linkspan.plugins.standard_steps.tag import TagStep
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.testing.fakes.engine import FakeEngine
from linkspan.sdk.testing.fakes.engine_images import make_image
from linkspan.sdk.testing.fakes.machine import FakeMachine


@pytest.fixture
def machine(fake_host):
    """A host whose engine has the images ``old:1`` and one without a name."""
    engine = FakeEngine(FakeMachine(fake_host.nursery))
    engine.images.put(make_image("old:1"))
    engine.images.put(attrs.evolve(make_image("loose:1"), repo_tags=()))
    fake_host.fake_engine = engine
    return fake_host


async def done(step, wish, context):
    wish = attrs.evolve(wish, undo=dict((await step.plan(wish)).undo))
    return attrs.evolve(wish, outputs=await step.apply(wish, context))


async def test_a_name_that_somebody_has_given_away_since_stays_there(machine, intent, context):
    images = machine.engine.images
    images.remote["app:1"] = make_image("app:1")
    step = PullStep(machine)
    wish = await done(step, intent("pull", image="app:1"), context)
    await images.tag("old:1", "app:1")
    detail = (await step.undo(wish, context))["detail"]
    assert "app:1 stays: it was given to" in detail
    assert images.inspect("app:1").id == images.inspect("old:1").id


async def test_a_pull_that_moved_a_name_gives_it_back_and_drops_what_it_got(
    machine, intent, context
):
    images = machine.engine.images
    before = images.put(make_image("app:1", command=("old",)))
    new = images.remote["app:1"] = make_image("app:1", command=("new",))
    step = PullStep(machine)
    wish = await done(step, intent("pull", image="app:1"), context)
    assert images.inspect("app:1").id == new.id
    await step.undo(wish, context)
    assert images.inspect("app:1").id == before.id
    assert new.id not in [image.id for image in images.list()]


async def test_a_new_image_that_a_container_uses_stays_and_is_named(machine, intent, context):
    images = machine.engine.images
    images.remote["app:1"] = make_image("app:1")
    step = PullStep(machine)
    wish = await done(step, intent("pull", image="app:1"), context)
    await machine.engine.containers.create(ContainerSpec(image="app:1"), name="user")
    assert "app:1 stays: conflict" in (await step.undo(wish, context))["detail"]
    assert images.inspect("app:1")


async def test_a_name_whose_image_is_gone_stays_with_the_new_one(machine):
    images = machine.engine.images
    new = images.put(make_image("new:1"))
    undo = {"before": {"new:1": "sha256:" + "0" * 64}, "loose": []}
    (told,) = await give_back(machine, undo, new.id)
    assert told.startswith("new:1 stays: sha256:000000000000, which had it, is gone")
    assert images.inspect("new:1").id == new.id


async def test_undo_never_removes_an_image_that_was_there_without_a_name(machine, intent, context):
    images = machine.engine.images
    (loose,) = (image.id for image in images.list() if not image.repo_tags)
    assert await drop_if_new(machine, names_now(machine, []), loose) == []
    step = TagStep(machine)
    wish = await done(step, intent("tag", image=loose, tags=["kept:1"]), context)
    assert "which was here before" in (await step.undo(wish, context))["detail"]
    assert loose in [image.id for image in images.list()]


async def test_removing_the_last_name_is_destroying_and_undo_says_that_it_is_gone(
    machine, intent, context
):
    step = RemoveImageStep(machine)
    wish = intent("remove-image", image="old:1")
    assert [change.action for change in (await step.plan(wish)).changes] == ["destroy"]
    wish = await done(step, wish, context)
    said = await step.undo(wish, context)
    assert said["detail"].startswith("cannot be taken back: old:1; its image sha256:")


async def test_removing_one_of_two_names_is_a_change_and_comes_back(machine, intent, context):
    images = machine.engine.images
    await images.tag("old:1", "old:2")
    step = RemoveImageStep(machine)
    wish = intent("remove-image", image="old:2")
    assert [change.action for change in (await step.plan(wish)).changes] == ["change"]
    wish = await done(step, wish, context)
    await step.undo(wish, context)
    assert images.inspect("old:2").id == images.inspect("old:1").id
    wish = await done(step, wish, context)
    other = images.put(make_image("old:2", command=("other",)))
    assert "old:2 stays" in (await step.undo(wish, context))["detail"]
    assert images.inspect("old:2").id == other.id
