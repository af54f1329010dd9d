"""Settings that name secrets, and requirements that name a plugin by what it is installed from."""

import attrs
import pytest
import trio
from installed_plugins import VERBS

from linkspan.sdk.drivers.step import Step
from linkspan.sdk.manifest import DriverManifest, PluginManifest
from linkspan.workflows.check import check
from linkspan.workflows.verbs import Verbs

TOP = """
linkspan: v1
secrets: {TOKEN: {from: file}, PASSWORD: {from: file}}
"""


@attrs.define
class Taker(Step):
    """``set``, for a test that looks at what a verb is given."""

    given: list = attrs.field(factory=list)

    @classmethod
    def open(cls, config, host):
        raise NotImplementedError

    async def apply(self, intent, context):
        await trio.lowlevel.checkpoint()
        self.given.append((intent.settings["secrets"], dict(context.secrets)))
        return {}


@pytest.mark.parametrize(
    ("written", "values", "granted"),
    [
        ("[TOKEN]", {"TOKEN": "correct-horse"}, {"TOKEN": "correct-horse"}),
        ("{key: TOKEN}", {"key": "correct-horse"}, {"TOKEN": "correct-horse"}),
        (
            "{a: PASSWORD, b: 'x ${{ secrets.TOKEN }}'}",
            {"a": "battery-staple", "b": "x correct-horse"},
            {"PASSWORD": "battery-staple", "TOKEN": "correct-horse"},
        ),
    ],
)
async def test_a_verb_gets_the_values_of_the_secrets_that_a_setting_names(
    bench, written, values, granted
):
    taker = bench.host.drivers["step", "set"] = Taker()
    for name, value in (("TOKEN", "correct-horse"), ("PASSWORD", "battery-staple")):
        await bench.host.drivers["secrets", ""].put(name, value)
    also = "secrets: [TOKEN], " if "secrets.TOKEN" in written else ""
    run = await bench.run(
        f"{TOP}jobs: {{a: {{steps: [{{uses: set, {also}with: {{name: x, secrets: {written}}}}}]}}}}"
    )
    assert run["state"] == "success", run
    assert taker.given == [(values, granted)]
    journal = (bench.host.state_dir / "runs" / run["id"] / "journal.jsonl").read_text()
    assert "correct-horse" not in journal
    assert "battery-staple" not in journal


@pytest.mark.parametrize(
    ("written", "id_"),
    [
        ("[TOEKN]", "LS1302"),
        ("{key: hunter2}", "LS1302"),
        ("[[TOKEN]]", "LS1010"),
        ("{key: '${{ secrets.TOKEN }}'}", "LS1305"),
        ("TOKEN", "LS1010"),
        ("[TOKEN, TOKEN]", ""),
        ("{}", ""),
    ],
)
def test_a_setting_for_secrets_takes_names_of_declared_ones(written, id_):
    text = f"{TOP}jobs: {{a: {{steps: [{{uses: build, with: {{secret-mounts: {written}}}}}]}}}}"
    assert [d.id for d in check(text, "p.yaml", VERBS).diagnostics] == [id_][: bool(id_)]


@pytest.mark.parametrize(
    ("plugin", "id_"),
    [
        ("{plugin: swarm, version: '>=1'}", ""),
        ("{plugin: linkspan-swarm, version: '>=1,<2'}", ""),
        ("{plugin: linkspan-swarm, version: '>=1.2,<2'}", "LS1406"),
        ("{plugin: linkspan-swan, version: '>=1.2,<2'}", "LS1407"),
    ],
)
def test_a_requirement_names_a_plugin_or_what_it_is_installed_from(plugin, id_):
    text = f"linkspan: v1\nrequires: [{plugin}]\njobs: {{a: {{steps: [{{uses: build}}]}}}}"
    found = check(text, "p.yaml", VERBS).diagnostics
    assert [d.id for d in found] == [id_][: bool(id_)]
    if id_ == "LS1407":
        assert found[0].helps == (
            "did you mean 'linkspan-swarm'?",
            "pip install 'linkspan-swan>=1.2,<2'",
        )


KEEPERS = Verbs(
    [
        PluginManifest(
            name="local-secrets",
            version="1",
            drivers=(
                DriverManifest(role="secrets", name="file"),
                DriverManifest(role="secrets", name="env"),
            ),
        )
    ]
)


@pytest.mark.parametrize(
    ("keeper", "helps"),
    [
        ("file", ()),
        ("flie", ("did you mean 'file'?", "pip install linkspan-flie")),
        ("keyring", ("drivers here: file, env", "pip install linkspan-keyring")),
    ],
)
def test_who_keeps_a_secret_has_to_be_installed(keeper, helps):
    text = f"linkspan: v1\nsecrets: {{A: {{from: {keeper}}}}}\njobs: {{a: {{image: x, steps: [{{run: x}}]}}}}"
    found = check(text, "p.yaml", KEEPERS).diagnostics
    assert [(d.id, d.helps) for d in found] == ([("LS1407", helps)] if helps else [])


def test_a_help_that_can_be_pasted_names_who_is_installed():
    text = "linkspan: v1\njobs: {a: {image: x, env: {API_TOKEN: abcdefgh}, steps: [{run: x, secrets: [B]}]}}"
    found = check(text, "p.yaml", KEEPERS).diagnostics
    assert [d.helps for d in found] == [
        ("declare it:  secrets: {API_TOKEN: {from: file}}",),
        ("secrets: {B: {from: file}}",),
    ]
