"""Secret and untrusted values: where they may go, what they are carried by, and where they are refused."""

import pytest
from installed_plugins import VERBS

from linkspan.workflows.check import check
from linkspan.workflows.files import SentFiles

HEAD = """\
linkspan: v1
defaults: {image: busybox}
secrets: {TOKEN: {from: file}, OTHER: {from: file}}
inputs: {title: {type: string, default: x, untrusted: true}, fine: {type: string, default: y}}
"""


def ids(jobs):
    return [d.id for d in check(HEAD + jobs, "f.yaml", VERBS).errors]


@pytest.mark.parametrize(
    "jobs",
    [
        "jobs: {a: {steps: [{run: x, secrets: [TOKEN], env: {T: '${{ secrets.TOKEN }}'}}]}}",
        "jobs: {a: {steps: [{run: x, secrets: [TOKEN], env: {T: 'a-${{ secrets[\"TOKEN\"] }}'}}]}}",
        "jobs: {a: {secrets: [TOKEN], steps: [{run: x}],"
        " services: {d: {image: x, environment: {P: '${{ secrets.TOKEN }}'}}}}}",
        "jobs: {a: {steps: [{run: x, env: {N: '${{ inputs.title }}'}}]}}",
        "jobs: {a: {if: \"inputs.title == 'x'\", steps: [{run: x}]}}",
        "jobs: {a: {steps: [{run: x}], services: {d: {image: x, command: 'serve ${{ inputs.fine }}'}}}}",
        "jobs: {a: {steps: [{run: x}], services: {d: {image: x, command: [serve, '${{ inputs.title }}']}}}}",
    ],
)
def test_where_it_may_go_it_goes(jobs):
    assert ids(jobs) == []


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        # not granted
        ("jobs: {a: {steps: [{run: x, env: {T: '${{ secrets.TOKEN }}'}}]}}", "LS1305"),
        (
            "jobs: {a: {steps: [{run: x, secrets: [OTHER], env: {T: '${{ secrets.TOKEN }}'}}]}}",
            "LS1305",
        ),
        ("env: {T: '${{ secrets.TOKEN }}'}\njobs: {a: {steps: [{run: x}]}}", "LS1303"),
        ("jobs: {a: {steps: [{run: x, secrets: [NONE]}]}}", "LS1302"),
        # plain places
        ("jobs: {a: {steps: [{run: x}], outputs: {o: '${{ secrets.TOKEN }}'}}}", "LS1303"),
        ("jobs: {a: {lock: '${{ secrets.TOKEN }}', steps: [{run: x}]}}", "LS1303"),
        ("jobs: {a: {if: \"secrets.TOKEN == 'x'\", steps: [{run: x}]}}", "LS1303"),
        (
            "jobs: {a: {steps: [{uses: notify, secrets: [TOKEN], with: {text: '${{ secrets.TOKEN }}'}}]}}",
            "LS1303",
        ),
        # carried by a variable, a function, a list, a choice
        (
            "jobs: {a: {steps: [{uses: notify, secrets: [TOKEN], env: {T: '${{ secrets.TOKEN }}'},"
            " with: {text: '${{ env.T }}'}}]}}",
            "LS1303",
        ),
        (
            "jobs: {a: {steps: [{uses: notify, secrets: [TOKEN], env: {T: '${{ secrets.TOKEN }}'},"
            " with: {text: \"${{ join([env.T, 'x'], '') }}\"}}]}}",
            "LS1303",
        ),
        (
            "jobs: {a: {steps: [{uses: notify, secrets: [TOKEN], env: {T: '${{ secrets.TOKEN }}'},"
            " with: {text: \"${{ success() ? env.T : 'x' }}\"}}]}}",
            "LS1303",
        ),
        # read as code
        (
            "jobs: {a: {steps: [{run: x}], services: {d: {image: x, command: 's ${{ inputs.title }}'}}}}",
            "LS1306",
        ),
        (
            "jobs: {a: {steps: [{run: x}], services: {d: {image: x,"
            " healthcheck: {test: 'ask ${{ git.branch }}'}}}}}",
            "LS1306",
        ),
        ("jobs: {a: {image: 'x:${{ git.branch }}', steps: [{run: x}]}}", "LS1306"),
        (
            "env: {B: '${{ git.tag }}'}\njobs: {a: {image: 'x:${{ env.B }}', steps: [{run: x}]}}",
            "LS1306",
        ),
        (
            "jobs: {a: {env: {B: '${{ git.tag }}'}, steps: [{run: x, image: 'x:${{ env.B }}'}]}}",
            "LS1306",
        ),
    ],
)
def test_where_it_may_not_go_it_is_refused(jobs, expected):
    assert ids(jobs) == [expected]


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        (
            "jobs: {a: {runs-on: ubuntu-latest, image: x, steps: [{run: x}]}}",
            "machines are chosen by",
        ),
        ("jobs: {a: {timeout-minutes: 10, steps: [{run: x}]}}", "timeout: 10m"),
        ("jobs: {a: {container: 'node:20', steps: [{run: x}]}}", "image: NAME"),
        ("jobs: {a: {script: [a, b], steps: [{run: x}]}}", "steps: [{run: a}, {run: b}]"),
        ("stages: [a]\njobs: {a: {steps: [{run: x}]}}", "the order comes from `needs`"),
        ("jobs: {a: {depends_on: [b], steps: [{run: x}]}}", "write `needs`"),
        ("jobs: {a: {steps: [{commands: [x], run: x}]}}", "write `run: |`"),
        ("jobs: {a: {steps: [{uses: actions/checkout@v4}]}}", "remove this step"),
        ("jobs: {a: {steps: [{run: x, secrets: inherit}]}}", "name the secrets this step may read"),
        ("jobs: {a: {steps: [{uses: actions/setup-node@v4}]}}", "image: node:TAG"),
        ("jobs: {a: {steps: [{uses: docker://alpine}]}}", "image: alpine"),
        ("jobs: {a: {steps: [{uses: ./other.yaml}]}}", "jobs: {x: {uses: ./other.yaml}}"),
        ("variables: {A: b}\njobs: {a: {steps: [{run: x}]}}", "write `env`"),
        ("jobs: {a: {steps: [{run: x}], services: {d: {image: x, restart: always}}}}", "remove it"),
    ],
)
def test_habits_of_other_tools_get_their_answer(text, help_):
    found = check(f"linkspan: v1\ndefaults: {{image: x}}\n{text}", "f.yaml", VERBS).errors
    assert [d.id for d in found] == ["LS1009"]
    assert help_ in " ".join(found[0].helps)


