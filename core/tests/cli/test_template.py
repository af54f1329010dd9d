"""The Go templates that people use with Docker."""

import pytest

from linkspan.core.cli.template import Template, TemplateError

DATA = {
    "Id": "abc",
    "Name": "web",
    "Count": 3,
    "Ok": True,
    "State": {"Status": "running", "Health": None},
    "Networks": {"a": {"IPAddress": "10.0.0.2"}, "b": {"IPAddress": "10.0.0.3"}},
    "Env": ["A=1", "B=2"],
    "Empty": [],
    "Ports": {"80/tcp": [{"HostPort": "8080"}]},
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Name}}", "web"),
        ("{{ .ID }}-{{.Count}}", "abc-3"),
        ("{{.State.Status}}", "running"),
        ("{{.Absent}}", "<no value>"),
        ("{{.State.Absent.Deeper}}", "<no value>"),
        ("{{json .Env}}", '["A=1","B=2"]'),
        ("{{json .State}}", '{"Status":"running","Health":null}'),
        ("{{.Env}}", "[A=1 B=2]"),
        ("{{.State}}", "map[Health:<no value> Status:running]"),
        ("{{range .Networks}}{{.IPAddress}} {{end}}", "10.0.0.2 10.0.0.3 "),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{if .Ok}}yes{{else}}no{{end}}", "yes"),
        ("{{if .State.Health}}yes{{else}}no{{end}}", "no"),
        ('{{join .Env ","}}', "A=1,B=2"),
        ("{{.Name | upper}}", "WEB"),
        ("{{len .Env}}", "2"),
        ("{{index .Env 1}}", "B=2"),
        ('{{(index .Networks "b").IPAddress}}', "10.0.0.3"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .Networks "b"}}', "map[IPAddress:10.0.0.3]"),
        ('{{if eq .Name "web"}}same{{end}}', "same"),
        ("{{.Name}}\\t{{.Id}}", "web\tabc"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{println .Name}}", "web\n"),
        ("{{/* a remark */}}x", "x"),
        ("{{true}} {{.Ok}}", "true true"),
    ],
)
def test_templates(template: str, expected: str) -> None:
    assert Template(template).render(DATA) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "{{.Name",
        "{{}}",
        "{{end}}",
        "{{if .Ok}}x",
        "{{nonsense .Name}}",
        "{{len .Count}}",
        "{{.A .B}}",
    ],
)
def test_what_cannot_be_read_is_a_template_error(template: str) -> None:
    with pytest.raises(TemplateError):
        Template(template).render(DATA)
