"""What a run does, told by the world it leaves and by its record."""

from contextlib import asynccontextmanager

import pytest
import trio

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.step import Step, StepContext
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    LinkspanError,
    NotFound,
    PermissionDenied,
    Timeout,
    Unavailable,
)
from linkspan.sdk.model.container import HealthStatus
from linkspan.sdk.model.step import StepChange, StepIntent, StepPlan
from linkspan.workflows.config import WorkflowsConfig
from linkspan.workflows.creating import NewRun, Rerun


async def test_jobs_run_as_their_needs_allow_and_hand_on_outputs(bench, summarise):
    run = await bench.run("""
jobs:
  last:
    needs: [middle]
    steps: [{id: s, uses: set, with: {name: last, value: "${{ needs.middle.outputs.out }}!"}}]
  middle:
    needs: [first]
    outputs: {out: "${{ steps.s.outputs.value }}"}
    steps: [{id: s, uses: set, with: {name: middle, value: "${{ needs.first.outputs.word }}"}}]
  first:
    outputs: {word: "${{ steps.say.outputs.word }}"}
    steps: [{id: say, run: 'echo "word=moin" >> "$LINKSPAN_OUTPUT"'}]
""")
    assert run["state"] == "success"
    assert bench.world.values == {"middle": "moin", "last": "moin!"}
    assert set(summarise(run).values()) == {"success"}
    assert bench.engine.events.published == [("start", ""), ("finish", "success")]
    assert bench.engine.containers.all == {}
    assert bench.engine.networks.all == {}


async def test_jobs_without_needs_run_side_by_side(bench):
    await bench.run(
        """
jobs:
  a: {steps: [{run: 'mkfifo "$PIPE" 2>/dev/null || true; echo x > "$PIPE"', env: {PIPE: "%s"}}]}
  b: {steps: [{run: 'mkfifo "$PIPE" 2>/dev/null || true; cat "$PIPE"', env: {PIPE: "%s"}}]}
"""
        % ((bench.sources.parent / "pipe",) * 2)
    )


class _Meeting(Step[NoConfig]):
    """``note``: waits until so many steps are at it, and counts the tasks that live then."""

    def __init__(self, count: int) -> None:
        self.missing = count
        self.all_here = trio.Event()
        self.most_tasks = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, config, host):
        raise NotImplementedError
        yield

    async def plan(self, intent: StepIntent) -> StepPlan:
        return StepPlan(changes=(StepChange(action="none", what="nothing"),))

    async def apply(self, intent: StepIntent, context: StepContext) -> dict:
        self.most_tasks = max(self.most_tasks, trio.lowlevel.current_statistics().tasks_living)
        self.missing -= 1
        if self.missing <= 0:
            self.all_here.set()
        await self.all_here.wait()
        return {}


def _many_jobs(count: int) -> str:
    job = "{steps: [{uses: note, with: {name: a}}]}"
    return "\n".join(("jobs:", *(f"  j{number}: {job}" for number in range(count)), ""))


async def test_however_many_jobs_take_their_time_all_run_side_by_side(bench):
    bench.host.drivers["step", "note"] = _Meeting(300)
    with trio.fail_after(120):
        assert (await bench.run(_many_jobs(300)))["state"] == "success"


async def test_of_very_many_jobs_that_do_little_few_live_at_once(bench):
    bench.host.drivers["step", "note"] = meeting = _Meeting(0)
    before = trio.lowlevel.current_statistics().tasks_living
    assert (await bench.run(_many_jobs(1500)))["state"] == "success"
    assert meeting.most_tasks - before < 500


async def test_a_script_gets_its_values_as_environment_variables(bench):
    run = await bench.run(
        """
inputs: {version: {type: string}, count: {type: int, default: 3}}
env: {TOP: "t-${{ inputs.version }}", CLASH: top}
jobs:
  a:
    outputs: {x: "${{ steps.one.outputs.x }}"}
    steps: [{id: one, run: 'echo x=1 > "$LINKSPAN_OUTPUT"'}]
  b:
    needs: a
    env: {JOB: "j-${{ env.TOP }}", CLASH: job}
    outputs: {all: "${{ steps.env.outputs.all }}"}
    steps:
      - id: env
        env: {STEP: "s-${{ env.JOB }}"}
        run: |
          echo "all=$INPUT_VERSION $INPUT_COUNT $TOP $JOB $STEP $CLASH" \\
            "$NEEDS_A_X $NEEDS_A_RESULT $RUN_NAME" >> $LINKSPAN_OUTPUT
""",
        version="7",
    )
    outputs = run["jobs"][1]["outputs"]
    assert outputs == {"all": "7 3 t-7 j-t-7 s-j-t-7 job 1 success p"}


