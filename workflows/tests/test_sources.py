"""What a client tells about its sources."""

import subprocess

import pytest

from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.workflows.sources import find_file, git_facts, git_files, workspace_of
from linkspan.workflows.workspace import copy_tree


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "t")
        monkeypatch.setenv(f"{name}_EMAIL", "t@example.test")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = tmp_path / "repo"
    (folder / "src").mkdir(parents=True)
    (folder / "cache").mkdir()
    (folder / "src" / "a").write_text("a")
    (folder / "src" / "built").write_text("b")
    (folder / "cache" / "big").write_text("c")
    (folder / "new").write_text("d")
    (folder / ".gitignore").write_text("cache/\nbuilt\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".gitignore", "src")
    git(folder, "commit", "-q", "-m", "x")
    return folder


def git(folder, *words):
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


def test_ignored_folders_are_left_out_and_ignored_files_are_not(repository):
    assert git_files(repository) == [".gitignore", "new", "src/a", "src/built"]
    assert git_files(repository / "src") == ["a", "built"]
    assert git_files(repository / "cache") is None


def test_outside_of_a_repository_everything_counts(tmp_path):
    assert git_files(tmp_path) is None
    assert git_facts(tmp_path) == {}


def test_a_repository_tells_commit_branch_and_tag(repository):
    facts = git_facts(repository)
    assert facts["branch"] == "main"
    assert facts["sha"].startswith(facts["short_sha"])
    assert (facts["tag"], facts["dirty"]) == ("", False)
    git(repository, "tag", "v1")
    (repository / "src" / "a").write_text("changed")
    facts = git_facts(repository)
    assert (facts["tag"], facts["dirty"]) == ("v1", True)


def test_a_pipeline_is_a_file_or_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".linkspan").mkdir()
    (tmp_path / ".linkspan" / "release.yml").touch()
    (tmp_path / "p.yaml").touch()
    found = find_file("release")
    assert found is not None
    assert workspace_of(found) == tmp_path
    assert workspace_of(find_file("p.yaml")) == tmp_path
    assert find_file("nothing") is None


def test_a_copy_has_links_as_links_and_modes(tmp_path):
    source, target = tmp_path / "s", tmp_path / "t"
    (source / "d").mkdir(parents=True)
    (source / "d" / "x").write_text("x")
    (source / "d" / "x").chmod(0o750)
    (source / "link").symlink_to("/etc/passwd")
    copy_tree(source, target)
    assert (target / "d" / "x").stat().st_mode & 0o777 == 0o750
    assert (target / "link").is_symlink()
    assert target.stat().st_mode & 0o777 == 0o777


def test_a_copy_takes_named_files_and_nothing_through_links(tmp_path):
    source = tmp_path / "s"
    source.mkdir()
    (source / "a").write_text("a")
    (source / "b").write_text("b")
    (source / "out").symlink_to("/etc")
    copy_tree(source, tmp_path / "t", ["a", "gone"])
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["a"]
    for name in ("../s/a", "/etc/passwd", "out/passwd"):
        with pytest.raises(InvalidArgument):
            copy_tree(source, tmp_path / "u", [name])
        assert not (tmp_path / "u").exists()


def test_a_copy_never_enters_itself_or_the_daemons_folders(tmp_path):
    (tmp_path / "data" / "runs").mkdir(parents=True)
    (tmp_path / "data" / "db").touch()
    (tmp_path / "a").touch()
    copy_tree(tmp_path, tmp_path / "data" / "runs" / "t", leave_out=[tmp_path / "data"])
    assert [p.name for p in (tmp_path / "data" / "runs" / "t").iterdir()] == ["a"]
    copy_tree(tmp_path, tmp_path / "u")
    assert sorted(p.name for p in (tmp_path / "u").iterdir()) == ["a", "data"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFound, match="there is no folder"):
        copy_tree(tmp_path / "nowhere", tmp_path / "t")
