"""Reruns: what is kept of the old run, and what is done again; runs of one job; why a run failed."""

import json

import pytest
import trio

from linkspan.sdk.errors import Conflict, InvalidArgument, LinkspanError, NotFound
from linkspan.workflows.again import Again
from linkspan.workflows.creating import NewRun, Rerun

PIPELINE = """
inputs: {v: {type: string, default: "1"}}
jobs:
  build:
    outputs: {id: "${{ steps.make.outputs.id }}"}
    steps:
      - {id: make, run: 'echo id=$INPUT_V > "$LINKSPAN_OUTPUT"; echo built > file'}
      - {id: tag, uses: set, with: {name: tag, value: "v${{ steps.make.outputs.id }}"}}
      - {id: see, run: "cat file"}
  side: {steps: [{id: s, uses: set, with: {name: side, value: done}}]}
  deploy:
    needs: [build]
    steps: [{id: roll, uses: set, with: {name: web, value: "${{ needs.build.outputs.id }}"}}]
finally:
  end: {steps: [{id: e, uses: set, with: {name: end, value: "${{ run.result }}"}}]}
"""


async def rerun(bench, wish, ref="last"):
    made = await bench.manager.rerun(ref, wish)
    await bench.manager.wait(made["id"])
    return bench.manager.inspect(made["id"])


async def test_a_rerun_does_everything_again_in_a_run_of_its_own(bench):
    first = await bench.run(PIPELINE, v="7")
    again = await rerun(bench, Rerun(by="ana"))
    assert again["state"] == "success"
    assert again["id"] != first["id"]
    assert (again["rerun_of"], again["by"], again["inputs"]) == (first["id"], "ana", {"v": "7"})
    assert bench.world.applied.count("tag") == 2


async def test_a_rerun_with_other_inputs_keeps_the_rest(bench):
    await bench.run(PIPELINE, v="7")
    assert (await rerun(bench, Rerun(inputs={"v": "8"})))["inputs"] == {"v": "8"}
    assert bench.world.values["web"] == "8"
    with pytest.raises(InvalidArgument, match="no input 'w'"):
        await bench.manager.rerun("last", Rerun(inputs={"w": "8"}))


async def test_rerun_of_what_failed_keeps_the_jobs_that_succeeded(bench, summarise):
    bench.world.failures["roll"] = [LinkspanError("no")]
    failed = await bench.run(PIPELINE)
    assert failed["state"] == "failed"
    again = await rerun(bench, Rerun(again=Again(failed=True)))
    assert again["state"] == "success"
    assert bench.world.applied.count("tag") == 1
    assert bench.world.applied.count("side") == 0
    assert bench.world.applied.count("s") == 1
    assert bench.world.values["web"] == "1"
    assert again["jobs"][0]["reason"] == f"kept from run {failed['id']}"


async def test_rerun_from_a_step_keeps_what_comes_before_it_and_its_files(bench):
    await bench.run(PIPELINE.replace("cat file", "cat file; test -e go"))
    failed = bench.manager.inspect("last")
    assert failed["state"] == "failed"
    folder = bench.host.state_dir / "runs" / failed["id"] / "jobs" / "build" / "workspace"
    (folder / "go").touch()
    again = await rerun(bench, Rerun(again=Again(start="build/see")))
    assert again["state"] == "success"
    assert bench.world.applied.count("tag") == 1
    assert bench.world.applied.count("s") == 1
    assert bench.world.values["web"] == "1"
    log = bench.host.state_dir / "runs" / again["id"] / "jobs" / "build" / "see.log"
    assert log.read_text().endswith("o built\n")


async def test_rerun_from_a_step_is_told_by_its_name_alone_if_that_is_clear(bench):
    await bench.run(PIPELINE)
    await rerun(bench, Rerun(again=Again(start="roll")))
    assert bench.world.applied.count("tag") == 1
    assert bench.world.applied.count("roll") == 2
    with pytest.raises(NotFound, match="jobs: build, side, deploy, end"):
        await bench.manager.rerun("last", Rerun(again=Again(start="nope")))
    with pytest.raises(NotFound, match="no step 'x'; steps: make, tag, see"):
        await bench.manager.rerun("last", Rerun(again=Again(start="build/x")))


async def test_a_fresh_rerun_takes_the_text_and_sources_of_today(bench):
    await bench.run(PIPELINE)
    (bench.sources / "hello.txt").write_text("changed")
    new = NewRun(
        file="p.yaml",
        text=f"linkspan: v1\ndefaults: {{image: img}}\n{PIPELINE.replace('cat file', 'cat hello.txt')}",
        workspace=bench.sources,
    )
    again = await rerun(bench, Rerun(fresh=new))
    log = bench.host.state_dir / "runs" / again["id"] / "jobs" / "build" / "see.log"
    assert log.read_text().endswith("o changed\n")


async def test_a_rerun_takes_the_images_of_the_first_run(bench):
    first = await bench.run(PIPELINE)
    records = bench.manager.archive.records(first["id"])
    assert [(r["image"], r["id"]) for r in records if r["kind"] == "image-used"] == [
        ("img", "sha256:0")
    ]
    await rerun(bench, Rerun())
    assert bench.engine.containers.made[-1].image == "sha256:0"


