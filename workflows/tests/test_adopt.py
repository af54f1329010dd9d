"""Files of other tools become pipelines that lint clean; what was lost is listed with its place."""

import json
from pathlib import Path

import pytest

from linkspan.core.cli.main import run
from linkspan.core.plugins.registry import PluginRegistry
from linkspan.workflows.adopting.detect import Source, adopt, find_sources, kind_of
from linkspan.workflows.adopting.expressions import condition, script, translate
from linkspan.workflows.check import check
from linkspan.workflows.verbs import Verbs

VERBS = Verbs(PluginRegistry().discover().manifests.values())

GITHUB = """
name: CI of the shop
on:
  push: {branches: [main], paths-ignore: [docs/**]}
  pull_request:
  schedule: [{cron: '0 3 * * 1-5'}]
  workflow_dispatch:
    inputs:
      level: {description: How much, type: choice, options: [low, high], default: low}
      dry: {type: boolean, default: true}
permissions: {contents: read}
env: {TZ: UTC, WHO: "${{ github.actor }}"}
concurrency: {group: "ci-${{ github.ref_name }}", cancel-in-progress: true}
jobs:
  test:
    runs-on: ubuntu-latest
    timeout-minutes: 15
    strategy:
      fail-fast: false
      matrix: {python: ["3.10", 3.11], os: [linux]}
    services:
      db:
        image: postgres:16
        env: {POSTGRES_PASSWORD: test}
        ports: ["5432:5432"]
        options: --health-cmd "pg_isready -U postgres" --health-interval 10s --health-retries 5
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {python-version: "${{ matrix.python }}", cache: pip}
      - uses: actions/cache@v4
        with: {path: ~/.cache/pip, key: "pip-${{ hashFiles('requirements.txt') }}"}
      - name: tests
        run: |
          pip install -r requirements.txt
          pytest --sha ${{ github.sha }} --level '${{ inputs.level }}' ${{ startsWith(github.sha, 'a') }}
        env: {TOKEN: "${{ secrets.PYPI_TOKEN }}"}
      - uses: codecov/codecov-action@v4
      - uses: actions/upload-artifact@v4
        if: always()
        with: {name: junit report, path: out/junit.xml}
  image:
    needs: test
    runs-on: ubuntu-22.04
    if: github.ref == 'refs/heads/main' && success()
    outputs: {digest: "${{ steps.push.outcome }}"}
    steps:
      - uses: docker/setup-buildx-action@v3
      - uses: docker/login-action@v3
        with: {registry: r.example.test, username: x, password: "${{ secrets.REGISTRY }}"}
      - id: push
        uses: docker/build-push-action@v6
        with:
          context: ./app
          push: true
          tags: |
            r.example.test/shop:${{ github.sha }}
            r.example.test/shop:latest
          build-args: |
            VERSION=1
          platforms: linux/amd64,linux/arm64
          sbom: true
          provenance: mode=max
      - if: contains(github.event.head_commit.message, 'x')
        run: echo never
  deploy:
    needs: [image]
    uses: ./.github/workflows/deploy.yml
    secrets: inherit
"""

COMPOSE = """
name: Shop
services:
  web:
    build: {context: ./web, dockerfile: Dockerfile.prod, args: [A=1], cache_from: [x]}
    ports: ["8080:80", {target: 443, published: 8443}]
    environment: [LEVEL=debug, "HOME_DIR=${HOME}"]
    depends_on: {db: {condition: service_healthy}}
    deploy: {replicas: 3, update_config: {parallelism: 1, order: start-first}, resources: {}}
    command: ["serve", "--all"]
    logging: {driver: json-file}
  db:
    image: postgres:16
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready], interval: 2s, retries: 15}
    restart: unless-stopped
volumes: {data: {}}
networks: {front: {}}
secrets: {s: {file: ./x}}
"""

