"""The Go templates that people use with Docker."""

import pytest

from linkspan.core.cli.template import Template, TemplateError

DATA = {
    "Label": lambda name: f"label {name}",
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
        ("{{.State.Absent}}", "<no value>"),
        ("{{with .State}}{{.Absent}}{{end}}", "<no value>"),
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
        ("{{range $i, $e := .Env}}{{if $i}},{{end}}{{$i}}={{$e}}{{end}}", "0=A=1,1=B=2"),
        ("{{range $e := .Env}}{{$.Name}}:{{$e}} {{end}}", "web:A=1 web:B=2 "),
        (
            "{{range $name, $n := .Networks}}{{$name}}={{$n.IPAddress}};{{end}}",
            "a=10.0.0.2;b=10.0.0.3;",
        ),
        ('{{range .Env}}{{if eq . "A=1"}}{{continue}}{{end}}{{.}}{{end}}', "B=2"),
        ("{{range .Env}}{{.}}{{break}}{{end}}", "A=1"),
        ("{{with .State}}{{.Status}}{{end}}", "running"),
        ("{{with .State.Health}}x{{else}}none{{end}}", "none"),
        ("{{if .Absent}}a{{else if .Ok}}b{{else}}c{{end}}", "b"),
        ("{{if and .Ok (gt .Count 2)}}yes{{end}}", "yes"),
        ("{{or .Absent .Name}}", "web"),
        ("{{not .Ok}}", "false"),
        ("{{if or (eq .Count 1) (le .Count 3)}}yes{{end}}", "yes"),
        (
            '{{printf "%-6s|%03d|%.1f|%q|%v%%" .Name .Count 2.55 .Id .Env}}',
            'web   |003|2.5|"abc"|[A=1 B=2]%',
        ),
        ('{{printf "%s"}}', "%!s(MISSING)"),
        ('{{printf "%d" .Name}}', "%!d(str=web)"),
        ('{{.Name | printf "%s-%s" .Id}}', "abc-web"),
        ("{{.Env | len | print}}", "2"),
        ('{{split .Name "e" | json}}', '["w","b"]'),
        ('{{join (split .Name "e") "-"}}', "w-b"),
        ("{{pad .Name 1 2}}|", " web  |"),
        ("{{truncate .Name 2}}", "we"),
        ("{{title .Name}}", "Web"),
        ("{{slice .Name 1 3}}", "eb"),
        ("{{slice .Env 1}}", "[B=2]"),
        ("{{$x := .Name}}{{$x}}-{{$x | upper}}", "web-WEB"),
        ("{{$x := 1}}{{range .Env}}{{$x = .}}{{end}}{{$x}}", "B=2"),
        ("{{index .Env 0 | lower}}", "a=1"),
        ('{{(index .Networks "a").IPAddress | len}}', "8"),
        ("{{print 1 2 .Name 3}}", "1 2web3"),
        ('{{html "<b>"}} {{urlquery "a b"}}', "&lt;b&gt; a+b"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ('{{`raw "text"`}}', 'raw "text"'),
        ('{{"tab:\\u0041"}}', "tab:A"),
        ("{{len .Name}}{{/* remark */ -}}   x", "3x"),
        ('{{.Label "a"}}', "label a"),
        ("{{1.5}} {{0x10}} {{-3}}", "1.5 16 -3"),
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
        "{{else}}",
        "{{if .Ok}}{{else}}x{{else}}y{{end}}",
        "{{range .Count.Absent.X}}",
        "{{range .Name}}x{{end}}",
        "{{$absent}}",
        "{{$x = 1}}",
        "{{(.Name}}",
        "{{.Name)}}",
        "{{.Name |}}",
        "{{| upper}}",
        '{{"open}}',
        "{{index .Env 7}}",
        "{{slice .Name 9}}",
        "{{gt .Name 1}}",
        "{{join .Env}}",
        "{{printf 3}}",
        "{{if}}x{{end}}",
    ],
)
def test_what_cannot_be_read_is_a_template_error(template: str) -> None:
    with pytest.raises(TemplateError):
        Template(template).render(DATA)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Nmae}}", r"there is no field \.Nmae: did you mean \.Name\?"),
        ("{{.Zzz.Deeper}}", r"there is no field \.Zzz$"),
    ],
)
def test_a_field_that_is_not_there_is_told(template: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        Template(template).render(DATA)
