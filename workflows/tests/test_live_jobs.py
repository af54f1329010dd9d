"""The jobs of a watched run: a line each, the cells of a matrix folded into one."""

from linkspan.workflows.live_jobs import job_rows
from linkspan.workflows.state import JobState, RunState


def job(id_: str, *, cell: str = "", result: str = "", started: bool = True, cleanup: bool = False):
    made = JobState({"id": id_, "cell": cell, "needs": [], "finally": cleanup})
    made.result, made.started, made.duration = result, started, 2.0
    return made


def rows(*jobs, **doing):
    state = RunState()
    state.jobs = {each.id: each for each in jobs}
    return [tuple(row) for row in job_rows(state, doing)]


def test_jobs_have_a_line_each_and_those_of_finally_when_they_begin():
    assert rows(
        job("build", result="success"),
        job("test"),
        job("deploy", started=False),
        job("sweep", started=False, cleanup=True),
        job("report", cleanup=True),
    ) == [
        ("success", "build", "2.0s"),
        ("running", "test", "starting"),
        ("waiting", "deploy", ""),
        ("running", "report", "starting"),
    ]


def test_cells_are_one_line_and_one_more_for_each_that_runs():
    cells = [
        job("test[a]", cell="a", result="success"),
        job("test[b]", cell="b"),
        job("test[c]", cell="c", started=False),
        job("test[d]", cell="d", started=False),
    ]
    assert rows(*cells) == [
        ("running", "test", "1 success  1 running  2 waiting"),
        ("", "  b", "starting"),
    ]


def test_cells_that_have_ended_are_as_good_as_the_worst():
    good = job("test[a]", cell="a", result="success")
    assert rows(good, job("test[b]", cell="b", result="success")) == [
        ("success", "test", "2.0s  2 cells")
    ]
    assert rows(good, job("test[b]", cell="b", result="failed")) == [
        ("failed", "test", "1 success  1 failed")
    ]


def test_a_thousand_cells_that_wait_are_one_line():
    many = [job(f"test[{n}]", cell=str(n), started=False) for n in range(1000)]
    assert rows(*many) == [("waiting", "test", "1000 waiting")]