HARD = """
name: Images
on:
  push: {branches: [main]}
  merge_group:
defaults: {run: {shell: bash}}
concurrency: {group: "${{ github.workflow }}-${{ github.ref }}"}
jobs:
  image:
    name: ${{ matrix.kind }} image
    runs-on: ubuntu-latest
    environment: {name: production, url: "https://shop.example.test"}
    strategy: {matrix: {kind: [web, worker]}}
    container: {image: "node:20", env: {A: b}, options: --cpus 1}
    outputs: {digest: "${{ steps.build.outputs.digest }}", version: "${{ steps.meta.outputs.version }}"}
    services: {db: {image: "postgres:16"}}
    env:
      DB_HOST: localhost
      MODE: ${{ github.ref == 'refs/heads/main' && 'live' || 'trial' }}
      BRANCH: ${{ github.head_ref || github.ref_name }}
      WHO: ${{ matrix.kind || 'nobody' }}
    steps:
      - uses: docker/login-action@v3
        if: github.event_name != 'pull_request'
        with: {username: shop, password: "${{ secrets.HUB_TOKEN }}"}
      - id: meta
        uses: docker/metadata-action@v5
        with:
          images: |
            shop/web
          tags: |
            type=sha
            type=raw,value=latest
            type=semver,pattern={{version}}
      - id: build
        uses: docker/build-push-action@v6
        with:
          push: ${{ github.event_name != 'pull_request' && github.ref == 'refs/heads/main' }}
          tags: ${{ steps.meta.outputs.tags }}
          labels: ${{ steps.meta.outputs.labels }}
      - id: cached
        uses: actions/cache@v4
        with:
          path: |
            node_modules
            .cache
          key: k-${{ github.sha }}
          restore-keys: |
            k-${{ matrix.kind }}
            k-
      - if: steps.cached.outputs.cache-hit != 'true'
        run: npm ci
      - run: |
          [[ "$GITHUB_REF_NAME" = main ]] && echo "at=${{ steps.build.outputs.digest }}" >> "$GITHUB_OUTPUT"
          echo "X=1" >> $GITHUB_ENV; cd $GITHUB_WORKSPACE; echo ${{ steps.meta.outputs.version }}
      - uses: actions/upload-artifact@v4
        if: failure()
        with: {name: "logs-${{ matrix.kind }}", path: ./logs/}
  later:
    needs: image
    runs-on: ubuntu-latest
    steps:
      - uses: actions/download-artifact@v4
        with: {name: "logs-${{ matrix.kind }}", path: ./in}
      - run: cat in/*
"""

HARD_COMPOSE = """
services:
  db:
    image: "maria:${DB_TAG:-10}"
    command: --default-plugin="my native"
    environment: {ROOT_PASSWORD: "${DB_PASSWORD:-guest}", COST: "$$5", MUST: "${MUST:?say it}"}
    healthcheck: {test: "test $$HOME"}
    deploy: {restart_policy: {condition: on-failure, max_attempts: 3}}
    volumes:
      - {type: bind, source: ./conf, target: /etc/my, read_only: true}
      - {type: tmpfs, target: /tmp}
    ports: ["127.0.0.1:3306:3306", "9000-9002:9100-9102/udp", "80", {target: 53, published: 53, protocol: udp}]
"""

