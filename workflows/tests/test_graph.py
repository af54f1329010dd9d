"""Drawings of a pipeline's jobs, and the schema for editors."""

import json
import xml.etree.ElementTree as ET

import jsonschema
import pytest
from installed_plugins import VERBS

from linkspan.workflows.check import check
from linkspan.workflows.drawing import as_dot, as_mermaid, as_svg, as_tree, nodes_of
from linkspan.workflows.loading import keys
from linkspan.workflows.reader import Keys
from linkspan.workflows.schema import schema_of

TEXT = """
linkspan: v1
defaults: {image: busybox}
jobs:
  build: {steps: [{uses: build}]}
  test:
    needs: build
    strategy: {matrix: {a: [1, 2], b: [x, y]}}
    steps: [{run: x}]
  ask: {needs: [build, test], steps: [{uses: approve, with: {message: "go?"}}]}
  deploy: {needs: [build, ask], steps: [{uses: deploy, with: {service: web}}]}
  docs: {needs: build, steps: [{run: <x> & "y"}]}
finally:
  report: {steps: [{uses: notify, with: {text: x}}]}
"""


def nodes(text=TEXT):
    found = check(text, "f.yaml", VERBS)
    assert found.workflow is not None
    return nodes_of(found.workflow)


def test_the_tree_shows_who_waits_for_whom():
    assert list(as_tree(nodes())) == [
        "build",
        "├─ test ×4",
        "│  └─ ask  (asks a person)  (also after build)",
        "│     └─ deploy  (also after build)",
        "└─ docs",
        "report  (finally)",
    ]
    assert list(as_tree(nodes(), ascii_only=True))[1] == "|- test ×4"


def test_dot_and_mermaid_have_every_job_and_every_edge():
    dot = "\n".join(as_dot("f", nodes()))
    assert '  "ask" -> "deploy";' in dot
    assert dot.count("->") == 6
    mermaid = list(as_mermaid(nodes()))
    assert mermaid[0] == "flowchart LR"
    assert sum("-->" in line for line in mermaid) == 6


def test_the_svg_is_well_formed_and_has_a_box_for_each_job():
    root = ET.fromstring("\n".join(as_svg("a <b>", nodes())))
    boxes = [node for node in root.iter() if node.tag.endswith("rect")]
    assert len(boxes) == 6
    titles = [node.text or "" for node in root.iter() if node.tag.endswith("title")]
    assert titles[0] == "a <b>"


def test_a_chain_of_ten_thousand_jobs_is_drawn():
    jobs = "\n".join(
        f"  j{n}: {{{f'needs: j{n - 1}, ' if n else ''}steps: [{{run: x}}]}}" for n in range(10_000)
    )
    found = nodes(f"linkspan: v1\ndefaults: {{image: x}}\njobs:\n{jobs}\n")
    assert found[-1].layer == 9_999
    assert sum(1 for _ in as_dot("x", found)) == 20_002


def test_a_circle_cannot_be_drawn():
    text = (
        "linkspan: v1\njobs: {a: {needs: b, steps: [{run: x}]}, b: {needs: a, steps: [{run: x}]}}"
    )
    with pytest.raises(ValueError, match="wait for each other"):
        nodes(text)


def test_the_schema_names_exactly_the_keys_of_the_language():
    schema = schema_of(VERBS)
    found: list[set[str]] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if "^x-" in value.get("patternProperties", {}):
                found.append(set(value["properties"]))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(schema)
    tables = [set(value.known) for value in vars(keys).values() if isinstance(value, Keys)]
    left_out = [set(keys.UNDO.known)]
    assert all(table in found for table in tables if table not in left_out)
    assert all(table in tables for table in found)


def test_the_schema_has_the_settings_of_installed_verbs():
    step = schema_of(VERBS)["$defs"]["step"]
    push = next(
        rule for rule in step["allOf"] if rule["if"]["properties"]["uses"] == {"const": "push"}
    )
    settings = push["then"]["properties"]["with"]
    assert settings["required"] == ["image"]
    assert "digest-file" in settings["properties"]
    json.dumps(schema_of(VERBS))


GOOD = {
    "linkspan": "v1",
    "on": {"push": {"branches": ["main"]}, "schedule": [{"cron": "0 3 * * *"}], "manual": True},
    "inputs": {"n": {"type": "int", "default": 3}},
    "jobs": {
        "a": {
            "image": "x",
            "strategy": {"matrix": {"v": [1, 2], "include": [{"v": 3}]}},
            "services": {"db": {"image": "x", "healthcheck": {"test": "true", "interval": "2s"}}},
            "steps": [
                {"run": "x", "timeout": "10m", "continue-on-error": "${{ matrix.v == '1' }}"},
                {"uses": "push", "with": {"image": "a", "tags": "${{ inputs.n }}"}},
                {"parallel": [{"run": "a"}, {"run": "b"}]},
            ],
        },
        "b": {"uses": "./other.yaml", "needs": "a"},
    },
}


def test_the_schema_takes_what_is_right():
    validator = jsonschema.Draft202012Validator(schema_of(VERBS))
    validator.check_schema(schema_of(VERBS))
    assert [error.message for error in validator.iter_errors(GOOD)] == []


@pytest.mark.parametrize(
    "change",
    [
        {"linkspan": "v2"},
        {"stages": ["a"]},
        {"on": "pull_request"},
        {"jobs": {"a": {"steps": [{"run": "x", "uses": "push", "with": {"image": "a"}}]}}},
        {"jobs": {"a": {"steps": [{"uses": "push"}]}}},
        {"jobs": {"a": {"steps": [{"uses": "push", "with": {"image": "a", "tag": "b"}}]}}},
        {"jobs": {"a": {"steps": [{"run": "x", "timeout": 10}]}}},
        {"jobs": {"a": {"steps": []}}},
        {"jobs": {"1a": {"steps": [{"run": "x"}]}}},
    ],
)
def test_the_schema_refuses_what_is_wrong(change):
    validator = jsonschema.Draft202012Validator(schema_of(VERBS))
    assert list(validator.iter_errors({**GOOD, **change}))
