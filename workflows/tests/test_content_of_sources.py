"""What the sources hold, where no commit says it."""

import os

from linkspan.workflows import sources
from linkspan.workflows.sources import content_of


def test_each_file_counts_but_the_plan_links_by_where_they_lead(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_text("1")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/index").write_text("x")
    (tmp_path / "p.plan").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = content_of(tmp_path, None, [tmp_path / "p.plan"])
    assert found.keys() == {"a", "b/c", "link"}
    assert found["a"] == found["b/c"]
    assert found["link"] == "-> nowhere"
    (tmp_path / "a").write_text("2")
    changed = content_of(tmp_path, None, [tmp_path / "p.plan"])
    assert {name for name in found if found[name] != changed[name]} == {"a"}


def test_only_files_of_the_run_count_and_those_that_are_gone_do_not(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    assert content_of(tmp_path, ["a", "gone"], []).keys() == {"a"}


def test_large_files_are_told_apart_without_reading_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_READ_LIMIT_BYTES", 3)
    (tmp_path / "a").write_text("1234")
    os.utime(tmp_path / "a", ns=(1, 5))
    assert content_of(tmp_path, ["a"], []) == {"a": "4 5"}