async def test_steps_of_a_job_share_a_copy_of_the_sources(bench, summarise):
    run = await bench.run("""
jobs:
  a:
    steps:
      - run: cat hello.txt; rm hello.txt
      - run: test ! -e hello.txt; mkdir d
      - {run: touch x, working-directory: d}
      - run: test -e d/x
  b: {needs: a, steps: [{run: cat hello.txt}]}
""")
    assert run["state"] == "success"
    assert (bench.sources / "hello.txt").exists()


async def test_after_a_failure_what_depends_on_it_is_skipped_and_finally_runs(bench, summarise):
    run = await bench.run("""
jobs:
  a:
    steps:
      - {id: bad, run: "echo oops; exit 3"}
      - {id: after, run: "true"}
      - {id: tidy, if: failure(), run: "true"}
  b: {needs: a, steps: [{id: s, run: "true"}]}
  c: {needs: b, if: failure(), steps: [{id: s, run: "true"}]}
  d: {steps: [{id: s, run: "true"}]}
finally:
  end: {steps: [{id: s, uses: set, with: {name: end, value: "${{ run.result }} ${{ needs.a.result }}"}}]}
""")
    assert summarise(run) == {
        "a": "failed",
        "a/bad": "failed",
        "a/after": "skipped",
        "a/tidy": "success",
        "b": "skipped",
        "b/s": "waiting",
        "c": "success",
        "c/s": "success",
        "d": "success",
        "d/s": "success",
        "end": "success",
        "end/s": "success",
    }
    assert run["state"] == "failed"
    assert bench.world.values == {"end": "failed failed"}
    step = run["jobs"][0]["steps"][0]
    assert step["error"]["message"] == "the script ended with exit code 3"
    assert step["error"]["cause"] == "exit:3"
    assert step["tail"] == ["oops"]


async def test_a_warning_does_not_stop_the_rest(bench, summarise):
    run = await bench.run("""
jobs:
  a: {steps: [{id: s, run: exit 1, continue-on-error: true}, {id: t, run: "true"}]}
  b: {needs: a, continue-on-error: "${{ needs.a.result == 'warned' }}", steps: [{id: s, run: exit 1}]}
  c: {needs: b, steps: [{id: s, run: "true"}]}
""")
    assert run["state"] == "warned"
    states = summarise(run)
    assert (states["a"], states["a/s"], states["b"], states["c"]) == (
        "warned",
        "warned",
        "warned",
        "success",
    )


async def test_a_failed_finally_is_the_runs_failure(bench):
    run = await bench.run("""
jobs: {a: {steps: [{run: "true"}]}}
finally: {end: {steps: [{run: exit 1}]}}
""")
    assert run["state"] == "failed"


async def test_a_verb_gets_typed_settings(bench):
    run = await bench.run(
        """
inputs: {n: {type: int, default: 4}}
jobs: {a: {outputs: {s: "${{ to_json(steps.s.outputs.settings) }}"}, steps: [
  {id: s, uses: set, with: {name: x, number: "${{ inputs.n }}", takes: 10ms, value: 3.10}}]}}
"""
    )
    assert run["jobs"][0]["outputs"]["s"] == '{"name":"x","value":"3.10","takes":0.01,"number":4}'


async def test_an_expression_of_the_wrong_type_fails_the_step(bench):
    run = await bench.run("""
jobs: {a: {steps: [{id: s, uses: set, with: {name: x, number: "${{ from_json('\\"4\\"') }}"}}]}}
""")
    error = run["jobs"][0]["steps"][0]["error"]
    assert error["message"] == "'number' must be an int, the expression gave '4'"
    assert bench.world.applied == []


# retry and time


async def test_a_step_is_tried_again_for_the_causes_it_names(bench):
    bench.world.failures["s"] = [Unavailable("gone"), Timeout("slow")]
    run = await bench.run("""
jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: y}, retry: {max: 3, backoff: 1ms, jitter: false}}]}}
""")
    assert run["state"] == "success"
    assert bench.world.applied == ["s", "s", "s"]


