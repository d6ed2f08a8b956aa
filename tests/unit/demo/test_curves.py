import xml.etree.ElementTree as ET

from mixreorg.demo.curves import draw_curves

LOG = [
    {"step": 50, "train/loss": 5.0, "train/contrastive": 3.0},
    {"step": 100, "train/loss": 4.0, "train/contrastive": 2.5, "train/mixed": float("nan")},
    {"step": 100, "val/foreground_miou": 12.0, "val/background_miou": 5.0},
    {"step": 150, "train/loss": 3.5, "train/contrastive": 2.0, "train/mixed": 1.5},
]


def test_curves_are_plain_svg_in_the_ink_of_the_page():
    curves = draw_curves(LOG)
    texts = {}
    for name, svg in (("losses", curves.losses), ("miou", curves.miou)):
        root = ET.fromstring(svg)
        assert root.tag.endswith("svg")
        assert "width" not in root.attrib
        assert root.attrib["viewBox"]
        texts[name] = {element.text for element in root.iter() if element.tag.endswith("text")}
        assert "currentColor" in svg
        assert "#010203" not in svg
        assert "<metadata" not in svg
    assert {"loss", "training step", "contrastive", "mixed masks"} <= texts["losses"]
    assert "restored" not in texts["losses"]
    assert {"validation mIoU (%)", "foreground", "with background"} <= texts["miou"]
    assert draw_curves(LOG) == curves


def test_curves_of_a_run_without_evaluation_are_empty_axes():
    assert "foreground" not in draw_curves(LOG[:1]).miou