def test_depends_on_of_a_service_and_a_wrapped_if_are_no_fault():
    text = (
        "linkspan: v1\ndefaults: {image: x}\njobs: {a: {if: '${{ always() }}', steps: [{run: x}],"
        " services: {d: {image: x}, e: {image: x, depends_on: {d: {condition: service_healthy}}}}}}"
    )
    assert check(text, "f.yaml", VERBS).errors == ()


CALLED = """\
linkspan: v1
inputs: {image: {type: string, default: x}, note: {type: string, default: x}}
outputs: {image: "v-${{ inputs.note }}"}
jobs: {a: {image: "${{ inputs.image }}", env: {NOTE: "${{ inputs.note }}"}, steps: [{run: x}]}}
"""


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ("jobs: {c: {uses: ./c.yaml, with: {image: '${{ inputs.fine }}'}}}", []),
        ("jobs: {c: {uses: ./c.yaml, with: {note: '${{ inputs.title }}'}}}", []),
        # It is code only in the other file.
        (
            "jobs: {c: {uses: ./c.yaml, with: {image: 'x:${{ inputs.title }}'}}}",
            [("LS1306", "c.yaml")],
        ),
        # What a called pipeline, or a job, gives is made of what it was given.
        (
            "jobs: {c: {uses: ./c.yaml, with: {note: '${{ git.branch }}'}},"
            " d: {needs: c, image: '${{ needs.c.outputs.image }}', steps: [{run: x}]}}",
            [("LS1306", "f.yaml")],
        ),
        (
            "jobs: {c: {steps: [{run: x}], outputs: {o: 'a-${{ inputs.title }}'}},"
            " d: {needs: c, image: 'x:${{ needs.c.outputs.o }}', steps: [{run: x}]}}",
            [("LS1306", "f.yaml")],
        ),
    ],
)
def test_an_untrusted_value_stays_so_in_called_pipelines_and_in_outputs(jobs, expected):
    found = check(HEAD + jobs, "f.yaml", VERBS, fetch=SentFiles({"c.yaml": CALLED}))
    assert [(d.id, d.file) for d in found.errors] == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{type: string}", ["LS1306"]),
        ("{type: string, untrusted: false}", []),
        ("{type: string, pattern: '[0-9.]+'}", []),
        ("{type: int}", []),
        ("{type: choice, options: [a, b]}", []),
    ],
)
@pytest.mark.parametrize("provider", ["generic", "github"])
def test_whatever_a_request_may_bring_is_untrusted_unless_it_can_be_no_code(
    spec, expected, provider
):
    text = f"""\
linkspan: v1
on: {{webhook: {{provider: {provider}, secret: HOOK}}}}
secrets: {{HOOK: {{from: file}}}}
inputs: {{version: {spec}}}
jobs: {{a: {{image: "app:${{{{ inputs.version }}}}", steps: [{{run: x}}]}}}}
"""
    found = check(text, "f.yaml", VERBS)
    assert [d.id for d in found.errors] == (expected if provider == "generic" else [])