async def test_a_permanent_failure_of_a_verb_is_not_tried_again(bench):
    bench.world.failures["s"] = [InvalidArgument("no such thing")]
    run = await bench.run("""
jobs: {a: {steps: [{id: s, uses: set, with: {name: x}, retry: {max: 3, backoff: 1ms}}]}}
""")
    assert run["state"] == "failed"
    assert bench.world.applied == ["s"]


async def test_a_script_is_tried_again_for_its_exit_code(bench):
    run = await bench.run("""
jobs: {a: {steps: [{id: s, run: "echo x >> n; test $(wc -l < n) = 3 || exit 9",
                    retry: {max: 5, backoff: 1ms, on: "exit:9"}}]}}
""")
    assert run["state"] == "success"
    assert run["jobs"][0]["steps"][0]["tries"] == 3


async def test_the_waits_between_tries_grow(bench, autojump_clock):
    bench.world.failures["s"] = [Unavailable("gone")] * 3
    began = trio.current_time()
    await bench.run("""
jobs: {a: {steps: [{id: s, uses: set, with: {name: x},
                    retry: {max: 3, backoff: 10s, factor: 3, max-delay: 50s, jitter: false}}]}}
""")
    assert trio.current_time() - began == pytest.approx(10 + 30 + 50, abs=5)


async def test_a_step_beyond_its_timeout_is_stopped_and_undone(bench):
    bench.world.values["x"] = "old"
    run = await bench.run("""
jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: new, takes: 1h}, timeout: 2s}]}}
""")
    step = run["jobs"][0]["steps"][0]
    assert (step["state"], step["error"]["cause"]) == ("timed-out", "timeout")
    assert step["error"]["message"] == "it took longer than its timeout of 2s"
    assert bench.world.undone == ["s"]


async def test_a_script_beyond_its_timeout_gets_a_signal_and_its_container_is_gone(bench):
    run = await bench.run("""
jobs: {a: {steps: [{id: s, run: "trap 'echo bye; exit 0' TERM; sleep 60 & wait", timeout: 3s, grace: 5s}]}}
""")
    step = run["jobs"][0]["steps"][0]
    assert (step["state"], step["tail"]) == ("timed-out", ["bye"])
    assert bench.engine.containers.all == {}


async def test_a_job_beyond_its_timeout_ends_timed_out(bench, summarise):
    run = await bench.run("""
jobs: {a: {timeout: 2s, steps: [{id: s, uses: set, with: {name: x, takes: 1h}},
                                {id: t, uses: set, with: {name: y}}]}}
""")
    assert summarise(run) == {"a": "timed-out", "a/s": "timed-out", "a/t": "waiting"}
    assert run["state"] == "failed"


# undo


async def test_a_failed_change_is_rolled_back_from_what_was_recorded_before_it(bench):
    bench.world.values["x"] = "old"
    bench.world.failures["s"] = [LinkspanError("unhealthy")]
    run = await bench.run("jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: new}}]}}")
    assert bench.world.values == {"x": "old"}
    step = run["jobs"][0]["steps"][0]
    assert (step["state"], step["undone"]) == ("failed", True)
    assert step["undo"] == {"result": "success", "detail": "back to old"}


async def test_a_later_failure_rolls_back_the_step_it_names(bench):
    bench.world.values["x"] = "old"
    run = await bench.run("""
jobs: {a: {steps: [{id: change, uses: set, with: {name: x, value: new}},
                   {id: smoke, run: exit 1, on-failure: "rollback:change"}]}}
""")
    assert bench.world.values == {"x": "old"}
    assert run["jobs"][0]["steps"][0]["undone"]


async def test_leave_leaves_it(bench):
    bench.world.failures["s"] = [LinkspanError("unhealthy")]
    await bench.run(
        "jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: new}, on-failure: leave}]}}"
    )
    assert bench.world.values == {"x": "new"}
    assert bench.world.undone == []


async def test_a_retried_change_is_undone_to_before_its_first_try(bench):
    bench.world.values["x"] = "old"
    bench.world.failures["s"] = [Unavailable("gone"), Unavailable("gone")]
    await bench.run("""
jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: new}, retry: {max: 1, backoff: 1ms}}]}}
""")
    assert bench.world.applied == ["s", "s"]
    assert bench.world.values == {"x": "old"}