GITLAB = """
image: python:3.12
stages: [build, test, deploy]
variables: {CACHE: "$CI_PROJECT_DIR/.cache", IMAGE: r.example.test/shop, TAGGED: "$IMAGE:$CI_COMMIT_SHORT_SHA"}
include: [{template: SAST.gitlab-ci.yml}]
.base: &base
  before_script: [pip install -r requirements.txt]
  retry: {max: 2, when: [runner_system_failure]}
cache: {key: {files: [requirements.txt]}, paths: [.cache/pip/]}
compile:
  stage: build
  extends: .base
  script: [make, 'echo "$CI_COMMIT_SHA ${CI_JOB_TOKEN}"']
  artifacts: {paths: [dist/], expire_in: 1 week}
lint: {stage: test, image: {name: "ruff:1"}, script: ruff check, allow_failure: true, needs: []}
unit tests:
  <<: *base
  stage: test
  services: ["postgres:16", {name: "redis:7", alias: cache}]
  variables: {POSTGRES_DB: test}
  script:
    - |
      if [[ -n "$CI_COMMIT_TAG" ]]; then echo tag; fi
    - pytest --junitxml=out.xml
  after_script: [rm -rf tmp]
  parallel: {matrix: [{PY: ["3.11", "3.12"]}]}
  artifacts: {when: always, reports: {junit: out.xml, dotenv: x}}
  timeout: 1h 30 minutes
  tags: [docker]
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
    - {if: $CI_COMMIT_BRANCH =~ /^draft/, when: never}
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH || $CI_COMMIT_TAG
    - {if: '$CI_COMMIT_TAG =~ /^v[0-9]/', when: always}
deploy:
  stage: deploy
  script: [./deploy.sh]
  environment: {name: production}
  resource_group: production
  only: [main, tags]
  except: [/^wip/]
ship: {stage: deploy, script: docker push $TAGGED, when: manual}
always: {stage: deploy, script: x, rules: [{when: on_success}]}
"""

WOODPECKER = """
when: {event: push, branch: main}
variables:
  - &image golang:1.22
matrix:
  GO: ["1.21", "1.22"]
steps:
  - name: test
    image: *image
    commands: [go vet ./..., go test ./...]
    environment:
      CGO_ENABLED: 0
      TOKEN: {from_secret: my-token}
  - name: notify
    image: plugins/slack
    settings: {channel: dev}
    when: {status: [failure]}
  - name: clean
    image: alpine
    commands: [rm -rf out]
    failure: ignore
    when: {status: [success, failure]}
services:
  - name: cache
    image: redis:7
    ports: [6379]
"""

DOCKERFILE = "FROM scratch\nEXPOSE 8080\nEXPOSE 53/udp\n"

