"""Page, CSV and Markdown are made of the result file alone and say what it says."""

import csv
import importlib.util
import io
import json
from pathlib import Path

import pytest
from ablation_kit import result_values, run_values, two_by_two

from mixreorg.ablate.figures import all_charts, overview_chart, row_chart, section_curves
from mixreorg.ablate.report import to_markdown, write_report
from mixreorg.ablate.results import AblationResults, read_results, to_csv
from mixreorg.ablate.run import report_ablations
from mixreorg.ablate.tables import Section, sections
from mixreorg.errors import MixreorgError
from page_kit import Page

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(two_by_two()))
    return path


def table_rows(results, index=0):
    (section,) = sections(results)
    table = section.tables[index]
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_tables_give_means_spreads_and_paired_differences(file):
    baseline, row = table_rows(read_results(file))
    assert baseline["foreground mIoU"] == "21.5 ± 2.1"
    assert baseline["difference to the baseline [95 %]"] == "baseline"
    assert row["foreground mIoU"] == "26.5 ± 3.5"
    assert row["foreground mIoU, last step"] == "25.5 ± 3.5"
    # 4 and 6: mean 5, half width 12.7062 * sqrt(2) / sqrt(2).
    assert row["difference to the baseline [95 %]"] == "+5.0 [-7.7, +17.7]"
    assert "background threshold" not in row
    mixed = table_rows(read_results(file), 1)
    assert [item["with the mixing of its training"] for item in mixed] == ["–", "70.0 ± 0.0"]
    cost = table_rows(read_results(file), 2)[0]
    assert (cost["training, CPU s"], cost["steps x batch"], cost["pairs/s"]) == ("16.0 ± 0.0", "12 x 64", "96 ± 0")


def test_unfinished_runs_and_single_seeds_are_told():
    runs = [run_values("groupvit", 0, 20.0), run_values("mixreorg", 0, 24.0)]
    runs.append(run_values("mixreorg", 1, 99.0, state="unfinished"))
    results = AblationResults.from_dict(result_values(runs))
    _, row = table_rows(results)
    assert (row["seeds"], row["foreground mIoU"]) == ("1 of 2", "24.0")
    assert row["difference to the baseline [95 %]"] == "+4.0 (1 seed)"


def test_rows_on_other_images_are_not_compared():
    values = two_by_two()
    values["rows"][1]["world"] = "other"
    assert table_rows(AblationResults.from_dict(values))[1]["difference to the baseline [95 %]"] == "–"
    values["splits"][0]["world"] = "tiny"
    assert table_rows(AblationResults.from_dict(values))[1]["difference to the baseline [95 %]"].startswith("+5.0")


def test_a_split_that_no_row_of_a_section_was_measured_on_has_no_table_there():
    values = two_by_two()
    values["splits"].append({"name": "pairs", "world": None})
    (section,) = sections(AblationResults.from_dict(values))
    assert [table.title for table in section.tables if table.title.startswith("Split")] == ["Split test, %"]
    measured = values["runs"][2]["checkpoints"]["best"]["splits"]
    measured["pairs"] = measured["test"]
    rows = table_rows(AblationResults.from_dict(values), 1)
    assert [row["foreground mIoU"] for row in rows] == ["–", "24.0"]
    waiting = result_values([run_values("groupvit", 0, 20.0, state="unfinished")])
    (section,) = sections(AblationResults.from_dict(waiting))
    assert section.tables[0].title == "Split test, %"


def test_a_baseline_of_another_section_is_shown_first():
    values = two_by_two()
    values["rows"][0]["section"] = "Elsewhere"
    shown = {item.title: [row.name for row in item.rows] for item in sections(AblationResults.from_dict(values))}
    assert shown == {"Elsewhere": ["groupvit"], "Methods & more": ["groupvit", "mixreorg"]}


def test_a_baseline_that_has_one_of_its_own_elsewhere_is_nothing_but_the_baseline():
    values = two_by_two()
    extra = {**values["rows"][1], "name": "other", "section": "Elsewhere", "baseline": "mixreorg"}
    values["rows"].append(extra)
    elsewhere = sections(AblationResults.from_dict(values))[1]
    column = elsewhere.tables[0].header.index("difference to the baseline [95 %]")
    assert elsewhere.title == "Elsewhere"
    assert [(row.name, line[column]) for row, line in zip(elsewhere.rows, elsewhere.tables[0].rows, strict=True)] == [
        ("mixreorg", "baseline"),
        ("other", "–"),
    ]


