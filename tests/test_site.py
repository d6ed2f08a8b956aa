"""The documentation site: its pages, its links, and what is made from the code."""

import sys
from pathlib import Path

import pytest
import typer

import mixreorg
from mixreorg.cli.main import app
from mixreorg.eval.protocols import PROTOCOLS
from mixreorg.recipes import RECIPES

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import make_site  # noqa: E402
import site_pages  # noqa: E402


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "sources"
    make_site.assemble(folder)
    return folder


def test_every_page_of_the_repository_is_there(sources: Path) -> None:
    navigation = (sources / "zensical.toml").read_text()
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "CHANGELOG.md"]:
        name = page.name.lower()
        assert (sources / "pages" / name).is_file()
        assert f'"{name}"' in navigation


def test_links_out_of_the_pages_become_copies(sources: Path) -> None:
    text = (sources / "pages" / "tutorial.md").read_text(encoding="utf-8")
    assert "](files/examples/notebooks/segment_your_photo.ipynb)" in text
    assert (sources / "pages" / "files" / "examples" / "notebooks" / "segment_your_photo.ipynb").is_file()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[a](training.md#watch)", "[a](training.md#watch)"),
        ("[a](../README.md)", "[a](index.md)"),
        ("[a](../benchmarks/README.md#attention-attentionpy)", "[a](speed.md#attention-attentionpy)"),
        ("![a](images/results_ablation_1.png)", "![a](images/results_ablation_1.png)"),
        ("[a](../experiments)", "a"),
        ("[a](https://arxiv.org/abs/2202.11094)", "[a](https://arxiv.org/abs/2202.11094)"),
        ("`[a](nothing.md)`", "`[a](nothing.md)`"),
        ("[`a` and b](../docs/training.md#watch)", "[`a` and b](training.md#watch)"),
        ("```\n[a](nothing.md)\n```\n[a](../README.md)", "```\n[a](nothing.md)\n```\n[a](index.md)"),
    ],
)
def test_links(written: str, expected: str, tmp_path: Path) -> None:
    assert make_site.relink(written, "docs/weights.md", tmp_path) == expected


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"docs/weights\.md: the link to nothing\.md leads nowhere"):
        make_site.relink("[a](nothing.md)", "docs/weights.md", tmp_path)


def test_an_anchor_that_leads_nowhere_fails_the_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text("# Home\n\n[a](index.md#home)\n")
    (tmp_path / "zensical.toml").write_text('[project]\nsite_name = "a"\ndocs_dir = "pages"\nsite_dir = "html"\n')
    assert make_site.build(tmp_path) == 0
    (tmp_path / "pages" / "index.md").write_text("# Home\n\n[a](index.md#nothing)\n")
    assert make_site.build(tmp_path) != 0
    assert "anchor does not exist" in capfd.readouterr().err


def test_reference_pages_hold_everything() -> None:
    pages = site_pages.generated_pages()
    for name in RECIPES:
        assert f"# {name}\n" in pages["recipes.md"]
    for name in PROTOCOLS:
        assert f"## {name}\n" in pages["protocols.md"]
    for name in ("steps", "optim.lr", "engine.chunk", "objective.mixed.weight", "data.transform.rand_augment.num_ops"):
        assert f"| `{name}` |" in pages["configuration.md"]
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"## `mixreorg {name}`\n" in pages["commands.md"]
    assert "..." not in pages["commands.md"].split("**Commands**")[1].split("## ")[0]


def test_every_public_name_is_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in mixreorg.__all__:
        assert name.startswith("__") or f".{name}\n" in site_pages.api()
    monkeypatch.setattr(site_pages, "API", {})
    assert "\n::: mixreorg.errors.MixreorgError\n" in site_pages.api().partition("## Further")[2]


def test_nothing_is_fetched_from_other_hosts() -> None:
    settings = (ROOT / "docs" / "site.toml").read_text(encoding="utf-8")
    assert "font = false" in settings
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert "```mermaid" not in text
        assert "](http" not in "".join(line for line in text.splitlines() if line.startswith("!["))
