"""Caches, artifacts, and steps that are skipped because nothing has changed."""

import attrs
import pytest
import trio

from linkspan.sdk.drivers.step import Step
from linkspan.sdk.model.step import StepOutcome
from linkspan.workflows.creating import NewRun
from linkspan.workflows.fileglobs import hash_of, matching
from linkspan.workflows.keeping import KeyedStore

CACHE = """
jobs:
  a:
    cache: [{path: %s, key: "k-${{ hash_files('hello.txt') }}", restore: [k-]%s}]
    steps:
      - {id: s, run: 'mkdir -p c; cat c/seen 2>/dev/null || echo nothing; date +%%N > c/seen; exit %s'}
"""


def lines_of(bench, run, job="a", step="s"):
    ((_, _, path),) = bench.manager.log_files(run["id"], job, step)
    return [line.split(" ", 2)[2] for line in path.read_text().splitlines()]


async def test_a_cache_is_found_by_what_its_key_says(bench):
    first = await bench.run(CACHE % ("c", "", "0"))
    assert first["state"] == "success", first
    assert lines_of(bench, first)[0] == "nothing"
    second = await bench.run(CACHE % ("c", "", "0"))
    kept = lines_of(bench, second)[0]
    assert kept != "nothing"
    third = await bench.run(CACHE % ("c", "", "0"))
    assert lines_of(bench, third)[0] == kept
    (bench.sources / "hello.txt").write_text("changed")
    fourth = await bench.run(CACHE % ("c", "", "0"))
    # Another key: the newest one that begins so will do, and a new entry is kept.
    assert lines_of(bench, fourth)[0] == kept
    ((_, _, log), *_) = bench.manager.log_files(fourth["id"], "a")
    assert "saved" in log.read_text()


async def test_whoever_watches_is_told_of_caches_and_artifacts(bench):
    text = CACHE.replace("    steps:", "    artifacts: {x: hello.txt}\n    steps:")
    run_id = await bench.start(text % ("c", "", "0"))
    lines = []
    async with bench.manager.watch(run_id) as watcher:
        while batch := await watcher.batch():
            lines += [event["line"] for event in batch if event["kind"] == "log"]
    assert [line for line in lines if line.startswith("artifact")] == ["artifact x: 1 file"]
    assert len([line for line in lines if line.startswith("cache")]) == 2


@pytest.mark.parametrize(
    ("save", "kept"), [("", True), (", save: success", False), (", save: never", False)]
)
async def test_a_cache_is_kept_after_a_failure_too_unless_told_otherwise(bench, save, kept):
    failed = await bench.run(CACHE % ("c", save, "1"))
    assert failed["state"] == "failed"
    again = await bench.run(CACHE % ("c", save, "0"))
    assert (lines_of(bench, again)[0] != "nothing") is kept


async def test_a_cache_outside_of_the_workspace_is_mounted_where_it_belongs(bench):
    await bench.run(CACHE % ("~/.cache/x", "", "0"))
    mounts = bench.engine.containers.made[-1].mounts
    assert mounts[2].target == "/root" + "/.cache/x"


async def test_a_cache_of_a_job_that_was_cancelled_is_kept(bench):
    flag = bench.sources.parent / "flag"
    run_id = await bench.start(f"""
jobs:
  a:
    cache: [{{path: c, key: k}}]
    steps: [{{id: s, run: 'mkdir -p c; echo x > c/seen; touch $F; sleep 60', env: {{F: "{flag}"}}}}]
""")
    while not flag.exists():  # noqa: ASYNC110
        await trio.sleep(0.01)
    await bench.manager.cancel(run_id, kill=False)
    await bench.manager.wait(run_id)
    assert KeyedStore(bench.host.state_dir / "caches").has("k")


def test_an_entry_appears_whole_and_does_not_change(tmp_path):
    store = KeyedStore(tmp_path / "store")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("one")
    assert store.save("k", tmp_path / "a")
    (tmp_path / "a" / "f").write_text("two")
    assert not store.save("k", tmp_path / "a")
    store.restore("k", tmp_path / "b")
    assert (tmp_path / "b" / "f").read_text() == "one"
    assert [path.name for path in (tmp_path / "store").iterdir() if path.name[0] == "."] == []


ARTIFACTS = """
jobs:
  make:
    strategy: {matrix: {n: ["1", "2", "3"]}}
    artifacts: {out: "out/**"}
    steps: [{run: 'mkdir -p out/deep; echo $MATRIX_N > out/deep/file'}]
  single:
    artifacts: {one: [hello.txt, "*.none"]}
    steps: [{run: 'true'}]
  use:
    needs: [make, single]
    load-artifacts: [{name: out, path: in}, {name: one}]
    steps: [{id: s, run: 'rm hello.txt.orig 2>/dev/null; cat in/*/out/deep/file; cat hello.txt'}]
"""


async def test_artifacts_of_cells_with_one_name_lose_no_file(bench):
    run = await bench.run(ARTIFACTS.replace("rm hello.txt.orig 2>/dev/null; ", ""))
    assert run["state"] == "success", run
    assert lines_of(bench, run, "use") == ["1", "2", "3", "hello"]


