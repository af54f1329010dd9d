"""What was recorded with a secret in it is taken back with the secret, which no record has."""

import base64
import json

import attrs
import pytest
import trio

from linkspan.sdk.drivers.step import Step
from linkspan.sdk.errors import LinkspanError
from linkspan.sdk.model.step import StepPlan

TOKEN = "correct-horse"
LOGIN = '{"user": "ana-of-shop", "password": "battery-staple"}'
HEAD = """
linkspan: v1
defaults: {image: img}
secrets: {TOKEN: {from: file}, LOGIN: {from: file}}
jobs:
  a:
    secrets: [TOKEN, LOGIN]
    steps:
"""
BEARER = "${{ format('Bearer {0}!', secrets.TOKEN) }}"
TWICE = f"""{HEAD}
      - {{id: one, uses: set, with: {{name: web, token: "{BEARER}"}}}}
      - {{id: two, uses: set, with: {{name: web, value: plain}}}}
"""


@attrs.define
class Keeper(Step):
    """``set``, for a world in which values are secrets; its way back signs in with the token."""

    world: object
    signed_in: list = attrs.field(factory=list)
    wishes: list = attrs.field(factory=list)
    stuck: str = ""

    @classmethod
    def open(cls, config, host):
        raise NotImplementedError

    async def plan(self, intent):
        await trio.lowlevel.checkpoint()
        return StepPlan(undo={"before": [self.world.values.get(intent.settings["name"])]})

    async def apply(self, intent, context):
        await trio.lowlevel.checkpoint()
        self.world.applied.append(intent.step)
        wish = intent.settings.get("token") or intent.settings["value"]
        self.wishes.append(wish)
        self.world.values[intent.settings["name"]] = wish
        if failures := self.world.failures.get(intent.step):
            raise failures.pop(0)
        return {}

    async def undo(self, intent, context):
        await trio.lowlevel.checkpoint()
        if intent.step == self.stuck:
            raise LinkspanError("it is stuck")
        self.signed_in.append((intent.settings.get("token"), context.secrets.get("TOKEN")))
        self.world.values[intent.settings["name"]] = intent.undo["before"][0]
        return {}


def keeper(bench):
    made = bench.host.drivers["step", "set"] = Keeper(bench.world)
    return made


@pytest.fixture
async def vault(bench):
    keeper(bench)
    made = bench.host.drivers["secrets", ""]
    await made.put("TOKEN", TOKEN)
    await made.put("LOGIN", LOGIN)
    return made


def journal(bench, run):
    text = (bench.host.state_dir / "runs" / run["id"] / "journal.jsonl").read_text()
    for secret in (TOKEN, "battery-staple"):
        assert secret not in text
    return text


def told(bench, run):
    return "".join(path.read_text() for path in bench.files(run["id"], ".log"))


async def test_another_daemon_undoes_a_run_with_the_secrets_that_the_journal_refers_to(make_bench):
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        keeper(bench)
        for name, value in (("TOKEN", TOKEN), ("LOGIN", LOGIN)):
            await bench.host.drivers["secrets", ""].put(name, value)
        bench.world.values["web"] = "first"
        run = await bench.run(TWICE)
        assert run["state"] == "success", run
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        stuck = keeper(bench)
        stuck.stuck = "one"
        assert (await bench.manager.undo(run["id"]))["undone"] == "failed"
        assert bench.world.values == {"web": f"Bearer {TOKEN}!"}
        stuck.stuck = ""
        assert (await bench.manager.undo(run["id"]))["undone"] == "success"
        assert bench.world.values == {"web": "first"}
        assert stuck.signed_in == [(None, TOKEN), (f"Bearer {TOKEN}!", TOKEN)]
        journal(bench, run)
        nursery.cancel_scope.cancel()


async def test_a_secret_that_was_changed_is_read_anew(bench, vault):
    run = await bench.run(f"""{HEAD}
      - {{id: s, uses: set, with: {{name: web, value: plain}}, undo: {{uses: set,
          with: {{name: web, token: "${{{{ from_json(secrets.LOGIN).password }}}}"}}}}}}
""")
    assert run["state"] == "success", run
    await vault.put("LOGIN", LOGIN.replace("battery", "barrier"))
    assert (await bench.manager.undo(run["id"]))["undone"] == "success"
    assert bench.world.values == {"web": "barrier-staple"}
    assert "barrier-staple" not in journal(bench, run) + told(bench, run)


