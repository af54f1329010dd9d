"""Bad input and faults of pipelines, and the test that proves each.

Each line names a fault, then a file and (beginnings of) the tests in it; they must be there.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

FAULTS = """
the 28 messages, each with id, place, caret and help | workflows/tests/test_bad_pipelines.py | test_a_wrong_pipeline_gets_its_answer, test_an_example_shows_id_place_caret_and_help
an empty file, 50 MB, binary, deep nesting, no UTF-8, an unknown version | workflows/tests/test_bad_input.py | test_a_file_that_is_no_pipeline_is_answered_with_its_place
an alias bomb | workflows/tests/test_bad_input.py | test_an_alias_bomb_is_refused_before_it_grows
CRLF | workflows/tests/test_bad_input.py | test_windows_line_ends_change_nothing_but_themselves
a secret echoed in eight encodings | workflows/tests/test_hostile_world.py | test_a_secret_echoed_in_eight_encodings
a secret in each form | workflows/tests/test_masking.py | test_a_secret_is_masked_in_every_form
a secret in eight encodings, in a real container | tests/system/test_pipeline_faults.py | test_a_secret_in_eight_encodings
an output of 10 MB of a script | workflows/tests/test_hostile_world.py | test_ten_megabytes_of_outputs_are_refused, test_ten_megabytes_in_one_line
an output of 10 MB of a plugin | workflows/tests/test_plugin_faults.py | test_what_cannot_be_recorded_is_no_output
an output of 10 MB of a real container | tests/system/test_pipeline_faults.py | test_a_secret_in_eight_encodings_and_a_flood
a step killed by a lack of memory | tests/system/test_verbs.py | test_a_step_that_runs_out_of_memory_says_so
a full disk under the journal, after each record | workflows/tests/test_hostile_world.py | test_a_disk_that_fills_up_after_any_record
a full disk under the journal, as the command line shows it | workflows/tests/test_cli.py | test_a_full_disk_under_the_journal_interrupts_the_run
a real full disk | tests/system/test_full_disk.py | test_a_workflow_on_a_full_disk
a clock that jumps under a run and its timeouts | workflows/tests/test_hostile_world.py | test_a_clock_that_jumps_in_a_run
a clock that jumps under the order of runs | workflows/tests/test_hostile_world.py | test_the_last_run_is_the_last_one
a clock that jumps under a question | workflows/tests/test_hostile_world.py | test_a_question_survives_a_clock_that_jumps
a clock that jumps under cron | workflows/tests/test_hostile_world.py | test_schedules_go_on_when_a_clock
two runs for one lock, the holder cancelled | workflows/tests/test_units.py | test_a_lock_comes_back_when_its_holder_is_killed
two runs for one lock, the daemon killed | workflows/tests/test_hostile_world.py | test_two_runs_for_one_lock_whose_daemon_is_killed
two runs for one lock, a real daemon killed | tests/system/test_pipeline_faults.py | test_a_lock_whose_holder_was_killed
a plugin that raises | workflows/tests/test_plugin_faults.py | test_whatever_a_plugin_raises, test_a_plugin_that_raises_while_it_undoes
a plugin that hangs | workflows/tests/test_plugin_faults.py | test_a_verb_that_never_returns, test_a_plugin_that_does_not_say_what_became, test_a_plan_of_a_plugin_that_hangs
a plugin that hangs and takes no notice | workflows/tests/test_plugin_faults.py | test_a_verb_that_ignores_its_timeout, test_a_verb_that_ignores_a_cancel, test_what_was_left_behind
a plugin that hangs in the event loop itself | tests/system/test_blocking_plugins.py | test_code_that_blocks, test_a_hook_that_blocks, test_code_that_cannot_be_interrupted
a plugin that vanishes | workflows/tests/test_plugin_faults.py | test_a_plugin_that_vanishes_between_plan_and_run, test_a_plugin_that_vanishes_during_a_run, test_a_plugin_that_vanishes_while_a_person_decides
a plugin that vanishes or changes, on a real daemon | tests/system/test_pipeline_moved.py | test_a_plan_is_refused
Ctrl-C once and twice at every stage | workflows/tests/test_stopped_anywhere.py | test_stopped_once, test_stopped_twice, test_what_was_stopped_can_be_gone_on_with
Ctrl-C once and twice, a real one at a real daemon | tests/system/test_pipeline_stopped.py | test_asked_once, test_asked_twice
Ctrl-C once and twice while a run is taken back | tests/system/test_undo.py | test_what_has_no_way_back_is_named_first_and_whoever_undoes
a time limit that is over | tests/system/test_pipeline_stopped.py | test_a_run_whose_time_is_over
a client that leaves before its run begins | workflows/tests/test_stopped_anywhere.py | test_a_client_that_leaves_while_its_run_is_made
a runner killed at random points | workflows/tests/test_killed_anywhere.py | test_resume_always_reaches_the_same_end
a runner cut off after each record | workflows/tests/test_resume.py | test_a_run_cut_off_after_any_record
a driver that is chosen and not there | workflows/tests/test_use.py | test_a_driver_that_the_daemon_does_not_have
"""  # noqa: E501 - a table
LINES = [tuple(cell.strip() for cell in line.split("|")) for line in FAULTS.strip().splitlines()]


@pytest.mark.parametrize(("fault", "file", "names"), LINES, ids=[line[0] for line in LINES])
def test_the_test_of_a_fault_is_there(fault, file, names):
    there = re.findall(r"^ *(?:async )?def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE)
    for name in names.split(", "):
        assert any(each.startswith(name) for each in there), f"{fault}: {name}"
