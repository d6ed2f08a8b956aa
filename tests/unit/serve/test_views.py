"""The page's views: what they show, and that names are text in them."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from mixreorg.palette import hex_color
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.segment.results import Segmentation
from mixreorg.serve.answers import Groups, SegmentedPhoto
from mixreorg.serve.views import as_views, classes_view, groups_view

SCRIPT = "<script>alert('x')</script>"


def decode(html: str, pattern: str) -> bytes:
    match = re.search(pattern + r'[^>]*="data:[^;]+;base64,([^"]+)"', html)
    assert match
    return base64.b64decode(match[1])


@pytest.fixture
def segmented() -> SegmentedPhoto:
    labels = np.zeros((400, 500), dtype=np.uint8)
    labels[:100] = 2
    result = Segmentation(labels, (SCRIPT, "& cat", "dog"), np.array([0.9, 0.2, 0.7], np.float32), groupvit_protocol())
    photo = Image.new("RGB", (500, 400), "orange")
    groups = Groups(labels // 2, (SCRIPT, "dog"), (0.5, 0.25))
    return SegmentedPhoto(photo, result, lambda: groups)


def test_names_are_text(segmented: SegmentedPhoto) -> None:
    for html in as_views(segmented):
        assert "<script" not in html
        assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in html


def test_the_legend_has_the_classes_by_area_and_names_the_absent_ones(segmented: SegmentedPhoto) -> None:
    html = classes_view(segmented)
    items = re.findall(r'<li tabindex="0" data-index="(\d)"><i style="background: (#\w+)"></i><b>', html)
    colors = segmented.segmentation.colors
    assert items == [("0", hex_color(colors[0])), ("2", hex_color(colors[2]))]
    assert "75 %" in html
    assert "25 %" in html
    assert "score 0.70" in html
    assert "<p>No pixel: &amp; cat.</p>" in html


def test_the_map_under_the_pointer_is_the_label_map(segmented: SegmentedPhoto) -> None:
    html = classes_view(segmented)
    shown = np.asarray(Image.open(io.BytesIO(decode(html, 'class="map"'))))
    np.testing.assert_array_equal(shown, segmented.segmentation.label_map)
    assert 'class="veil" width="500" height="400"' in html


def test_downloads_are_the_whole_result(segmented: SegmentedPhoto) -> None:
    html = classes_view(segmented)
    labels = Image.open(io.BytesIO(decode(html, 'download="labels.png" href')))
    np.testing.assert_array_equal(np.asarray(labels), segmented.segmentation.label_map)
    assert Image.open(io.BytesIO(decode(html, 'download="overlay.png" href'))).size[0] >= 500
    assert json.loads(decode(html, 'download="segmentation.json" href')) == segmented.segmentation.to_dict()


@pytest.mark.parametrize(("size", "shown"), [((3000, 1500), (1024, 512)), ((64, 32), (384, 192)), ((400, 9), (400, 9))])
def test_photos_are_shown_at_a_good_size(size: tuple[int, int], shown: tuple[int, int]) -> None:
    labels = np.zeros((size[1], size[0]), dtype=np.uint8)
    html = groups_view(Image.new("RGB", size), Groups(labels, ("dog", "cat"), (0.5, 0.25)))
    assert Image.open(io.BytesIO(decode(html, 'class="map"'))).size == shown
    assert Image.open(io.BytesIO(decode(html, 'class="overlay"'))).size == shown
    assert "1 of 2 groups" in html
    assert "dog (0.50)" in html
