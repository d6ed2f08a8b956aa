"""What docs/benchmarks.md says of the benchmarks is what the package does."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from mixreorg.cli.main import app
from mixreorg.eval.benchmarks.class_table import NAMINGS
from mixreorg.eval.benchmarks.own_folder import OWN_LAYOUTS
from mixreorg.eval.benchmarks.registry import benchmark, benchmark_names

PAGE = (Path(__file__).parents[4] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def row(name: str) -> list[str]:
    found = re.search(rf"^\| `{name}`.*$", PAGE, flags=re.MULTILINE)
    assert found, name
    return [cell.strip() for cell in found.group().strip("|").split("|")]


@pytest.mark.parametrize("name", benchmark_names())
def test_the_table(name: str) -> None:
    item = benchmark(name)
    cells = row(name)
    for alias in re.findall(r"`(\w+)`", cells[0]):
        assert benchmark(alias) is item
    counts = tuple(int(number.replace(",", "")) for number in re.findall(r"[\d,]+", cells[2]))
    assert counts == item.counts["val"]
    assert int(cells[3]) == item.num_labels
    assert cells[4] == ("background" if item.has_background else item.table.classes[0].name)
    forms = [form.name for form in item.forms]
    named = re.findall(r"`(\w+)`", cells[6])
    assert named == forms or cells[6] == "the same"


def test_own_layouts_and_namings_are_explained() -> None:
    for name in (*OWN_LAYOUTS, *NAMINGS):
        assert f"`{name}`" in PAGE


def commands() -> list[list[str]]:
    return [shlex.split(line)[2:] for line in re.findall(r"^\$ mixreorg .*$", PAGE, flags=re.MULTILINE)]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_are_understood(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    while isinstance(command, typer.core.TyperGroup):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context("mixreorg", arguments)