async def test_a_failed_undo_is_told(bench):
    bench.world.failures["s"] = [LinkspanError("unhealthy")]
    bench.world.undo_fails = True
    run = await bench.run("jobs: {a: {steps: [{id: s, uses: set, with: {name: x, value: new}}]}}")
    assert run["jobs"][0]["steps"][0]["undo"] == {
        "result": "failed",
        "detail": "the world is stuck",
    }


# services


async def test_services_are_up_before_the_first_step_and_gone_after_the_last(bench):
    run = await bench.run("""
jobs:
  a:
    services:
      db:
        image: img
        environment: {MODE: "${{ inputs.m }}"}
        healthcheck: {test: [CMD, check], interval: 1s}
    steps: [{run: "true"}]
inputs: {m: {type: string, default: fast}}
""")
    assert run["state"] == "success"
    service, script = bench.engine.containers.made
    assert service.env == ("MODE=fast",)
    assert service.network_mode == script.network_mode == f"linkspan-{run['id']}-a"
    assert service.networks[service.network_mode].aliases == ("db",)
    assert bench.engine.containers.all == {}
    assert bench.engine.networks.all == {}


async def test_a_service_that_is_unhealthy_fails_the_job_with_its_last_lines(bench, summarise):
    bench.engine.health = HealthStatus.UNHEALTHY
    run = await bench.run("""
jobs: {a: {services: {db: {image: img, healthcheck: {test: check}}}, steps: [{id: s, run: "true"}]}}
""")
    assert run["jobs"][0]["error"]["message"] == "service 'db' is unhealthy before the first step"
    assert summarise(run) == {"a": "failed", "a/s": "waiting"}
    ((_, _, log),) = bench.manager.log_files(run["id"])
    assert "db | it cannot start" in log.read_text()


async def test_an_image_that_is_not_here_is_pulled(bench):
    run = await bench.run("jobs: {a: {image: other, steps: [{run: 'true'}]}}")
    assert run["state"] == "success"
    assert bench.engine.images.pulled == ["other"]


async def test_an_image_that_is_nowhere_fails_the_step(bench):
    run = await bench.run("jobs: {a: {image: missing/x, steps: [{run: 'true'}]}}")
    assert "no image 'missing/x'" in run["jobs"][0]["steps"][0]["error"]["message"]


# outputs


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo nonsense", "line 1 of $LINKSPAN_OUTPUT is neither name=value nor name<<END"),
        ("echo 'a b=c'", "'a b' is not a name for an output"),
        ("echo 'a<<E'", "does not end with 'E'"),
        ("head -c 1100000 /dev/zero | tr '\\\\0' x", "more than 1048576 bytes"),
    ],
)
async def test_outputs_that_cannot_be_read_fail_the_step(bench, script, message):
    run = await bench.run(f"""
jobs: {{a: {{steps: [{{id: s, run: "({script}) > $LINKSPAN_OUTPUT"}}]}}}}
""")
    assert message in run["jobs"][0]["steps"][0]["error"]["message"]


async def test_an_output_may_have_several_lines(bench):
    run = await bench.run("""
jobs:
  a:
    outputs: {notes: "${{ steps.s.outputs.notes }}"}
    steps:
      - id: s
        run: |
          printf 'notes<<END\\none\\n\\ntwo=2\\nEND\\n' > "$LINKSPAN_OUTPUT"
""")
    assert run["jobs"][0]["outputs"] == {"notes": "one\n\ntwo=2"}


async def test_the_log_has_every_line_and_memory_only_the_last(bench):
    run = await bench.run("""
jobs: {a: {steps: [{id: s, run: "seq -f 'line %g' 0 2999; printf end; exit 1"}]}}
""")
    ((_, _, path),) = bench.manager.log_files(run["id"], "a", "s")
    lines = [line.split(" ", 2)[2] for line in path.read_text().splitlines()]
    assert lines[:2] == ["line 0", "line 1"]
    assert lines[2999:] == ["line 2999", "end", "the script ended with exit code 1"]
    assert run["jobs"][0]["steps"][0]["tail"][-2:] == ["line 2999", "end"]
    assert len(run["jobs"][0]["steps"][0]["tail"]) < 25


# stopping


async def until(condition):
    """What happens is seen only from outside: a process's file, a verb's note."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.01)


async def started(bench, text, step):
    """Start a run and wait until a step of it is applied."""
    run_id = await bench.start(text)
    await until(lambda: step in bench.world.applied)
    return run_id


async def test_cancel_stops_what_runs_then_runs_finally(bench, summarise):
    run_id = await started(
        bench,
        """