async def test_an_artifact_that_is_not_there_fails_the_job_and_says_which(bench):
    run = await bench.run("""
jobs:
  a: {artifacts: {out: "nothing/*"}, steps: [{run: 'true'}]}
  b: {artifacts: {out: "nothing/*"}, steps: [{run: 'exit 3'}]}
""")
    assert "no file matches the artifact 'out' (nothing/*)" in run["jobs"][0]["error"]["message"]
    assert run["jobs"][1]["error"] == {}


UNCHANGED = """
jobs:
  a:
    outputs: {v: "${{ steps.s.outputs.v }}"}
    steps:
      - id: s
        run: 'echo ran; wc -c < hello.txt > made.txt; echo v=7 > $LINKSPAN_OUTPUT; exit %s'
        env: {X: "%s"}
        sources: ["*.txt"]
        generates: [made.txt]
      - {id: see, run: cat made.txt}
"""


async def test_a_step_whose_sources_are_the_same_is_skipped_and_says_why(bench, summarise):
    first = await bench.run(UNCHANGED % (0, "a"))
    second = await bench.run(UNCHANGED % (0, "a"))
    step = second["jobs"][0]["steps"][0]
    assert (step["result"], step["reason"]) == ("skipped", f"unchanged since run {first['id']}")
    assert second["jobs"][0]["outputs"] == {"v": "7"}
    assert lines_of(bench, second, step="see") == ["6"]
    for changed in (UNCHANGED % (0, "b"), UNCHANGED.replace("echo ran", "echo run") % (0, "a")):
        run = await bench.run(changed)
        assert summarise(run)["a/s"] == "success"
    (bench.sources / "hello.txt").write_text("longer than before")
    assert summarise(await bench.run(UNCHANGED % (0, "a")))["a/s"] == "success"


async def test_a_failure_is_not_remembered(bench, summarise):
    for _ in range(2):
        assert summarise(await bench.run(UNCHANGED % (1, "a")))["a/s"] == "failed"


async def test_a_verb_is_skipped_only_if_its_plugin_still_sees_the_change(bench, summarise):
    text = """
jobs: {a: {steps: [{id: s, uses: set, sources: [hello.txt], with: {name: x, value: y}}]}}
"""
    await bench.run(text)
    assert summarise(await bench.run(text))["a/s"] == "skipped"
    bench.world.values["x"] = "somebody changed it"
    assert summarise(await bench.run(text))["a/s"] == "success"
    assert bench.world.applied == ["s", "s"]


@attrs.define
class Looker(Step):
    """``set``, for a test that looks at what a verb is asked."""

    asked: list = attrs.field(factory=list)

    @classmethod
    def open(cls, config, host):
        raise NotImplementedError

    async def apply(self, intent, context):
        await trio.lowlevel.checkpoint()
        self.asked.append(("apply", dict(intent.git), dict(intent.outputs)))
        return {"value": "made"}

    async def observe(self, intent):
        await trio.lowlevel.checkpoint()
        self.asked.append(("observe", dict(intent.git), dict(intent.outputs)))
        return StepOutcome(applied=True)


async def test_a_verb_is_told_what_it_gave_and_of_which_commit(bench, summarise):
    looker = bench.host.drivers["step", "set"] = Looker()
    text = """
linkspan: v1
jobs: {a: {steps: [{id: s, uses: set, sources: [hello.txt], with: {name: x}}]}}
"""
    for wanted in ("success", "skipped"):
        new = NewRun(file="p.yaml", text=text, workspace=bench.sources, git={"sha": "abc"})
        run_id = (await bench.manager.create(new))["id"]
        await bench.manager.wait(run_id)
        run = bench.manager.inspect(run_id)
        assert summarise(run)["a/s"] == wanted
        assert run["jobs"][0]["steps"][0]["outputs"] == {"value": "made"}
    assert [(what, git["sha"], given) for what, git, given in looker.asked] == [
        ("apply", "abc", {}),
        ("observe", "abc", {"value": "made"}),
    ]


def test_globs_match_as_one_expects(tmp_path):
    for name in ("a.py", "b.txt", "src/a.py", "src/deep/b.py", "src/deep/[x].py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    def found(*globs):
        return matching(tmp_path, globs)

    assert found("*.py") == ["a.py"]
    assert found("**/*.py") == ["a.py", "src/a.py", "src/deep/[x].py", "src/deep/b.py"]
    assert found("src") == found("src/**") == ["src/a.py", "src/deep/[x].py", "src/deep/b.py"]
    assert found("./b.txt", "src/?.py") == ["b.txt", "src/a.py"]
    assert found("[ab].*") == ["a.py", "b.txt"]
    assert found("[!a].*") == ["b.txt"]
    assert len(found(".")) == 5
    before = hash_of(tmp_path, found("."))
    (tmp_path / "a.py").chmod(0o755)
    assert hash_of(tmp_path, found(".")) != before
