"""A manifest is read without importing anything; a wrong one says where."""

import sys
from pathlib import Path

import pytest

from linkspan.core.plugins.manifest import ManifestError, ManifestFinder, parse_manifest

WHOLE = """\
name = "acme-steps"
version = "0.3.0"
summary = "Steps of Acme"
stage = "alpha"
listener = "acme.hooks"

[[driver]]
role = "step"
name = "acme/deploy"
contract = 1
features = ["rolling"]

[[verb]]
name = "acme/deploy"
summary = "Deploy"
outputs = ["service", "previous_replicas"]

[verb.with.service]
type = "string"
required = true
help = "The service"

[verb.with.update_config]
type = "map"
[verb.with.update_config.keys.order]
type = "string"
options = ["start-first", "stop-first"]
default = "stop-first"

[[command]]
words = "workflow run"
run = "acme.cli:run"
summary = "Run"

[[component]]
name = "acme-server"
config = "acme.config:ServerConfig"
"""


def test_a_manifest_becomes_the_sdks_values() -> None:
    manifest = parse_manifest(WHOLE, package="acme", distribution="acme 0.3.0")
    (verb,) = manifest.verbs
    assert manifest.name == "acme-steps"
    assert manifest.stage == "alpha"
    assert manifest.drivers[0].features == ("rolling",)
    assert verb.outputs == ("service", "previous_replicas")
    assert verb.settings["service"].required
    assert verb.settings["update_config"].keys["order"].options == ("start-first", "stop-first")
    assert manifest.commands[0].run == "acme.cli:run"
    assert manifest.components[0].config == "acme.config:ServerConfig"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('name = "acme-steps"', 'nmae = "acme-steps"', "1:1", "'nmae' is not a setting"),
        (
            'version = "0.3.0"',
            "version = 0.3",
            "2:11",
            "'version' must be a string, found the number 0.3",
        ),
        ('stage = "alpha"', 'stage = "gamma"', "4:9", "'stage' must be one of"),
        ('type = "map"', 'type = "mpa"', "24:8", "'verb.0.with.update_config.type' must be one of"),
        ('run = "acme.cli:run"', 'run = "acme.cli"', "32:7", "is not of the form module:attribute"),
        (
            'name = "acme-steps"',
            'name = "Acme Steps"',
            "1:8",
            "is not of the form lower-case-words",
        ),
        ("contract = 1", "contract = 0", "10:12", "'driver.0.contract' must be >= 1"),
        ('role = "step"', "", "7:3", "'driver.0.role' is required"),
        ('version = "0.3.0"', "version = ", "2:11", "not valid TOML"),
    ],
)
def test_a_wrong_manifest_says_what_and_where(old: str, new: str, line: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(WHOLE.replace(old, new, 1), file="p.toml")
    found = [(d.place, d.headline) for d in caught.value.diagnostics]
    assert any(place == f"p.toml:{line}" and message in text for place, text in found), found


def test_the_file_is_found_without_importing_the_package_or_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acmeroot" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "acmeroot" / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "linkspan-plugin.toml").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ManifestFinder().find("acmeroot.inner") == package / "linkspan-plugin.toml"
    assert "acmeroot" not in sys.modules
    assert ManifestFinder().find("acmeroot.absent") is None
    assert ManifestFinder().find("acme_absent.inner") is None


def test_a_verb_says_whether_there_is_a_way_back() -> None:
    told = WHOLE.replace('outputs = ["service"', 'undo = "needless"\noutputs = ["service"')
    assert [parse_manifest(text).verbs[0].undo for text in (WHOLE, told)] == ["records", "needless"]
    with pytest.raises(ManifestError, match="needles"):
        parse_manifest(told.replace('"needless"', '"needles"'))


def test_a_verb_may_need_no_files_of_the_workspace() -> None:
    told = WHOLE.replace('outputs = ["service"', 'workspace = false\noutputs = ["service"')
    assert [parse_manifest(text).verbs[0].workspace for text in (WHOLE, told)] == [True, False]