jobs:
  a: {steps: [{id: s, uses: set, with: {name: x, takes: 1h}}]}
  b: {needs: a, steps: [{id: s, uses: set, with: {name: y}}]}
finally: {end: {steps: [{id: s, uses: set, with: {name: end, value: "${{ run.result }}"}}]}}
""",
        "s",
    )
    await bench.manager.cancel(run_id, kill=False)
    assert await bench.manager.wait(run_id) == "cancelled"
    assert summarise(bench.manager.inspect(run_id)) == {
        "a": "cancelled",
        "a/s": "cancelled",
        "b": "cancelled",
        "b/s": "waiting",
        "end": "success",
        "end/s": "success",
    }
    assert bench.world.values == {"end": "cancelled"}
    with pytest.raises(Conflict, match="is not running, it is cancelled"):
        await bench.manager.cancel(run_id, kill=False)


async def test_a_second_cancel_ends_finally_too(bench):
    run_id = await started(
        bench,
        """
jobs: {a: {steps: [{id: s, uses: set, with: {name: x, takes: 1h}}]}}
finally: {end: {steps: [{id: e, uses: set, with: {name: end, takes: 1h}}]}}
""",
        "s",
    )
    await bench.manager.cancel(run_id, kill=False)
    await until(lambda: "e" in bench.world.applied)
    await bench.manager.cancel(run_id, kill=True)
    assert await bench.manager.wait(run_id) == "cancelled"
    assert bench.world.values == {}


async def test_a_script_that_ignores_the_signal_is_killed_after_its_grace_or_a_second_cancel(bench):
    run_id = await bench.start("""
jobs: {a: {steps: [{id: s, run: "trap '' TERM; touch ready; while :; do sleep 0.1; done", grace: 1h}]}}
""")
    workspace = bench.host.state_dir / "runs" / run_id / "jobs" / "a" / "workspace"
    await until((workspace / "ready").exists)
    await bench.manager.cancel(run_id, kill=False)
    await trio.sleep(0.1)
    assert bench.manager.inspect(run_id)["state"] == "cancelling"
    await bench.manager.cancel(run_id, kill=True)
    assert await bench.manager.wait(run_id) == "cancelled"
    assert bench.engine.containers.all == {}


# asking


async def test_a_watcher_sees_all_records_from_the_first_and_the_log_as_it_comes(bench):
    run_id = await bench.start("jobs: {a: {steps: [{id: s, run: echo hi}]}}")
    kinds, lines = [], []
    async with bench.manager.watch(run_id) as watcher:
        while batch := await watcher.batch():
            kinds += [event["kind"] for event in batch if "n" in event]
            lines += [event["line"] for event in batch if event["kind"] == "log"]
    expected = ["run-created", "attempt-started", "job-started", "step-started", "image-used"]
    assert kinds == [*expected, "step-finished", "job-finished", "run-finished"]
    assert lines == ["hi"]
    again = []
    async with bench.manager.watch(run_id) as watcher:
        while batch := await watcher.batch():
            again += [event["kind"] for event in batch]
    assert again == kinds


async def test_runs_are_found_by_prefix_and_by_last(bench):
    first = (await bench.run("jobs: {a: {steps: [{run: 'true'}]}}"))["id"]
    assert bench.manager.resolve(first[:3]) == first
    assert bench.manager.resolve("last") == first
    with pytest.raises(NotFound):
        bench.manager.resolve("zzzz")
    assert [row["id"] for row in bench.manager.list_runs()] == [first]


async def test_a_wrong_pipeline_or_input_starts_nothing(bench):
    with pytest.raises(InvalidArgument) as caught:
        await bench.start("jobs: {a: {steps: [{uses: nothing}]}}")
    assert caught.value.details["diagnostics"][0]["id"] == "LS1401"
    with pytest.raises(InvalidArgument, match="there is no input 'y'"):
        await bench.start("jobs: {a: {steps: [{run: 'true'}]}}", y="1")
    assert bench.manager.list_runs() == []
    assert list((bench.host.state_dir / "runs").iterdir()) == []


async def test_a_service_is_made_as_its_keys_say(bench):
    run = await bench.run("""
