"""The build checks, rule by rule: a file that breaks it, and one like it that does not."""

import pytest

from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.lint import CheckSettings, diagnostic, lint
from linkspan.plugins.dockerfile_builder.stages import parse_dockerfile
from linkspan.plugins.dockerfile_builder.variables import GlobalScope
from linkspan.sdk.diagnostics import render
from linkspan.sdk.dockerignore import IgnorePatterns
from linkspan.sdk.drivers.builder import BuildRequest


def check(text, *, given=None, settings="", images=None, ignored=None):
    dockerfile = parse_dockerfile(text)
    predefined = {"TARGETPLATFORM": "linux/amd64", "BUILDPLATFORM": "linux/amd64"}
    return lint(
        dockerfile,
        settings=CheckSettings.parse(settings or dockerfile.check, "Dockerfile"),
        scope=GlobalScope(given or {}, predefined, dockerfile.global_args),
        environment_of={"scratch": {"PATH": "/bin"}, **(images or {})}.get,
        ignored=IgnorePatterns.parse(ignored) if ignored else None,
    )


BROKEN = [
    ("StageNameCasing", "FROM scratch AS One\n", 1, "Stage name 'One' should be lowercase"),
    ("FromAsCasing", "FROM scratch as one\n", 1, "'as' and 'FROM' keywords' casing do not match"),
    ("NoEmptyContinuation", "FROM scratch\nRUN a \\\n\n b\n", 4, "Empty continuation line"),
    (
        "ConsistentInstructionCasing",
        "FROM scratch\nrun a\nRUN b\n",
        2,
        "Command 'run' should match the case of the command majority (uppercase)",
    ),
    (
        "ConsistentInstructionCasing",
        "from scratch\nRun a\n",
        2,
        "Command 'Run' should match the case of the command majority (lowercase)",
    ),
    (
        "DuplicateStageName",
        "FROM scratch AS a\nFROM scratch AS a\n",
        2,
        'Duplicate stage name "a", stage names should be unique',
    ),
    (
        "ReservedStageName",
        "FROM scratch AS scratch\n",
        1,
        'Stage name should not use the same name as reserved stage "scratch"',
    ),
    (
        "JSONArgsRecommended",
        "FROM scratch\nCMD run it\n",
        2,
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
    ),
    (
        "MaintainerDeprecated",
        "FROM scratch\nMAINTAINER me\n",
        2,
        "Maintainer instruction is deprecated in favor of using label",
    ),
    (
        "UndefinedArgInFrom",
        "ARG VARIANT=a\nFROM busybox:$VARIANTS\n",
        2,
        "FROM argument 'VARIANTS' is not declared (did you mean VARIANT?)",
    ),
    (
        "UndefinedVar",
        "FROM scratch\nENV FOOD=1\nCOPY $foo /\nCOPY $FOOT /\n",
        4,
        "Usage of undefined variable '$FOOT' (did you mean $FOOD?)",
    ),
    (
        "MultipleInstructionsDisallowed",
        'FROM scratch\nCMD ["a"]\nCMD ["b"]\n',
        2,
        "Multiple CMD instructions should not be used in the same stage because only the last"
        " one will be used",
    ),
    (
        "WorkdirRelativePath",
        "FROM scratch\nWORKDIR app/src\n",
        2,
        'Relative workdir "app/src" can have unexpected results if the base image changes',
    ),
    (
        "RedundantTargetPlatform",
        "FROM --platform=${TARGETPLATFORM} scratch\n",
        1,
        "Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the"
        " default behavior",
    ),
    (
        "SecretsUsedInArgOrEnv",
        "FROM scratch\nENV AWS_SECRET_ACCESS_KEY=x\n",
        2,
        'Do not use ARG or ENV instructions for sensitive data (ENV "AWS_SECRET_ACCESS_KEY")',
    ),
    (
        "InvalidDefaultArgInFrom",
        "ARG TAG\nFROM busybox:${TAG}\n",
        2,
        "Default value for ARG busybox:${TAG} results in empty or invalid base image name",
    ),
    (
        "FromPlatformFlagConstDisallowed",
        "FROM --platform=linux/amd64 scratch\n",
        1,
        'FROM --platform flag should not use constant value "linux/amd64"',
    ),
    (
        "LegacyKeyValueFormat",
        "FROM scratch\nENV A b c\n",
        2,
        '"ENV key=value" should be used instead of legacy "ENV key value" format',
    ),
    (
        "ExposeProtoCasing",
        "FROM scratch\nEXPOSE 80/TcP\n",
        2,
        "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase",
    ),
    (
        "ExposeInvalidFormat",
        "FROM scratch\nEXPOSE 127.0.0.1:80:80\n",
        2,
        "EXPOSE instruction should not define an IP address or host-port mapping, found"
        " '127.0.0.1:80:80'",
    ),
]


