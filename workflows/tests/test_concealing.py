"""What is made of secrets, and what is called a password, is recorded and shown nowhere."""

import json

import pytest
import trio

from linkspan.sdk.errors import InvalidArgument
from linkspan.workflows.check import check
from linkspan.workflows.concealing import called_secret
from linkspan.workflows.inputs import read_inputs

LOGIN = '{"user": "ana-of-shop", "password": "correct-horse", "pin": 73519, "short": "ab"}'


async def everything(bench, run):
    """All that is kept of a run, but its own text."""
    files = bench.files(run["id"], ".log") + bench.files(run["id"], ".jsonl")
    shown = []
    async with bench.manager.watch(run["id"]) as watcher:
        while batch := await watcher.batch():
            shown += batch
    return "".join(path.read_text() for path in files) + json.dumps(shown)


async def test_a_piece_of_a_secret_is_as_secret_as_the_whole(bench):
    await bench.host.drivers["secrets", ""].put("LOGIN", LOGIN)
    run = await bench.run("""
secrets: {LOGIN: {from: file}}
jobs:
  a:
    secrets: [LOGIN]
    env: {WHOLE: "${{ secrets.LOGIN }}", SHORT: "${{ from_json(secrets.LOGIN).short }}"}
    steps:
      - id: s
        env:
          WORD: "Basic ${{ from_json(env.WHOLE).password }}"
          PIN: "${{ from_json(secrets['LOGIN']).pin }}"
        run: 'echo "in the log: $WORD $PIN"; echo "word=$WORD" > "$LINKSPAN_OUTPUT"; echo "$WORD" | base64'
      - {id: t, uses: set, with: {name: x, value: y, token: "${{ from_json(secrets.LOGIN).user }}"}}
""")
    assert run["state"] == "success", run
    kept = await everything(bench, run)
    assert "in the log: Basic *** ***" in kept
    for piece in ("correct-horse", "73519", "ana-of-shop", "Y29ycmVjdC1ob3JzZ"):
        assert piece not in kept
    assert run["jobs"][0]["steps"][0]["outputs"] == {"word": "Basic ***"}


async def test_a_password_that_stands_in_the_pipeline_is_masked_in_all_that_comes_of_it(bench):
    seen = []
    bench.world.changed = lambda intent: seen.append(dict(intent.settings))
    run = await bench.run("""
env: {TOP_TOKEN: top-of-the-hill, MODE: production}
jobs:
  a:
    env: {DB_PASSWORD: hunter2-prod}
    services: {db: {image: img, environment: {ROOT_PASSWORD: root-of-all}}}
    steps:
      - id: s
        env: {STEP_TOKEN: step-by-step, LAST_TOKEN: short}
        run: 'echo "$TOP_TOKEN $DB_PASSWORD $MODE root-of-all short"; env | grep step-by'
      - {id: t, uses: set, with: {name: x, value: y, token: pass}}
""")
    assert run["state"] == "success", run
    kept = await everything(bench, run)
    assert "*** *** production *** short" in kept
    for secret in ("top-of-the-hill", "hunter2-prod", "root-of-all", "step-by-step", '"pass"'):
        assert secret not in kept
    assert seen[0]["token"] == "pass"


async def test_a_verb_is_asked_after_a_crash_with_the_password_that_the_journal_does_not_have(
    make_bench,
):
    text = """
jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: y, token: its-password, takes: 60s}}]}}
"""
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        run_id = await bench.start(text)
        with trio.fail_after(20):
            while "s" not in bench.world.applied:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    bench.world.values["x"] = "y"
    async with trio.open_nursery() as nursery:
        bench = await make_bench(nursery)
        run = await bench.resume(run_id)
        assert run["state"] == "success"
        assert run["jobs"][0]["steps"][0]["outputs"]["settings"]["token"] == "***"
        assert bench.world.applied == ["s"]
        assert "its-password" not in await everything(bench, run)
        nursery.cancel_scope.cancel()


async def test_a_password_for_a_verb_that_is_too_short_to_be_masked_is_refused(bench):
    run = await bench.run(
        "jobs: {a: {steps: [{id: t, uses: set, with: {name: x, value: y, token: abc}}]}}"
    )
    assert run["state"] == "failed"
    assert "cannot be masked" in run["jobs"][0]["steps"][0]["error"]["message"]
    assert bench.world.applied == []


NAMES = """
linkspan: v1
defaults: {image: img}
inputs:
  db-password: {type: string, default: ""}
  token_count: {type: int, default: 1}
  tokens: {type: string, default: ""}
  # linkspan: allow LS1304 it is the public half
  key_token: {type: string, default: ""}
jobs: {a: {steps: [{run: 'true'}]}}
"""


async def test_a_password_that_is_given_as_an_input_is_refused_before_anything_is_recorded(bench):
    with pytest.raises(InvalidArgument, match="called like a secret") as refused:
        await bench.start(NAMES, **{"db-password": "hunter2-prod"})
    assert "hunter2" not in str(refused.value)
    assert bench.manager.list_runs() == []
    run = await bench.run(NAMES, token_count="2", tokens="x", key_token="y")
    assert run["inputs"] == {"db-password": "", "token_count": 2, "tokens": "x", "key_token": "y"}


async def test_an_input_that_is_called_like_a_secret_is_warned_of(verbs):
    found = check(NAMES, "p.yaml", verbs)
    assert [(d.id, d.primary.span.line) for d in found.diagnostics] == [("LS1304", 5)]
    assert read_inputs(found.workflow, {})["db-password"] == ""


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("DB_PASSWORD", True),
        ("auth-token", True),
        ("apikey", True),
        ("TOKENS", False),
        ("SECRETARY", False),
        ("PASSWORDLESS", False),
    ],
)
def test_a_name_says_whether_it_means_a_secret(name, secret):
    assert called_secret(name) is secret