def warned(text):
    found = check(HEAD + text, "f.yaml", VERBS, fetch=SentFiles({"c.yaml": CALLED}))
    assert found.errors == ()
    return [(d.id, d.file) for d in found.diagnostics if d.id == "LS1306"]


THEN = "{run: y, image: 'x:${{ steps.v.outputs.o }}'}"


@pytest.mark.parametrize(
    "jobs",
    [
        # It is in the step's own variables, by whatever name.
        "jobs: {a: {steps: [{id: v, run: x, env: {N: 'a-${{ inputs.title }}'}}, THEN]}}",
        # Every script has these; this one reads them.
        "jobs: {a: {steps: [{id: v, run: 'echo o=$GIT_BRANCH'}, THEN]}}",
        "jobs: {a: {steps: [{id: v, run: 'echo o=${INPUT_TITLE#a}'}, THEN]}}",
        "env: {B: '${{ git.tag }}'}\njobs: {a: {steps: [{id: v, run: 'echo o=$B'}, THEN]}}",
        "jobs: {a: {env: {B: '${{ git.tag }}'}, steps: [{id: v, run: 'echo o=$B'}, THEN]}}",
        # What a script has made is carried by the next one, by jobs and by called pipelines.
        "jobs: {a: {steps: [{id: u-1, run: 'o=$GIT_TAG'}, {id: v, run: 'o=$STEPS_U_1_X'}, THEN]}}",
        "jobs: {a: {steps: [{id: u, run: 'o=$GIT_TAG'},"
        " {id: v, run: x, env: {N: '${{ steps.u.outputs.x }}'}}, THEN]}}",
        "jobs: {a: {steps: [{id: u, run: 'o=$GIT_TAG'}], outputs: {o: '${{ steps.u.outputs.o }}'}},"
        " b: {needs: a, image: 'x:${{ needs.a.outputs.o }}', steps: [{run: x}]}}",
        "jobs: {a: {steps: [{id: u, run: 'o=$GIT_TAG'}], outputs: {o-o: '${{ steps.u.outputs.o }}'}},"
        " b: {needs: a, steps: [{id: v, run: 'o=$NEEDS_A_O_O'}, THEN]}}",
        "jobs: {a: {steps: [{parallel: [{id: v, run: 'o=$GIT_TAG'}, {run: x}]}, THEN]}}",
    ],
)
def test_what_a_script_makes_of_untrusted_values_is_warned_of_where_it_is_code(jobs):
    assert warned(jobs.replace("THEN", THEN)) == [("LS1306", "f.yaml")]


@pytest.mark.parametrize(
    "jobs",
    [
        "jobs: {a: {steps: [{id: v, run: 'echo o=$GIT_SHA'}, THEN]}}",
        "jobs: {a: {steps: [{id: v, run: 'echo o=$INPUT_FINE', env: {N: '${{ inputs.fine }}'}}, THEN]}}",
        "env: {B: '${{ git.tag }}'}\njobs: {a: {steps: [{id: v, run: 'echo o=1'}, THEN]}}",
        "jobs: {a: {steps: [{id: u, run: 'o=$GIT_TAG'}, {id: v, run: 'o=$STEPS_U_RESULT'}, THEN]}}",
        "jobs: {a: {steps: [{id: v, run: 'o=$GIT_TAG'}, {run: y, env: {N: '${{ steps.v.outputs.o }}'}}]}}",
        "jobs: {a: {steps: [{id: v, run: 'o=$GIT_TAG'}, {run: y, if: \"steps.v.outputs.o == 'x'\"}]}}",
        "jobs:\n  a:\n    steps:\n      - {id: v, run: 'o=$GIT_TAG'}\n"
        "      # linkspan: allow LS1306 it is one of two\n      - THEN\n",
    ],
)
def test_what_a_script_makes_of_anything_else_goes_anywhere(jobs):
    assert warned(jobs.replace("THEN", THEN)) == []


def test_a_called_pipeline_is_warned_too_unless_its_input_has_a_pattern():
    jobs = (
        "jobs: {a: {steps: [{id: v, run: 'o=$GIT_TAG'}], outputs: {o: '${{ steps.v.outputs.o }}'}},"
        " c: {needs: a, uses: ./c.yaml, with: {image: 'x:${{ needs.a.outputs.o }}'}}}"
    )
    assert warned(jobs) == [("LS1306", "c.yaml")]
    checked = CALLED.replace(
        "image: {type: string,", "image: {type: string, pattern: 'x(:[0-9]+)?',"
    )
    found = check(HEAD + jobs, "f.yaml", VERBS, fetch=SentFiles({"c.yaml": checked}))
    assert found.diagnostics == ()