jobs:
  a:
    services:
      db:
        image: img
        ports: ["127.0.0.1:8080:80", "53/udp"]
        volumes: ["data:/data", "./conf:/conf:ro"]
        mem_limit: 64Mi
        shm_size: 1Mi
        ulimits: {nofile: 100, nproc: {soft: 5, hard: 9}}
        cap_drop: [ALL]
        init: true
        labels: {x: "${{ run.name }}"}
        stop_grace_period: 2s
        healthcheck: {test: [CMD, "true"], start_interval: 1s}
    steps: [{run: 'true'}]
""")
    assert run["state"] == "success", run
    spec = bench.engine.containers.made[0]
    assert [(p.host_ip, p.host_port, p.container_port, p.protocol) for p in spec.ports] == [
        ("127.0.0.1", 8080, 80, "tcp"),
        ("", 0, 53, "udp"),
    ]
    assert [(m.type, m.target, m.read_only) for m in spec.mounts] == [
        ("volume", "/data", False),
        ("bind", "/conf", True),
    ]
    assert (spec.resources.memory_bytes, spec.shm_size_bytes) == (64 * 2**20, 2**20)
    assert [(u.name, u.soft, u.hard) for u in spec.resources.ulimits] == [
        ("nofile", 100, 100),
        ("nproc", 5, 9),
    ]
    assert (spec.cap_drop, spec.init, spec.stop_timeout_s) == (("ALL",), True, 2)
    assert spec.labels["x"] == "p"
    assert spec.healthcheck.start_interval_s == 1.0


@pytest.mark.parametrize("volume", ["./../..:/x", "/etc:x", "a:/b:rx"])
async def test_a_volume_that_is_none_or_leads_away_fails_the_job(bench, volume):
    run = await bench.run(f"""
inputs: {{v: {{type: string, default: "{volume}"}}}}
jobs: {{a: {{volumes: ["${{{{ inputs.v }}}}"], steps: [{{run: 'true'}}]}}}}
""")
    assert run["state"] == "failed"
    assert "volume" in run["jobs"][0]["error"]["message"]


async def test_an_untrusted_pipeline_gets_scripts_without_a_way_out_and_nothing_else(bench):
    def new(jobs):
        text = f"linkspan: v1\ndefaults: {{image: img}}\n{jobs}"
        return NewRun(file="p.yaml", text=text, workspace=bench.sources, untrusted=True)

    with pytest.raises(PermissionDenied) as refused:
        await bench.manager.create(
            new("""
secrets: {T: {from: file}}
jobs:
  a:
    volumes: ["/etc:/x"]
    services: {db: {image: img, privileged: true, ports: ["80"]}}
    steps: [{id: s, uses: set, with: {name: x}}, {run: 'true', secrets: [T]}]
""")
        )
    wishes = refused.value.message.splitlines()
    assert wishes[1:] == [
        "- read secrets (T)",
        "- step 'a/s': use the verb 'set'",
        "- job 'a': mount volumes",
        "- service 'a/db': be privileged",
        "- service 'a/db': publish ports",
    ]
    assert bench.manager.list_runs() == []
    made = await bench.manager.create(new("jobs: {a: {steps: [{run: 'true'}]}}"))
    assert await bench.manager.wait(made["id"]) == "success"
    assert bench.engine.networks.specs[-1].internal
    again = await bench.manager.rerun(made["id"], Rerun())
    assert await bench.manager.wait(again["id"]) == "success"
    assert bench.engine.networks.specs[-1].internal


async def test_an_untrusted_pipeline_may_use_the_verbs_that_the_config_allows(make_bench, nursery):
    bench = await make_bench(nursery, WorkflowsConfig(untrusted_verbs=("set",)))
    head = "linkspan: v1\ndefaults: {image: img}\n"
    steps = "{id: s, uses: set, with: {name: x, value: y}%s}"
    for more, code in (("", ""), (", undo: {uses: ask, with: {message: go}}", "untrusted")):
        text = f"{head}jobs: {{a: {{steps: [{steps % more}]}}}}"
        new = NewRun(file="p.yaml", text=text, workspace=bench.sources, untrusted=True)
        if code:
            with pytest.raises(PermissionDenied, match="use the verb 'ask'"):
                await bench.manager.create(new)
        else:
            made = await bench.manager.create(new)
            assert await bench.manager.wait(made["id"]) == "success"
    assert bench.world.values == {"x": "y"}
