import pytest

NOTES = "jobs: {j: {steps: [{id: s, uses: note, with: {name: n, value: %s}}%s]}}"


def folder(bench, run):
    return bench.manager.archive.folder / run["id"] / "jobs" / "j"


async def run_to_failure(bench, text):
    """A run keeps its workspaces only when it has not succeeded."""
    run_id = await bench.start(text)
    assert await bench.manager.wait(run_id) == "failed"
    return bench.manager.inspect(run_id)


FAILING = ", {id: last, uses: note, with: {name: bad}}"


async def test_a_job_of_verbs_that_need_no_files_gets_no_copy_of_the_sources(bench):
    (bench.sources / "file").write_text("x")
    bench.world.failures["last"] = [ValueError("no")]
    run = await run_to_failure(bench, NOTES % ("a", FAILING))
    assert bench.world.values["n"] == "a"
    assert not (folder(bench, run) / "workspace").exists()
    # What a step has said is kept all the same.
    assert "setting n to a" in (folder(bench, run) / "s.log").read_text()


@pytest.mark.parametrize(
    "text",
    [
        NOTES % ("a", FAILING + ", {id: files, uses: set, with: {name: m}}"),
        NOTES % ("\"${{ hash_files('file') }}\"", FAILING),
        NOTES % ("a", FAILING.replace("last, ", "last, undo: {uses: set, with: {name: u}}, ")),
        NOTES % ("a", FAILING.replace("last, ", "last, sources: [file], ")),
        NOTES.replace("{steps", "{artifacts: {a: [file]}, steps") % ("a", FAILING),
    ],
    ids=["a verb that needs them", "an expression", "an undo", "sources", "an artifact"],
)
async def test_whatever_looks_at_files_has_them(bench, text):
    (bench.sources / "file").write_text("x")
    bench.world.failures["last"] = [ValueError("no")]
    run = await run_to_failure(bench, text)
    assert (folder(bench, run) / "workspace" / "file").read_text() == "x"