async def test_a_secret_that_is_gone_is_named_and_nothing_is_taken_back_without_it(bench, vault):
    run = await bench.run(TWICE)
    await vault.delete("TOKEN")
    assert (await bench.manager.undo(run["id"]))["undone"] == "failed"
    assert bench.world.values == {"web": "plain"}
    said = json.dumps(bench.manager.inspect(run["id"])) + told(bench, run)
    assert "secret 'TOKEN' stood in what the step recorded, and cannot be read" in said
    await vault.put("TOKEN", TOKEN)
    assert (await bench.manager.undo(run["id"]))["undone"] == "success"
    assert bench.world.values == {"web": None}


async def test_a_secret_that_no_record_needs_need_not_be_there(bench, vault):
    run = await bench.run(f"{HEAD}      - {{id: s, uses: set, with: {{name: web, value: x}}}}\n")
    await vault.delete("TOKEN")
    assert (await bench.manager.undo(run["id"]))["undone"] == "success"
    assert "secret 'TOKEN' cannot be read" in told(bench, run)


async def test_a_form_of_a_secret_that_nobody_can_make_again_is_not_put_back_masked(bench, vault):
    encoded = base64.b64encode(TOKEN.encode()).decode()
    bench.world.values["web"] = f"Basic {encoded}"
    run = await bench.run(f"{HEAD}      - {{id: s, uses: set, with: {{name: web, value: x}}}}\n")
    assert (await bench.manager.undo(run["id"]))["undone"] == "failed"
    assert bench.world.values == {"web": "x"}
    assert "in a form that cannot be made again (undo.before.0)" in told(bench, run)


async def test_a_failure_rolls_back_to_what_had_a_secret_in_it_also_after_another_try(bench, vault):
    bench.world.values["web"] = f"Bearer {TOKEN}"
    bench.world.failures["s"] = [LinkspanError("no"), LinkspanError("no again")]
    run = await bench.run(
        f"{HEAD}      - {{id: s, uses: set, with: {{name: web, value: x}},\n"
        "         retry: {max: 1, backoff: 1ms, on: any}}\n"
    )
    assert (run["state"], bench.world.applied) == ("failed", ["s", "s"])
    assert bench.world.values == {"web": f"Bearer {TOKEN}"}
    assert '"***"' not in journal(bench, run)


WRITTEN = """
linkspan: v1
defaults: {image: img}
inputs: {stage: {type: string, default: blue}}
env: {TOP_TOKEN: "top-${{ inputs.stage }}-hill"}
jobs:
  a:
    env: {DB_PASSWORD: hunter2-prod}
    steps:
      - {id: one, uses: set, with: {name: web, token: its-own-password}}
      - {id: two, uses: set, with: {name: web, value: "${{ env.DB_PASSWORD }} of ${{ env.TOP_TOKEN }}"}}
      - id: three
        uses: set
        with: {name: web, value: plain}
        undo: {uses: set, with: {name: web, token: another-password}}
"""


async def test_a_password_that_stands_in_the_pipeline_is_taken_from_there_by_another_daemon(
    make_bench,
):
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        keep = keeper(bench)
        bench.world.values["web"] = "hunter2-prod"
        run = await bench.run(WRITTEN)
        assert run["state"] == "success", run
        assert keep.wishes == ["its-own-password", "hunter2-prod of top-blue-hill", "plain"]
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        keep = keeper(bench)
        assert (await bench.manager.undo(run["id"]))["undone"] == "success"
        assert keep.wishes == ["another-password"]
        assert keep.signed_in == [(None, None), ("its-own-password", None)]
        assert bench.world.values == {"web": "hunter2-prod"}
        kept = journal(bench, run) + told(bench, run) + json.dumps(bench.manager.inspect(run["id"]))
        for password in ("hunter2", "top-blue", "its-own", "another-"):
            assert password not in kept
        nursery.cancel_scope.cancel()


async def test_what_is_gone_or_cannot_be_made_again_may_be_given(bench, vault):
    encoded = base64.b64encode(TOKEN.encode()).decode()
    bench.world.values["web"] = f"Basic {encoded}"
    run = await bench.run(TWICE)
    await vault.delete("TOKEN")
    assert (await bench.manager.undo(run["id"]))["undone"] == "failed"
    assert "or give it: --secret 'TOKEN=VALUE'" in told(bench, run)
    assert bench.world.values == {"web": "plain"}
    assert (await bench.manager.undo(run["id"], secrets={"TOKEN": TOKEN}))["undone"] == "failed"
    assert bench.world.values == {"web": f"Bearer {TOKEN}!"}
    assert "--secret 'a/one.undo.before.0=VALUE'" in told(bench, run)
    given = {"TOKEN": TOKEN, "a/one.undo.before.0": encoded}
    assert (await bench.manager.undo(run["id"], secrets=given))["undone"] == "success"
    assert bench.world.values == {"web": f"Basic {encoded}"}
    assert encoded not in journal(bench, run) + told(bench, run)