def test_the_table_file_has_a_line_per_row_seed_and_split(file):
    lines = list(csv.DictReader(io.StringIO(to_csv(read_results(file)))))
    assert [(line["row"], line["seed"], line["split"]) for line in lines] == [
        ("groupvit", "0", "test"),
        ("groupvit", "1", "test"),
        ("mixreorg", "0", "test"),
        ("mixreorg", "1", "test"),
    ]
    line = lines[3]
    assert (line["foreground_miou"], line["last_foreground_miou"], line["best_step"]) == ("29.0", "28.0", "10")
    assert (line["section"], line["label"]) == ("Methods & more", "MixReorg | $x$")
    assert (line["train_cpu_seconds"], line["commit"], line["dirty"]) == ("16.0", "abc123", "True")
    assert (line["mixed_mask_accuracy_own"], lines[0]["mixed_mask_accuracy_own"]) == ("70.0", "")


def test_the_page_is_one_file_whose_names_are_only_text(file, tmp_path):
    page = report_ablations([file], tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert "Two <b>methods</b>" in parsed.text
    assert "Equal <u>steps</u>." in parsed.text
    assert "GroupViT <i>" in parsed.text
    assert not {"b", "u", "i", "script", "link"} & set(parsed.tags)
    assert parsed.tags.count("svg") == 2 + 2 * 2
    assert "+5.0 [-7.7, +17.7]" in parsed.text
    assert "runs/mixreorg<&>" in parsed.text
    assert "abc123 with uncommitted changes" in parsed.text
    assert "://" not in text.replace("http://www.w3.org", "")


def test_several_files_make_one_report(file, tmp_path):
    second = tmp_path / "second.json"
    second.write_text(json.dumps({**two_by_two(), "title": "Second"}))
    page = report_ablations([file, second], tmp_path / "out")
    assert Page(page.read_text(encoding="utf-8")).tags.count("h1") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "index.html",
        "results.md",
        "results.csv",
        "results-2.csv",
    }


def test_markdown_keeps_names_in_their_cells(file):
    results = read_results(file)
    text = to_markdown(results, [(chart, "chart.png") for chart in all_charts(results)])
    assert "## Two \\<b\\>methods\\</b\\>" in text
    (line,) = [line for line in text.splitlines() if "+5.0" in line]
    assert line.startswith("| MixReorg \\| $x$ | 2 | 26.5 ± 3.5 | +5.0 \\[-7.7, +17.7\\] |")
    chart = text.index("![Methods & more, test](chart.png)")
    assert text.index("### Methods & more") < chart < text.index("Split test")


