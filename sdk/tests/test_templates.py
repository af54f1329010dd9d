"""Templates: what docker's CLI 28 printed for them (``data/templates.json``), and what is ours alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from linkspan.sdk.templates import FUNCTIONS, Template, TemplateError
from linkspan.sdk.templates.functions import Function

RECORDED = json.loads((Path(__file__).parent / "data/templates.json").read_text())
DATA: dict[str, Any] = {
    "Label": lambda name: f"label {name}",
    "Id": "abc",
    "Name": "web",
    "Count": 3,
    "Ratio": 0.25,
    "Big": 123456789.0,
    "State": {"Status": "running", "Health": None},
    "Labels": {"a": "1"},
    "Env": ["A=1", "B=2"],
    "Empty": [],
    "Mixed": [1, None, True, "x"],
}


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["template"])
def test_what_dockers_cli_printed_is_printed(case: dict[str, str]) -> None:
    if "error" in case:
        with pytest.raises(TemplateError) as caught:
            Template(case["template"]).render(RECORDED["data"])
        assert str(caught.value) == case["error"]
    else:
        assert Template(case["template"]).render(RECORDED["data"]) == case["output"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # Docker's CLI does so in lists; we do so everywhere.
        (r"{{.Name}}\t{{.Id}}", "web\tabc"),
        # Docker's CLI leaves half a character.
        ('{{truncate "héllo" 2}}', "h"),
        # A name in another case is found: of ID and Id one is Go's, the other the API's.
        ("{{.ID}} {{.name}}", "abc web"),
        ('{{.Label "a"}} {{"b" | .Label}}', "label a label b"),
        ("{{.Labels.absent}}|{{.Labels.absent.deeper}}", "<no value>|<no value>"),
        ("{{.State}} {{.Labels}} {{.Mixed}}", "{running <nil>} map[a:1] [1 <nil> true x]"),
        ("{{.State.Health}} {{print .State.Health}}", "<no value> <nil>"),
        ("{{if .State.Health}}yes{{else}}no{{end}}", "no"),
        ("{{.Ratio}} {{.Big}} {{json .Big}}", "0.25 1.23456789e+08 123456789"),
        ("{{json .Mixed}}", '[1,null,true,"x"]'),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $e := .Env}}{{if $i}},{{end}}{{$e}}{{end}}", "A=1,B=2"),
        ('{{define "line"}}{{.}};{{end}}{{range .Env}}{{template "line" .}}{{end}}', "A=1;B=2;"),
        ('{{block "x" .State}}{{.Status}}{{end}}', "running"),
        ("{{index .Labels `b`}}|", "|"),
        ("{{/* only a remark */}}", ""),
        ("", ""),
    ],
)
def test_what_is_shown(template: str, expected: str) -> None:
    assert Template(template).render(DATA) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Nmae}}", 'map has no entry for key "Nmae": did you mean .Name?'),
        ("{{.Zzz.Deeper}}", 'map has no entry for key "Zzz"'),
        ("{{.State.Statsu}}", 'key "Statsu": did you mean .Status?'),
        ("{{.State.Health.Status}}", "nil pointer evaluating interface {}.Status"),
        ("{{.Label}}", "wrong number of args for Label: want 1 got 0"),
        ("{{truncate .Name `x`}}", "expected integer; found `x`"),
        ("{{upper nil}}", "cannot assign nil to string"),
        ("{{upper .Count}}", "wrong type for value; expected string; got int"),
        ("{{upper .State.Health}}", "invalid value; expected string"),
        ("x\n{{if true}}\n  {{.Zzz}}{{end}}", 'template: :3:4: executing "" at <.Zzz>'),
        ('{{define "a"}}{{.Zzz}}{{end}}{{template "a" .}}', 'executing "a" at <.Zzz>'),
        (
            '{{define "a"}}{{template "a"}}{{end}}{{template "a"}}',
            "exceeded maximum template depth",
        ),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "too deep"),
        ("{{range 3}}x", "unexpected EOF"),
        ("{{.Name\n", "unclosed action"),
    ],
)
def test_a_fault_says_where_and_what(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template).render(DATA)
    assert message in str(caught.value)


def test_functions_can_be_others() -> None:
    functions = {**FUNCTIONS, "env": Function(lambda name: f"<{name}>", ("string",))}
    assert Template('{{env "A"}}', functions=functions).render({}) == "<A>"
    with pytest.raises(TemplateError, match='function "env" not defined'):
        Template('{{env "A"}}')
