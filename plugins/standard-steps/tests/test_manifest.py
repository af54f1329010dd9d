"""The manifest says what the code does."""

import inspect
import re
import tomllib
from importlib import metadata, resources

import pytest

from linkspan.sdk.drivers.step import Step

TEXT = resources.files("linkspan.plugins.standard_steps").joinpath("linkspan-plugin.toml")
MANIFEST = tomllib.loads(TEXT.read_text())
POINTS = metadata.entry_points(group="linkspan.step.v1")


@pytest.mark.parametrize("verb", MANIFEST["verb"], ids=lambda verb: verb["name"])
def test_every_verb_has_a_driver_whose_settings_are_declared(verb):
    (point,) = [point for point in POINTS if point.name == verb["name"]]
    driver = point.load()
    assert issubclass(driver, Step)
    used = set(re.findall(r'settings(?:\["|\.get\(")([\w-]+)"', inspect.getsource(driver)))
    assert used <= verb["with"].keys()
    assert {"role": "step", "name": verb["name"]} in MANIFEST["driver"]


@pytest.mark.parametrize("verb", MANIFEST["verb"], ids=lambda verb: verb["name"])
def test_every_verb_and_every_setting_says_what_it_is(verb):
    assert verb["summary"]
    assert [name for name, setting in verb["with"].items() if not setting.get("help")] == []


@pytest.mark.parametrize("verb", MANIFEST["verb"], ids=lambda verb: verb["name"])
def test_every_verb_can_say_what_became_of_it_and_what_it_would_change(verb):
    (point,) = [point for point in POINTS if point.name == verb["name"]]
    driver = point.load()
    own = {name for kind in driver.__mro__ if kind is not Step for name in vars(kind)}
    reads = {"http-check", "wait-for", "scan-file"}
    assert "plan" in own or verb["name"] in reads
    # Nobody but the journal knows what a person has decided.
    assert "observe" in own or verb["name"] == "approve"