@pytest.mark.parametrize(("rule", "text", "line", "message"), BROKEN)
def test_a_broken_rule_is_found_at_its_line(rule, text, line, message):
    found = [finding for finding in check(text) if finding.rule == rule]
    assert (found[-1].message, found[-1].line) == (message, line)
    assert [f for f in check(f"# check=skip={rule}\n{text}") if f.rule == rule] == []


@pytest.mark.parametrize(
    "text",
    [
        "from scratch as one\nrun a\nrun b\n",
        'FROM scratch AS one\nFROM one\nCMD ["a"]\nHEALTHCHECK NONE\n',
        'FROM scratch\nSHELL ["/bin/sh", "-ec"]\nCMD run it\n',
        "ARG T=1\nFROM busybox:$T\n",
        "FROM busybox\nCOPY $UNKNOWN /\n",
        "FROM scratch\nARG X\nCOPY $X $PATH/\n",
        "FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b\nWORKDIR c\n",
        "FROM scratch\nENV PUBLIC_KEY=1 KEYBOARD=2\n",
        "ARG BASE=busybox\nFROM ${BASE}\n",
        "FROM --platform=$BUILDPLATFORM scratch\n",
        "FROM --platform=linux/amd64 scratch AS build-amd64\n",
        "FROM scratch\nEXPOSE 80/tcp 90-92 53/udp\n",
        "# one: this comment describes nothing\nFROM scratch AS two\n",
        'FROM scratch\nENTRYPOINT ["x"]\nFROM scratch\nENTRYPOINT ["x"]\n',
    ],
)
def test_what_is_fine_is_left_alone(text):
    assert check(text) == []


def test_variables_of_a_known_base_image_count():
    text = "FROM base\nCOPY $GIVEN $MISSING /\n"
    (found,) = check(text, images={"base": {"GIVEN": "x"}})
    assert found.message == "Usage of undefined variable '$MISSING'"


def test_a_source_that_is_left_out_of_the_context_is_found():
    text = "FROM scratch\nCOPY src/a.log docs /x/\nADD https://a.test/b.log /\nCOPY . /\n"
    (found,) = check(text, ignored="**/*.log\n")
    assert found.rule == "CopyIgnoredFile"
    assert found.message == (
        'Attempting to Copy file "src/a.log" that is excluded by .dockerignore'
    )


def test_descriptions_are_checked_when_asked_for():
    text = "# version of it\nARG VERSION=1\n# build makes it\nFROM scratch AS build\n"
    asked = "experimental=InvalidDefinitionDescription"
    assert check(text) == []
    (found,) = check(text, settings=asked)
    assert (found.rule, found.line) == ("InvalidDefinitionDescription", 2)


def test_all_rules_can_be_skipped():
    assert check("# check=skip=all\nfrom scratch as One\nCMD a\nCMD b\n") == []


def test_a_check_directive_that_cannot_be_read_is_refused():
    for wrong in ("skips=a", "error", "error=maybe"):
        with pytest.raises(DockerfileError, match="check option"):
            check(f"# check={wrong}\nFROM scratch\n")


def test_a_finding_is_drawn_with_its_line():
    dockerfile = parse_dockerfile("FROM scratch\n  CMD run it\n")
    (found,) = check(dockerfile.text)
    assert render(diagnostic(found, dockerfile)).splitlines()[1:] == [
        " --> Dockerfile:2:3",
        "  |",
        "2 |   CMD run it",
        "  |   ^^^^^^^^^^",
    ]


async def test_a_check_builds_nothing_and_tells_faults_too(workshop, tools):
    for text, headlines in (
        ("FROM scratch\nCMD a\n", ["JSONArgsRecommended: JSON arguments recommended"]),
        ("ARG A=${X:?no}\nFROM scratch\n", ['failed to process "${X:?no}": X: no']),
    ):
        context = tools.pieces(tools.tar_of({"Dockerfile": text}))
        found = await workshop.driver.check(BuildRequest(context=context))
        assert len(found) == len(headlines)
        for fault, headline in zip(found, headlines, strict=True):
            assert fault.headline.startswith(headline)
    assert workshop.engine.images.list() == []


async def test_details_tell_steps_and_warnings_to_programs(workshop):
    text = "FROM scratch\nRUN echo hi\nCMD a\n"
    await workshop.build({"Dockerfile": text}, details=True)
    steps = [fact["step"] for fact in workshop.aux if "step" in fact]
    assert [(step["number"], step["state"]) for step in steps] == [
        (1, "begun"),
        (1, "done"),
        (2, "begun"),
        (2, "done"),
        (3, "begun"),
        (3, "done"),
    ]
    assert steps[2]["text"] == "RUN echo hi"
    assert {"log": {"number": 2, "text": "hi\n"}} in workshop.aux
    (warnings,) = [fact["warnings"] for fact in workshop.aux if "warnings" in fact]
    assert [(w["rule"], w["line"]) for w in warnings] == [("JSONArgsRecommended", 3)]
    await workshop.build({"Dockerfile": text}, details=True)
    states = [fact["step"]["state"] for fact in workshop.aux if "step" in fact]
    assert states == ["begun", "done", "begun", "cached", "begun", "done"]