async def test_a_run_of_one_job_takes_the_outputs_of_the_last_green_run(bench, summarise):
    await bench.run(PIPELINE, v="7")
    bench.world.values.clear()
    text = f"linkspan: v1\ndefaults: {{image: img}}\n{PIPELINE}"
    new = NewRun(file="p.yaml", text=text, workspace=bench.sources, only="deploy")
    made = await bench.manager.create(new)
    assert await bench.manager.wait(made["id"]) == "success"
    assert bench.world.values == {"web": "7"}
    found = summarise(bench.manager.inspect(made["id"]))
    assert (found["build"], found["side"], found["deploy"]) == ("success", "skipped", "success")


async def test_a_run_of_one_step_does_nothing_else(bench, summarise):
    await bench.run(PIPELINE, v="7")
    bench.world.values.clear()
    text = f"linkspan: v1\ndefaults: {{image: img}}\n{PIPELINE}"
    new = NewRun(file="p.yaml", text=text, workspace=bench.sources, only="build/tag")
    made = await bench.manager.create(new)
    assert await bench.manager.wait(made["id"]) == "success"
    assert bench.world.values == {"tag": "v7"}
    assert bench.manager.archive.green("p").id != made["id"]
    for place in ("nope", "build/nope"):
        wrong = NewRun(file="p.yaml", text=text, workspace=bench.sources, only=place)
        with pytest.raises(NotFound, match="nope"):
            await bench.manager.create(wrong)


async def test_a_run_of_one_job_that_failed_is_resumed_as_such(bench):
    bench.world.failures["roll"] = [LinkspanError("no")]
    text = f"linkspan: v1\ndefaults: {{image: img}}\n{PIPELINE.replace('needs.build.outputs.id', 'inputs.v')}"
    new = NewRun(file="p.yaml", text=text, workspace=bench.sources, only="deploy")
    made = await bench.manager.create(new)
    assert await bench.manager.wait(made["id"]) == "failed"
    assert (await bench.resume(made["id"]))["state"] == "success"
    assert bench.world.applied == ["roll", "roll"]


async def test_why_names_what_changed_since_the_last_green_run_the_likely_first(bench):
    text = "jobs: {a: {env: {%s}, steps: [{id: s, run: 'echo $X; test -n \"$DATABASE_URL\"'}]}}"
    green = await bench.run(text % "DATABASE_URL: x, X: y")
    (bench.sources / "hello.txt").write_text("changed")
    await bench.run(text % "X: DATABASE_URL is missing")
    said = await bench.manager.why("last")
    assert said["against"] == green["id"]
    first = said["differences"][0]
    assert (first["subject"], first["likely"]) == ("pipeline", True)
    assert "DATABASE_URL: x" in first["before"]
    assert {"subject": "sources", "what": "hello.txt"}.items() <= said["differences"][1].items()
    assert said["same"] == ["inputs", "git", "plugins", "drivers", "images", "settings"]


async def test_why_without_a_green_run_says_so(bench):
    await bench.run("jobs: {a: {steps: [{run: exit 1}]}}")
    with pytest.raises(NotFound, match="no run of 'p' has succeeded"):
        await bench.manager.why("last")


async def test_prune_removes_ended_runs_and_leaves_the_rest(bench):
    runs = [(await bench.run("jobs: {a: {steps: [{run: exit 1}]}}"))["id"] for _ in range(3)]
    waiting = await bench.run("jobs: {a: {steps: [{uses: ask, with: {message: x}}]}}")
    active = await bench.start("jobs: {a: {steps: [{run: sleep 60}]}}")
    assert await bench.manager.retention.prune(keep=0, older_than_s=3600) == []
    assert await bench.manager.retention.prune(keep=1) == runs[:2]
    left = {row["id"] for row in bench.manager.list_runs()}
    assert left == {runs[2], waiting["id"], active}
    assert {p.name for p in (bench.host.state_dir / "runs").iterdir()} == left
    await bench.manager.cancel(active, kill=True)
    await bench.manager.wait(active)


async def test_only_one_of_two_who_resume_at_once_goes_on(bench):
    bench.world.failures["s"] = [LinkspanError("no")]
    failed = await bench.run("jobs: {a: {steps: [{id: s, uses: set, with: {name: x}}]}}")
    refused = []

    async def resume():
        try:
            await bench.manager.resume(failed["id"])
        except Conflict as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(resume)
        nursery.start_soon(resume)
    await bench.manager.wait(failed["id"])
    assert len(refused) == 1
    lines = (bench.host.state_dir / "runs" / failed["id"] / "journal.jsonl").read_text()
    assert [json.loads(line)["n"] for line in lines.splitlines()] == list(
        range(1, len(lines.splitlines()) + 1)
    )


LOADED = """
jobs:
  make:
    artifacts: {bin: out}
    steps: [{run: 'echo bin > out; test ! -e broken'}]
  use:
    needs: [make]
    load-artifacts: [bin]
    steps: [{id: cat, run: 'cat out; test -e "$HERE/fixed"'}]
    env: {HERE: "%s"}
"""


async def test_what_kept_jobs_have_kept_is_there_for_those_that_run_again(bench, tmp_path):
    text = LOADED % tmp_path
    failed = await bench.run(text)
    assert failed["state"] == "failed"
    (tmp_path / "fixed").touch()
    for wish in (Again(failed=True), Again(start="use/cat"), Again(start="use")):
        new = (await bench.manager.rerun(failed["id"], Rerun(again=wish)))["id"]
        assert await bench.manager.wait(new) == "success", wish
    # Also of the last run that succeeded, for one job alone; and again, of a run that has them from another.
    full = f"linkspan: v1\ndefaults: {{image: img}}\n{text}"
    alone = NewRun(file="p.yaml", text=full, workspace=bench.sources, only="use")
    assert await bench.manager.wait((await bench.manager.create(alone))["id"]) == "success"