CORPUS = {
    ".github/workflows/ci.yml": GITHUB,
    ".github/workflows/hard.yml": HARD,
    "docker-compose.yml": HARD_COMPOSE,
    "compose.yaml": COMPOSE,
    ".gitlab-ci.yml": GITLAB,
    ".woodpecker.yaml": WOODPECKER,
    "Dockerfile": DOCKERFILE,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    root = tmp_path / "Shop"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return root


def put(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CORPUS[name])
    return path.relative_to(folder)


def adopted(folder, name):
    path = put(folder, name)
    source = Source(path=path, kind=kind_of(path, CORPUS[name]))
    return adopt(source, folder, VERBS)


@pytest.mark.parametrize("name", CORPUS)
def test_what_is_adopted_lints_clean(folder, name):
    result = adopted(folder, name)
    found = check(result.text, ".linkspan/x.yaml", VERBS)
    assert [d.headline for d in found.errors] == [], result.text


def test_a_github_workflow_keeps_its_jobs_and_lists_what_it_lost(folder):
    result = adopted(folder, ".github/workflows/ci.yml")
    workflow = check(result.text, "x.yaml", VERBS).workflow
    test, image = workflow.jobs["test"], workflow.jobs["image"]
    assert [cell.key for cell in test.strategy.matrix.cells] == ["3.10-linux", "3.11-linux"]
    assert test.timeout_s == 900
    assert test.services["db"].healthcheck.test == ("CMD-SHELL", "pg_isready -U postgres")
    assert test.image.parts[0] == "python:"
    assert test.caches[0].path == "~/.cache/pip"
    assert test.artifacts["junit-report"].paths == ("out/junit.xml",)
    (script_step,) = test.steps
    assert "--sha ${GIT_SHA} --level '${INPUT_LEVEL}' ${VALUE_2}" in script_step.run
    assert script_step.secrets == ("PYPI_TOKEN",)
    assert image.condition.source == "git.branch == 'main' && success()"
    assert [step.verb for step in image.steps] == ["login", "build", "push", ""]
    assert image.steps[0].secrets == ("REGISTRY",)
    assert image.steps[1].settings["platforms"] == ("linux/amd64", "linux/arm64")
    assert image.steps[1].settings["sbom"] is True
    assert image.steps[2].settings["provenance"] is True
    assert image.steps[3].condition.source == "false"
    assert workflow.triggers.push.branches == ("main",)
    assert workflow.triggers.push.paths == ("**", "!docs/**")
    assert workflow.inputs["dry"].default is True
    lost = {loss.what for loss in result.losses}
    assert lost >= {
        "on.pull_request",
        "permissions",
        "${{ github.actor }}",
        "cache",
        "uses: codecov/codecov-action@v4",
        "if: contains(github.event.head_commit.message, 'x')",
        "./.github/workflows/deploy.yml",
    }
    places = {loss.what: loss.place for loss in result.losses}
    assert places["on.pull_request"] == ".github/workflows/ci.yml:5"
    assert "# What had no counterpart:" in result.text


def test_a_compose_file_is_built_and_deployed_in_the_order_of_its_needs(folder):
    result = adopted(folder, "compose.yaml")
    workflow = check(result.text, "x.yaml", VERBS).workflow
    assert result.name == "shop"
    (build,) = workflow.jobs["build"].steps
    assert build.settings["context"] == "web"
    assert build.settings["args"] == {"A": "1"}
    database, web = workflow.jobs["deploy"].steps
    assert (database.settings["service"], web.settings["service"]) == ("db", "web")
    assert web.settings["ports"] == ("8080:80", "8443:443")
    assert web.settings["replicas"] == 3
    assert web.settings["update"] == {"parallelism": 1, "order": "start-first"}
    lost = {loss.what for loss in result.losses}
    assert lost >= {"build.cache_from", "web.logging", "deploy.resources"}
    assert workflow.inputs["HOME"].default == ""
    assert web.settings["env"]["HOME_DIR"].parts[0].source == "inputs.HOME"


def test_habits_of_real_workflows_have_counterparts_or_are_listed(folder):
    result = adopted(folder, ".github/workflows/hard.yml")
    workflow = check(result.text, "x.yaml", VERBS).workflow
    job = workflow.jobs["image"]
    assert [step.verb for step in job.steps] == ["login", "build", "push", "", ""]
    login, _, push, never, last = job.steps
    assert login.condition.source == "true"
    assert push.settings["tags"][1] == "shop/web:latest"
    assert push.condition.source == "true && git.branch == 'main'"
    assert never.condition.source == "false"
    assert last.shell == "bash"
    assert '[[ "$GIT_BRANCH" = main ]]' in last.run
    assert '>> "$LINKSPAN_OUTPUT"' in last.run
    assert "cd /workspace" in last.run
    assert job.outputs["digest"].parts[0].source == f"steps.{push.id}.outputs.digest"
    assert job.outputs["version"] == ""
    sources = {
        name: text.parts[0].source for name, text in job.env.items() if hasattr(text, "parts")
    }
    assert sources == {
        "MODE": "git.branch == 'main' ? 'live' : 'trial'",
        "BRANCH": "git.branch",
        "WHO": "matrix.kind != '' ? matrix.kind : 'nobody'",
    }
    assert job.env["A"] == "b"
    assert len(job.caches[1].restore) == 2
    assert job.artifacts["logs"].paths == ("logs/",)
    (load,) = workflow.jobs["later"].load_artifacts
    assert (load.name, load.path) == ("logs", "in")
    lost = [loss.what for loss in result.losses]
    assert lost == [
        "on.merge_group",
        "name",
        "environment.url",
        "container.options",
        "type=semver,pattern={{version}}",
        "labels",
        "if: steps.cached.outputs.cache-hit != 'true'",
        "$GITHUB_ENV",
        "${{ steps.meta.outputs.version }}",
        "if: failure()",
        # Once in the script, and once among the job's outputs.
        "${{ steps.meta.outputs.version }}",
    ]
    assert (
        "DB_HOST: localhost: a service is reached by its name (db), not on this host"
        in result.notes
    )


def test_variables_of_compose_are_inputs_and_commands_are_split_as_there(folder):
    result = adopted(folder, "docker-compose.yml")
    workflow = check(result.text, "x.yaml", VERBS).workflow
    (step,) = workflow.jobs["deploy"].steps
    given = step.settings
    assert given["command"] == ("--default-plugin=my native",)
    assert given["env"]["COST"] == "$5"
    assert given["env"]["ROOT_PASSWORD"] == "guest"
    assert given["healthcheck"]["test"] == ("CMD-SHELL", "test $HOME")
    assert given["restart"] == {"condition": "on-failure", "max-attempts": 3}
    assert given["volumes"] == ("./conf:/etc/my:ro",)
    assert given["ports"] == (
        "3306:3306",
        "9000:9100/udp",
        "9001:9101/udp",
        "9002:9102/udp",
        "53:53/udp",
    )
    assert (workflow.inputs["DB_TAG"].default, workflow.inputs["MUST"].required) == ("10", True)
    assert {loss.what for loss in result.losses} == {
        "${DB_PASSWORD:-guest}",
        "volumes: tmpfs",
        "127.0.0.1:",
        "80",
    }


def test_a_gitlab_file_keeps_its_jobs_and_its_stages_become_needs(folder):
    result = adopted(folder, ".gitlab-ci.yml")
    workflow = check(result.text, "x.yaml", VERBS).workflow
    jobs = workflow.jobs
    assert {name: job.needed for name, job in jobs.items()} == {
        "compile": (),
        "lint": (),
        "unit-tests": ("compile",),
        "deploy": ("compile", "lint", "unit-tests"),
        "ship": ("compile", "lint", "unit-tests"),
        "always": ("compile", "lint", "unit-tests"),
    }
    unit = jobs["unit-tests"]
    assert unit.condition.source == (
        "(!(git.branch =~ '^draft') && (git.branch == 'main' || git.tag != ''))"
        " || (!(git.branch =~ '^draft') && git.tag =~ '^v[0-9]' && always())"
    )
    assert jobs["deploy"].condition.source == (
        "(git.branch == 'main' || git.tag != '') && !(git.branch =~ '^wip')"
    )
    assert (jobs["ship"].condition.source, jobs["always"].condition) == ("false", None)
    assert [cell.key for cell in unit.strategy.matrix.cells] == ["3.11", "3.12"]
    assert unit.env["PY"].sole.source == "matrix.PY"
    assert unit.services["postgres"].environment["POSTGRES_DB"] == "test"
    assert unit.timeout_s == 5400
    first, last = unit.steps
    assert first.run.startswith("pip install")
    assert '[[ -n "$GIT_TAG" ]]' in first.run
    assert (first.shell, first.retry.max, first.retry.on) == ("bash", 2, ("network",))
    assert first.reports == {"junit": "out.xml"}
    assert last.condition.source == "always()"
    assert unit.load_artifacts[0].name == "compile"
    assert jobs["compile"].caches[0].path == ".cache/pip"
    assert workflow.env["TAGGED"].parts[0] == "r.example.test/shop:"
    assert jobs["deploy"].lock == "production"
    assert [loss.what for loss in result.losses] == [
        "include: template",
        "$CI_JOB_TOKEN",
        "reports.dotenv",
        "tags",
        'if: $CI_PIPELINE_SOURCE == "merge_request_event"',
        "when: manual",
    ]


def test_a_woodpecker_pipeline_becomes_one_job(folder):
    result = adopted(folder, ".woodpecker.yaml")
    workflow = check(result.text, "x.yaml", VERBS).workflow
    job = workflow.jobs["pipeline"]
    assert [step.name for step in job.steps] == ["test", "clean"]
    assert job.steps[0].run == "go vet ./...\ngo test ./..."
    assert job.steps[0].secrets == ("MY_TOKEN",)
    assert job.steps[1].continue_on_error is True
    assert job.steps[1].condition.source == "always()"
    assert [loss.what for loss in result.losses] == ["when", "step notify (plugins/slack)"]


def test_a_dockerfile_is_built_and_what_it_exposes_is_deployed(folder):
    result = adopted(folder, "Dockerfile")
    workflow = check(result.text, "x.yaml", VERBS).workflow
    assert workflow.jobs["deploy"].steps[0].settings["ports"] == ("8080:8080",)
    (loss,) = result.losses
    assert (loss.place, loss.what) == ("Dockerfile:3", "EXPOSE 53/udp")


def test_everything_below_a_folder_is_found(folder):
    for name in CORPUS:
        put(folder, name)
    kinds = [source.kind for source in find_sources(Path())]
    assert kinds == ["github", "github", "gitlab", "woodpecker", "compose"]


def test_the_command_writes_pipelines_and_writes_over_none(folder, capsys):
    put(folder, "Dockerfile")
    assert run(["workflow", "adopt"]) == 0
    said = capsys.readouterr()
    assert "Dockerfile → .linkspan/shop.yaml" in said.err
    assert "lost  Dockerfile:3  EXPOSE 53/udp" in said.err
    written = (folder / ".linkspan" / "shop.yaml").read_text()
    assert run(["workflow", "lint"]) == 0
    assert run(["workflow", "adopt"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert run(["workflow", "adopt", "Dockerfile", "--force", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["losses"][0]["place"] == "Dockerfile:3"
    assert run(["workflow", "adopt", "Dockerfile", "--out", "-"]) == 0
    assert capsys.readouterr().out == written


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.yaml", "a: [", "not YAML"),
        ("x.yaml", "just: this\n", "cannot be adopted"),
        ("x.txt", "FROM scratch\n", "cannot be adopted"),
        ("x.yaml", "linkspan: v1\njobs: {}\n", "cannot be adopted"),
        (None, "", "cannot be read"),
    ],
)
def test_what_cannot_be_adopted_is_said(folder, capsys, name, content, words):
    if name:
        (folder / name).write_text(content)
    assert run(["workflow", "adopt", name or "missing.yaml"]) == 2
    assert words in capsys.readouterr().err


def test_nothing_to_adopt_is_said(folder, capsys):
    assert run(["workflow", "adopt"]) == 2
    assert "nothing to adopt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("github.sha", "git.sha"),
        ("github.ref == 'refs/heads/main'", "git.branch == 'main'"),
        ("github.ref != 'refs/tags/v1'", "git.tag != 'v1'"),
        ("startsWith(github.ref, 'refs/tags/v')", "starts_with(git.tag, 'v')"),
        ("github.event.inputs.x == 'it''s'", "inputs.x == 'it\\'s'"),
        ("steps.a.outcome == 'success'", "steps.a.result == 'success'"),
        ("'github.sha'", "'github.sha'"),
        ("github.actor", None),
        ("runner.temp", None),
        ("a ++ b", None),
    ],
)
def test_expressions_of_github_are_translated(theirs, ours):
    assert translate(theirs) == ours


def test_conditions_and_scripts_are_translated():
    assert condition("${{ always() }}") == "always()"
    assert condition("${{ a }} && b") is None
    env: dict[str, str] = {}
    lost: list[str] = []
    text = script("x ${{ github.sha }} ${{ github.token }} ${{ env.A }}", lost.append, env)
    assert text == "x ${GIT_SHA}  ${A}"
    assert (lost, env) == (["github.token"], {})
