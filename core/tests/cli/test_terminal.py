"""A pipe gets data, a terminal gets a view; a state is always a word."""

import io
from typing import Any

import pytest

from linkspan.core.cli.live import watch
from linkspan.core.cli.terminal import Terminal, visible

HEADERS = ["NAME", "ID", "IMAGE", "STATE", "PORTS"]
ROWS = [
    ["web", "00f3a9c04b7e", "registry.example.test/shop/web:1.2.3", "● healthy", "8080→80"],
    ["a-container-with-a-long-name", "01f3a9c04b7e", "postgres:16", "● up", ""],
]


class Tty(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


class Pipe(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]


def terminal(
    monkeypatch: pytest.MonkeyPatch, *, tty: bool, width: int = 80, **settings: Any
) -> tuple[Terminal, io.StringIO, io.StringIO]:
    out, err = (Tty(), Tty()) if tty else (Pipe(), Pipe())
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    made = Terminal(environ=settings.pop("environ", {}), **settings)
    monkeypatch.setattr(Terminal, "width", width)
    return made, out, err


def table(made: Terminal) -> None:
    made.table(HEADERS, ROWS, drop=["PORTS", "ID", "IMAGE"], keep=["NAME", "STATE"])


def test_a_pipe_gets_every_cell_whole_and_no_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    made, out, _ = terminal(monkeypatch, tty=False, width=20)
    table(made)
    text = out.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "registry.example.test/shop/web:1.2.3" in text
    assert text.splitlines()[0].split() == HEADERS


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_a_terminal_gets_what_fits_and_name_and_state_whole(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    made, out, _ = terminal(monkeypatch, tty=True, width=width)
    table(made)
    lines = out.getvalue().splitlines()
    assert all(visible(line) <= width for line in lines)
    assert "a-container-with-a-long-name" in lines[2]
    assert "● up" in lines[2]
    assert ("IMAGE" in lines[0]) == (width >= 60)


def test_nothing_wraps_even_if_only_what_should_stay_whole_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, out, _ = terminal(monkeypatch, tty=True, width=30)
    made.table(["NAME", "STATE"], [["n" * 40, "s" * 20]], keep=["NAME", "STATE"])
    assert all(visible(line) <= 30 for line in out.getvalue().splitlines())


def test_wide_characters_take_two_cells_and_marks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (visible("构建"), visible("e\u0301"), visible("✓ ●"), visible("🚢")) == (4, 1, 3, 2)
    made, out, _ = terminal(monkeypatch, tty=True, width=24)
    made.table(["NAME", "STATE"], [["构建镜像构建镜像", "up"], ["plain", "up"]], keep=["STATE"])
    _, wide, plain = out.getvalue().splitlines()
    assert visible(wide) <= 24
    assert visible(wide.partition("up")[0]) == visible(plain.partition("up")[0])
    made, out, _ = terminal(monkeypatch, tty=True, width=14)
    made.table(["NAME", "STATE"], [["构建镜像构建镜像", "up"]], keep=["STATE"])
    assert all(visible(line) <= 15 for line in out.getvalue().splitlines())


def test_without_truncation_a_terminal_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    made, out, _ = terminal(monkeypatch, tty=True, width=40)
    made.table(HEADERS, ROWS, trunc=False)
    assert "registry.example.test/shop/web:1.2.3" in out.getvalue()


def test_a_wide_table_is_whole_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    made, out, _ = terminal(monkeypatch, tty=True, width=40)
    made.wide = True
    table(made)
    assert ROWS[0][2] in out.getvalue()


def test_control_characters_of_names_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, out, _ = terminal(monkeypatch, tty=True, color="never")
    made.table(["NAME"], [["a\rb\x07"], ["evil\x1b[2J"]])
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("choice", "environ", "tty", "colored"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
    ],
)
def test_who_decides_about_colour(
    monkeypatch: pytest.MonkeyPatch, choice: str, environ: dict[str, str], tty: bool, colored: bool
) -> None:
    made, _, _ = terminal(monkeypatch, tty=tty, color=choice, environ=environ)
    assert made.out_color is colored
    assert ("\x1b[32m" in made.state("done", "ready")) is colored
    assert "ready" in made.state("done", "ready")


def test_signs_are_words_where_the_terminal_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _, _ = terminal(monkeypatch, tty=True, environ={"LINKSPAN_ASCII": "1"})
    assert made.sign("failed") == "FAIL"


def test_progress_is_live_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal(monkeypatch, tty=True)[0].progress == "live"
    assert terminal(monkeypatch, tty=True, environ={"CI": "1"})[0].progress == "plain"
    assert terminal(monkeypatch, tty=False)[0].progress == "plain"
    assert terminal(monkeypatch, tty=True, quiet=True)[0].progress == "none"


def test_a_line_of_the_live_view_is_cut_and_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    from linkspan.core.cli.progress import Display
    from linkspan.core.cli.session import Session

    out = Tty()
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    session = Session()
    session.progress = "live"
    display = Display(session, lambda: ["构建" * 20, "x" * 80], "it")
    display.began -= 1
    with display:
        display.update()
    shown = out.getvalue()
    assert "…" in shown
    assert "构建" * 7 in shown
    assert "构建" * 8 not in shown
    assert "x" * 30 not in shown


@pytest.mark.parametrize(
    ("tty", "name", "redraws"),
    [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)],
)
def test_a_live_table_is_drawn_once_where_nothing_can_be_drawn_over(
    monkeypatch: pytest.MonkeyPatch, tty: bool, name: str, redraws: bool
) -> None:
    made, out, _ = terminal(monkeypatch, tty=tty, environ={"TERM": name})
    frames = iter([["first"], ["second"]])

    def frame() -> list[str]:
        try:
            return next(frames)
        except StopIteration:
            raise KeyboardInterrupt from None

    watch(made, frame, 0)
    assert made.redraws is redraws
    assert ("second" in out.getvalue()) is redraws
    assert ("\x1b" in out.getvalue()) is redraws
