"""Pages share one theme, which lies in the frame and nowhere else."""

import re
from pathlib import Path

import mixreorg
from mixreorg.html_page import html_page

# The style of the server's page belongs to Gradio's frame.
STYLES = sorted(path for path in Path(mixreorg.__file__).parent.rglob("*.css") if path.parent.name != "serve")
FRAME = html_page("title", "", "body")


def test_the_theme_lies_in_the_frame_alone() -> None:
    assert len(STYLES) >= 4
    for path in STYLES:
        style = path.read_text(encoding="utf-8")
        assert not re.search(r"--\w+:", style), f"{path} sets colours of its own"
        assert not re.search(r"^(body|:root) *{", style, flags=re.MULTILINE), f"{path} repeats the frame"
        for name in re.findall(r"var\((--\w+)\)", style):
            assert FRAME.count(f"{name}:") == 2, f"{path} uses {name}, which the theme does not have, light and dark"


def test_a_page_has_the_theme_and_then_its_own_style() -> None:
    page = html_page("A & B", ".mine { color: red; }", "<h1>A</h1>")
    assert page.index("--ink:") < page.index(".mine") < page.index("<h1>A</h1>")