@pytest.mark.parametrize("content", ['{"format": "other"}', "[]", '{"format": "mixreorg-ablation-1"}'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(MixreorgError, match=r"other\.json"):
        read_results(path)


def test_nothing_finished_is_a_report_too(tmp_path):
    page = write_report([AblationResults.from_dict(result_values([]))], tmp_path)
    assert "0 of 4 runs are finished" in Page(page.read_text(encoding="utf-8")).text


def make_results():
    spec = importlib.util.spec_from_file_location("make_results", DOCS / "make_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_results_holds_every_file_with_its_pictures(file, tmp_path, monkeypatch):
    module = make_results()
    monkeypatch.setattr(module, "DOCS", tmp_path)
    (tmp_path / "results").mkdir()
    file.rename(tmp_path / "results" / "main.json")
    (tmp_path / "results" / "gradient_cache.json").write_text("{}")
    monkeypatch.setattr(module.result_files, "__defaults__", (tmp_path / "results",))
    module.main()
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "![Methods & more, test](images/results_main_1.png)" in page
    assert "![Methods & more, validation scenes over the steps of training](images/results_main_2.png)" in page
    pictures = sorted((tmp_path / "images").iterdir())
    assert [path.name for path in pictures] == ["results_main_1.png", "results_main_2.png"]
    assert all(path.stat().st_size > 1000 for path in pictures)
    numbers = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    row = numbers["main"]["easy"]["mixreorg"]
    assert (row["method"], row["seeds"]) == ("mixreorg", [0, 1])
    assert row["runs"][1]["splits"]["test"]["foreground_miou"] == 29.0


def test_the_overview_holds_what_mixing_gains_on_test_scenes(file, monkeypatch):
    module, results = make_results(), read_results(file)
    overview = module.overview
    assert overview([results]) == ""  # Of two seeds.
    monkeypatch.setattr(module, "_LEAST_SEEDS", 2)
    line = overview([results]).splitlines()[-1]
    assert line == (
        r"| tiny | [Methods & more](#methods--more) | MixReorg \| $x$ | GroupViT \<i\> | 2 "
        r"| +5.0 \[-7.7, +17.7\] | +2.5 \[-3.9, +8.9\] | – | – |"
    )
    one = results.updated(runs=tuple(run for run in results.runs if run.seed == 0))
    assert overview([one]) == ""


def test_charts_show_the_whole_label_of_a_row(file):
    results = read_results(file)
    label = "MixReorg with the multi-label loss, for 2,240 of $n$ steps"
    rows = [results.rows[0].updated(label=label)]
    (axes,) = row_chart(results, rows, results.splits[0]).axes
    (shown,) = (tick.get_text() for tick in axes.get_yticklabels())
    assert shown.replace("\n", " ") == label.replace("$", r"\$")
    assert max(map(len, shown.splitlines())) < 40


def test_small_differences_are_not_made_to_look_large():
    values = result_values([run_values("groupvit", 0, 24.0), run_values("mixreorg", 0, 24.2)])
    results = AblationResults.from_dict(values)
    split, rows = results.splits[0], results.rows
    for figure in (
        row_chart(results, rows, split),
        overview_chart(results, [Section("Methods & more", rows, ())], split),
    ):
        for axes in figure.axes:
            low, high = axes.get_xlim()
            assert high - low == pytest.approx(5)
            assert all(low < value < high for line in axes.lines for value in line.get_xdata())


def in_sections(results, number):
    """The results with further sections, each with a row of the same runs as MixReorg's."""
    row = next(row for row in results.rows if row.name == "mixreorg")
    names = [f"copy-{index}" for index in range(number)]
    rows = [row.updated(name=name, label=name, section=f"Section of {name}") for name in names]
    runs = [run.updated(row=name) for name in names for run in results.runs if run.row == "mixreorg"]
    return results.updated(rows=(*results.rows, *rows), runs=(*results.runs, *runs))


def test_every_section_has_its_rows_and_their_curves(file):
    results = read_results(file)
    few, many = all_charts(in_sections(results, 3)), all_charts(in_sections(results, 4))
    assert len(few) == 8
    assert [chart.section for chart in many[:4]] == [None, "Methods & more", "Methods & more", "Section of copy-0"]
    labels = [tick.get_text() for tick in many[0].draw().axes[0].get_yticklabels()]
    assert labels[:5] == ["Methods & more", "GroupViT <i>", r"MixReorg | \$x\$", "Section of copy-0", "copy-0"]
    legend = many[-1].draw().axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["GroupViT <i>", "copy-3"]
    # two runs of the baseline, two of the row
    assert len(many[-1].draw().axes[0].lines) == 4


def test_no_two_rows_look_alike_in_a_section_of_many(file):
    results = in_sections(read_results(file), 40)
    figure = section_curves(results, results.rows)
    shown = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in shown}) == len(shown) == 42


def test_a_section_of_nothing_but_its_baseline_has_no_chart(file):
    results = read_results(file)
    rows = [row.updated(section="Recipe") if row.name == row.baseline else row for row in results.rows]
    assert [chart.section for chart in all_charts(results.updated(rows=tuple(rows)))] == ["Methods & more"] * 2


def test_rows_without_a_finished_run_are_named_instead_of_shown(file):
    with_finished_runs, results = make_results().with_finished_runs, read_results(file)
    assert with_finished_runs(results) is results
    others = results.updated(runs=tuple(run for run in results.runs if run.row != "mixreorg"))
    shown = with_finished_runs(others)
    assert [row.name for row in shown.rows] == [row.name for row in results.rows if row.name != "mixreorg"]
    (label,) = (row.label for row in results.rows if row.name == "mixreorg")
    assert shown.budget_note.endswith(f"Not run yet: {label} (mixreorg).")
    only = results.updated(runs=tuple(run for run in results.runs if run.row == "mixreorg"))
    assert [row.name for row in with_finished_runs(only).rows] == ["groupvit", "mixreorg"]
    # A baseline may have a baseline of its own.
    rows = tuple(row.updated(baseline="first") if row.name == "groupvit" else row for row in only.rows)
    first = only.rows[0].updated(name="first", label="first", baseline=None)
    chain = with_finished_runs(only.updated(rows=(first, *rows)))
    assert [row.name for row in chain.rows] == ["first", "groupvit", "mixreorg"]
    assert make_results().overview([chain]) == ""


def test_the_committed_page_is_what_the_committed_files_make():
    module = make_results()
    files = module.result_files()
    if not files:
        pytest.skip("no results of ablations are committed")
    assert (DOCS / "results.md").read_text(encoding="utf-8") == module.markdown(files)
    assert (DOCS / "results.json").read_text(encoding="utf-8") == module.numbers(files)
    for path in files:
        for _, name in module._pictures(path, module.with_finished_runs(read_results(path))):
            assert (DOCS / "images" / name).is_file()
