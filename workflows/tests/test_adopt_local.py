"""What lies in the same repository is put in: included files, composite actions, called workflows."""

from pathlib import Path

import pytest
import yaml

from linkspan.core.cli.main import run

CI = """\
on: push
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - id: prep
        uses: ./.github/actions/setup
        if: github.ref == 'refs/heads/main'
        env: {LEVEL: high}
        with:
          who: World ${{ github.sha }}
          flag: "true"
          token: ${{ secrets.API_TOKEN }}
          nope: x
      - run: echo ${{ steps.prep.outputs.greeting }}
  image:
    runs-on: ubuntu-latest
    steps:
      - uses: docker/build-push-action@v6
        with:
          push: true
          tags: r.example.test/a:1
          platforms: linux/amd64
          cache-from: |
            type=gha
            type=registry,ref=r.example.test/a:cache
          cache-to: type=registry,ref=r.example.test/a:cache,mode=max
          secrets: |
            token=${{ secrets.API_TOKEN }}
  deploy:
    needs: [test]
    if: github.ref == 'refs/heads/main'
    uses: ./.github/workflows/deploy.yml
    with: {environment: "prod-${{ github.ref_name }}", dry: false, count: 3}
    secrets: inherit
  after:
    needs: deploy
    runs-on: ubuntu-latest
    steps: [{run: "echo ${{ needs.deploy.outputs.url }}"}]
"""

DEPLOY = """\
on:
  workflow_call:
    inputs:
      environment: {type: string, required: true}
      dry: {type: boolean, default: true}
      count: {type: number, default: 1}
    secrets: {API_TOKEN: {required: true}}
    outputs: {url: {description: where, value: "${{ jobs.go.outputs.url }}"}}
jobs:
  go:
    runs-on: ubuntu-latest
    outputs: {url: "${{ steps.d.outputs.url }}"}
    steps:
      - id: d
        run: |
          echo ${{ inputs.environment }} ${{ inputs.dry }}
          echo "url=http://x" >> $GITHUB_OUTPUT
"""

SETUP = """\
name: Setup
inputs:
  who: {description: x, default: nobody}
  flag: {default: "false"}
  token: {required: true}
outputs:
  greeting: {value: "${{ steps.greet.outputs.text }}"}
runs:
  using: composite
  steps:
    - id: greet
      shell: bash
      run: |
        echo "text=Hello ${{ inputs.who }}" >> $GITHUB_OUTPUT
        ${{ github.action_path }}/x.sh
        $GITHUB_ACTION_PATH/y.sh
    - if: inputs.flag == 'true'
      shell: bash
      env: {T: "${{ inputs.token }}"}
      run: curl -H "$T" ${{ inputs.token }}
    - uses: ./.github/actions/inner
      with: {name: "${{ inputs.who }}"}
    - uses: some/action@v1
"""

INNER = """\
inputs: {name: {}}
runs:
  using: composite
  steps:
    - {run: "echo inner ${{ inputs.name }}", shell: bash}
    - {if: "${{ inputs.name != '' }}", run: "true", shell: bash}
"""

GITLAB = """\
include:
  - local: /ci/common.yml
  - 'ci/more*.yml'
  - project: x/y
    file: z.yml
  - local: ci/gone.yml
stages: [build, test]
variables: {A: top}
.setup:
  script: [echo setup, echo two]
build:
  stage: build
  extends: [.base, .cached]
  variables: {B: "2"}
  script:
    - !reference [.setup, script]
    - !reference [.from-common, script]
    - make
  rules:
    - !reference [.rules, rules]
test:
  stage: test
  extends: .base
  script: !reference [.nested, script]
  after_script:
    - !reference [.missing, script]
"""

COMMON = """\
variables: {A: common, C: c}
.base:
  image: alpine:3
  variables: {B: "1", D: d}
  artifacts: {paths: [out], reports: {junit: r.xml}}
.cached: {cache: {key: k, paths: [.cache]}}
.from-common: {script: ["echo common"]}
.rules: {rules: [{if: '$CI_COMMIT_BRANCH == "main"'}]}
lint: {stage: test, image: alpine, script: [lint], tags: [x]}
"""

