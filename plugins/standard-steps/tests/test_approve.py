"""``approve``: the question that a person gets."""

import pytest

from linkspan.plugins.standard_steps.approve import ApproveStep
from linkspan.sdk.drivers.step import NeedsDecision
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.step import Question

DEFAULTS = {"minimum": 1, "on-timeout": "reject"}


async def test_it_asks_what_was_written_and_changes_nothing(host, intent, context):
    wish = intent(
        "approve",
        **{
            **DEFAULTS,
            "message": "ship it?",
            "approvers": ["ana", "group:release"],
            "minimum": 2,
            "show": ["plan", "tests"],
            "timeout": 3600.0,
        },
    )
    planned = await ApproveStep(host).plan(wish)
    (change,) = planned.changes
    assert (change.action, change.what) == ("none", "a person decides")
    assert change.detail == "2 of ana, group:release within 1h00m"
    with pytest.raises(NeedsDecision) as asked:
        await ApproveStep(host).apply(wish, context)
    assert asked.value.question == Question(
        message="ship it?",
        approvers=("ana", "group:release"),
        minimum=2,
        timeout_s=3600.0,
        on_timeout="reject",
        show=("plan", "tests"),
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"approvers": ["a b"]}, "is no approver"),
        ({"approvers": ["team:x"]}, "is no approver"),
        ({"show": ["weather"]}, "cannot be shown"),
        ({"minimum": 0}, "at least 1"),
        ({"approvers": ["ana"], "minimum": 2}, "can never be reached"),
    ],
)
async def test_a_question_that_nobody_could_answer_is_refused_in_the_plan(
    host, intent, settings, words
):
    wish = intent("approve", **{**DEFAULTS, "message": "?", **settings})
    with pytest.raises(InvalidArgument, match=words):
        await ApproveStep(host).plan(wish)