MORE = """\
.nested: {script: [!reference [.setup, script], "echo nested"]}
"""

FILES = {
    ".github/workflows/ci.yml": CI,
    ".github/workflows/deploy.yml": DEPLOY,
    ".github/actions/setup/action.yml": SETUP,
    ".github/actions/inner/action.yml": INNER,
    ".gitlab-ci.yml": GITLAB,
    "ci/common.yml": COMMON,
    "ci/more1.yml": MORE,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def adopted(name: str) -> dict:
    return yaml.safe_load(Path(f".linkspan/{name}.yaml").read_text().replace("\non:", "\n'on':"))


def test_all_of_it_lints_clean(folder, capsys):
    assert run(["workflow", "adopt"]) == 0
    assert run(["workflow", "lint"]) == 0
    assert "no errors in 3 files" in capsys.readouterr().err


def test_a_composite_action_becomes_its_steps_with_what_the_call_gives(folder, capsys):
    assert run(["workflow", "adopt", ".github/workflows/ci.yml"]) == 0
    said = capsys.readouterr().err
    first, second, inner, last, reader = adopted("ci")["jobs"]["test"]["steps"]
    assert first["id"] == "prep-greet"
    assert "Hello World ${GIT_SHA}" in first["run"]
    assert "/workspace/.github/actions/setup/x.sh" in first["run"]
    assert "/workspace/.github/actions/setup/y.sh" in first["run"]
    assert (first["if"], first["env"]) == ("git.branch == 'main'", {"LEVEL": "high"})
    assert second["if"] == "(git.branch == 'main') && ('true' == 'true')"
    assert second["env"]["T"] == "${{ secrets.API_TOKEN }}"
    assert second["secrets"] == ["API_TOKEN"]
    assert inner["run"] == "echo inner World ${GIT_SHA}"
    assert last["if"] == "(git.branch == 'main') && (format('World {0}', git.sha) != '')"
    assert reader["run"] == "echo ${STEPS_PREP_GREET_TEXT}"
    assert "ci.yml:15  with.nope: the action has no such input" in said
    assert "setup/action.yml:23  uses: some/action@v1" in said


def test_a_called_workflow_is_a_pipeline_beside_it(folder, capsys):
    assert run(["workflow", "adopt", ".github/workflows/ci.yml"]) == 0
    job = adopted("ci")["jobs"]["deploy"]
    assert job["uses"] == "./deploy.yaml"
    assert job["with"] == {"environment": "prod-${{ git.branch }}", "dry": False, "count": 3}
    assert job["needs"] == ["test"]
    called = adopted("deploy")
    assert called["outputs"] == {"url": "${{ needs.go.outputs.url }}"}
    assert called["inputs"]["count"] == {"type": "int", "default": 1}
    assert adopted("ci")["jobs"]["after"]["steps"] == [{"run": "echo ${NEEDS_DEPLOY_URL}"}]


def test_a_pipeline_that_is_written_alone_calls_nothing_that_is_not_there(folder, capsys):
    assert run(["workflow", "adopt", ".github/workflows/ci.yml", "--out", "x.yaml"]) == 0
    assert "adopt that file too" in capsys.readouterr().err
    assert not Path(".linkspan/deploy.yaml").exists()


def test_image_builds_keep_their_caches_and_secrets(folder, capsys):
    assert run(["workflow", "adopt", ".github/workflows/ci.yml"]) == 0
    build = adopted("ci")["jobs"]["image"]["steps"][0]
    assert build["with"] == {
        "platforms": ["linux/amd64"],
        "cache-from": ["r.example.test/a:cache"],
        "cache-to": "r.example.test/a:cache",
        "secret-mounts": {"token": "${{ secrets.API_TOKEN }}"},
    }
    assert build["secrets"] == ["API_TOKEN"]


def test_included_files_extended_jobs_and_references_are_put_in(folder, capsys):
    assert run(["workflow", "adopt", ".gitlab-ci.yml"]) == 0
    said = capsys.readouterr().err
    made = adopted("gitlab-ci")
    assert made["env"] == {"A": "top", "C": "c"}
    build, test = made["jobs"]["build"], made["jobs"]["test"]
    assert build["steps"][0]["run"] == "echo setup\necho two\necho common\nmake"
    assert build["env"] == {"B": "2", "D": "d"}
    assert build["image"] == "alpine:3"
    assert build["cache"] == [{"path": ".cache", "key": ".cache-k", "save": "success"}]
    assert build["if"] == "git.branch == 'main'"
    assert test["steps"][0]["run"] == "echo setup\necho two\necho nested"
    assert test["steps"][0]["reports"] == {"junit": "r.xml"}
    assert ".gitlab-ci.yml:6  include: ci/gone.yml: there is no such file here" in said
    assert ".gitlab-ci.yml:26  !reference [.missing, script]: there is nothing" in said
    assert "ci/common.yml:9  tags:" in said


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("runs: {using: node20, main: x.js}", "a program for the forge's own machines"),
        ("runs: {using: docker, image: Dockerfile}", "build its image with the verb `build`"),
        ("runs: [", "cannot be read"),
        ("", "says nothing that could be run"),
        ("runs: {using: composite, steps: [{uses: ./.github/actions/inner}]}", "in a circle"),
    ],
)
def test_an_action_that_cannot_be_put_in_is_listed(folder, capsys, action, words):
    Path(".github/actions/inner/action.yml").write_text(action)
    assert run(["workflow", "adopt", ".github/workflows/ci.yml"]) == 0
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("include: {local: /../x.yml}\njob: {script: [a]}", "there is no such file here"),
        ("include: 'https://example.test/x.yml'\njob: {script: [a]}", "it lies elsewhere"),
        ("include: /me.yml\njob: {extends: .gone, script: [a]}", "extends: .gone"),
        ("include: /broken.yml\njob: {script: [a]}", "cannot be read"),
        (
            ".a: {script: [!reference [.a, script]]}\njob: {script: !reference [.a, script]}",
            "circle",
        ),
    ],
)
def test_what_gitlab_files_cannot_give_is_listed(folder, capsys, text, words):
    Path("me.yml").write_text("include: /me.yml\n")
    Path("broken.yml").write_text("a: [\n")
    Path(".gitlab-ci.yml").write_text(text)
    assert run(["workflow", "adopt", ".gitlab-ci.yml"]) == 0
    assert words in capsys.readouterr().err


def test_secrets_of_compose_are_files_of_the_deployed_service(folder, capsys):
    Path("compose.yaml").write_text("""\
services:
  web:
    image: app
    secrets: [db-password, {source: key, target: /run/secrets/tls.key}, {source: key, target: /etc/x}]
secrets:
  db-password: {file: ./db.txt}
  key: {environment: KEY}
""")
    assert run(["workflow", "adopt", "compose.yaml", "--out", "c.yaml"]) == 0
    said = capsys.readouterr().err
    made = yaml.safe_load(Path("c.yaml").read_text())
    (step,) = made["jobs"]["deploy"]["steps"]
    assert step["secrets"] == ["DB_PASSWORD", "KEY"]
    assert step["with"]["secrets"] == {
        "db-password": "${{ secrets.DB_PASSWORD }}",
        "tls.key": "${{ secrets.KEY }}",
    }
    assert made["secrets"].keys() == {"DB_PASSWORD", "KEY"}
    assert "linkspan workflow secret set DB_PASSWORD --from-file ./db.txt" in said
    assert "secrets: key: secrets are files below /run/secrets" in said
    assert run(["workflow", "lint", "c.yaml"]) == 0
