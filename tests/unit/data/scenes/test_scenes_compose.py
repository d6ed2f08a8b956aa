"""Scenes: masks, visibility, captions against objects, splits, held-out pairs."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from mixreorg.data.scenes.classes import select_classes
from mixreorg.data.scenes.compose import SceneComposer, draw_held_out_pairs
from mixreorg.data.scenes.presets import ScenesConfig, easy, hard, medium, preset
from mixreorg.data.scenes.stuff import select_stuff
from mixreorg.errors import MixreorgError


@pytest.fixture(scope="module")
def composer() -> SceneComposer:
    return SceneComposer(easy())


@pytest.fixture(scope="module")
def labelled() -> SceneComposer:
    return SceneComposer(medium().updated(image_size=64, object_omitted_probability=0.0, repeat_probability=0.3))


def test_scene_depends_on_seed_split_and_index_only(composer):
    first = composer.compose("train", 7)
    composer.compose("val", 7)
    again = SceneComposer(easy()).compose("train", 7)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label_map, again.label_map)
    assert (first.caption, first.objects, first.stuff) == (again.caption, again.objects, again.stuff)
    others = [composer.compose("train", 8), composer.compose("val", 7)]
    others.append(SceneComposer(easy().updated(seed=1)).compose("train", 7))
    assert all((other.image != first.image).any() for other in others)


def test_labels_are_exactly_the_placed_objects(composer, labelled):
    for drawer, num_classes in ((composer, 24), (labelled, 48)):
        for index in range(40):
            scene = drawer.compose("train", index)
            background = 0
            if drawer.config.label_stuff:
                background = 1 + num_classes + drawer.config.stuff.index(scene.stuff)
            placed = {item.label for item in scene.objects}
            assert set(np.unique(scene.label_map)) <= placed | {background}
            assert placed <= set(np.unique(scene.label_map))
            assert all(drawer.config.label_names[item.label] == item.name for item in scene.objects)
            assert drawer.config.label_names[background] in ("background", scene.stuff)


def test_masks_lie_in_the_boxes_and_objects_stay_visible(composer):
    tight = 0
    for index in range(120):
        scene = composer.compose("train", index)
        covered = np.zeros(scene.label_map.shape, dtype=bool)
        for item in scene.objects:
            assert composer.config.min_visible <= item.visible <= 1.0
            left, top, right, bottom = item.box
            assert 0 <= left < right <= 64
            assert 0 <= top < bottom <= 64
            covered[top:bottom, left:right] = True
            if item.visible == 1.0:
                rows, columns = np.nonzero(scene.label_map == item.label)
                found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                tight += np.abs(np.subtract(found, item.box)).max() <= 3
        assert (scene.label_map[~covered] == 0).all()
    assert tight > 60


def test_masks_are_exact_to_the_pixel():
    """The same scenes on two textures: the pictures agree where an object is solid, and only there."""
    # One object: where the soft edges of two overlap, less than half of the texture may show through.
    config = easy().updated(max_hue_shift=0.0, max_brightness_shift=0.0, held_out_pairs=0, max_objects=1)
    on_snow, on_soil = (SceneComposer(config.updated(stuff=(name,))) for name in ("snow", "soil"))
    for index in range(40):
        first, second = on_snow.compose("train", index), on_soil.compose("train", index)
        np.testing.assert_array_equal(first.label_map, second.label_map)
        assert first.objects == second.objects
        blue = first.image[..., 2].astype(int) - second.image[..., 2]
        # Snow is 190 to 241 bluer than soil; an object's pixel counts as solid from half opacity on.
        assert blue[first.label_map > 0].max() <= 123
        assert blue[first.label_map == 0].min() >= 93


def test_visible_fraction_counts_pixels():
    """With one object inside the frame the mask is the whole picture; covered ones have what is left."""
    config = medium().updated(image_size=96, min_visible=0.3, max_objects=5, repeat_probability=0.0)
    drawer = SceneComposer(config)
    hidden = 0
    for index in range(40):
        scene = drawer.compose("train", index)
        for item in scene.objects:
            pixels = (scene.label_map == item.label).sum()
            assert pixels / item.visible <= (item.box[2] - item.box[0] + 24) * (item.box[3] - item.box[1] + 24)
            hidden += item.visible < 0.95
    assert hidden > 10


def test_captions_name_what_is_there(labelled):
    named_stuff = 0
    for index in range(150):
        scene = labelled.compose("train", index)
        text = f" {scene.caption.rstrip('.!').replace(',', ' ')} "
        counts = Counter(item.name for item in scene.objects)
        for item in select_classes(counts):
            word = item.plural if counts[item.name] > 1 else item.name
            assert f" {word} " in text, (scene.caption, counts)
        absent = [name for name in labelled.config.classes if name not in counts]
        assert not any(f" {name} " in text for name in absent), (scene.caption, counts)
        (stuff,) = select_stuff([scene.stuff])
        named_stuff += any(place in scene.caption for place in stuff.places)
        other_stuff = [name for name in labelled.config.stuff if name != scene.stuff]
        assert not any(f" {name} " in text for name in other_stuff)
    assert 0.75 < named_stuff / 150 < 0.95


def test_captions_can_leave_one_object_out():
    drawer = SceneComposer(easy().updated(object_omitted_probability=1.0, min_objects=2))
    for index in range(30):
        scene = drawer.compose("train", index)
        missing = [item.name for item in scene.objects if item.name not in scene.caption]
        assert len(missing) == 1


def test_number_of_objects_stays_in_range():
    drawer = SceneComposer(easy().updated(min_objects=2, max_objects=4))
    counts = {len(drawer.compose("train", index).objects) for index in range(60)}
    assert counts == {2, 3, 4}


def test_held_out_pairs_meet_only_in_their_split():
    config = easy().updated(held_out_pairs=100, image_size=32, min_objects=2)
    drawer = SceneComposer(config)
    pairs = {frozenset(config.classes[index] for index in pair) for pair in drawer.held_out_pairs}
    assert len(pairs) == 100

    def shows_pair(split, index):
        names = {item.name for item in drawer.compose(split, index).objects}
        return any(frozenset(pair) in pairs for pair in combinations(names, 2))

    for split in ("train", "val", "test"):
        assert not any(shows_pair(split, index) for index in range(120))
    assert all(shows_pair("test_heldout", index) for index in range(60))
    assert drawer.held_out_pairs == draw_held_out_pairs(config)
    assert drawer.held_out_pairs != draw_held_out_pairs(config.updated(seed=5))


@pytest.mark.parametrize("unseen", ["mixed", "only", "none"])
def test_splits_show_the_pictures_they_should(unseen):
    composer = SceneComposer(easy().updated(unseen_pictures=unseen))
    seen = {split: set() for split in ("train", "val", "test")}
    for split, pictures in seen.items():
        for index in range(400):
            pictures.update((item.name, item.picture) for item in composer.compose(split, index).objects)
    assert seen["val"] == seen["test"]
    for item in select_classes(composer.config.classes):
        train = {picture for name, picture in seen["train"] if name == item.name}
        test = {picture for name, picture in seen["test"] if name == item.name}
        known, other = set(item.train_pictures), set(item.eval_pictures)
        assert train == known
        assert test == {"mixed": known | other, "only": other, "none": known}[unseen]


def test_objects_without_room_are_a_clear_error():
    drawer = SceneComposer(
        easy().updated(min_objects=8, max_objects=8, min_scale=0.95, max_scale=1.0, min_visible=0.9, image_size=32)
    )
    with pytest.raises(MixreorgError, match="do not fit; lower min_objects"):
        drawer.compose("train", 0)


def test_presets():
    assert (len(easy().classes), easy().image_size, len(easy().label_names), easy().num_bits) == (24, 64, 25, 8)
    assert (len(medium().classes), medium().image_size, len(medium().label_names)) == (48, 96, 61)
    assert len(hard().classes) >= 300
    assert (hard().image_size, hard().num_bits) == (224, 16)
    assert preset("easy") == easy()
    with pytest.raises(MixreorgError, match=r"did you mean 'medium'.*easy, medium, hard"):
        preset("medum")
    assert ScenesConfig.from_dict(hard().to_dict()) == hard()


def test_ranges_are_checked_against_defaults():
    for changes in ({"min_objects": 5}, {"min_scale": 0.9}, {"max_scale": 0.1}):
        with pytest.raises(ValueError, match="must be at least min_"):
            ScenesConfig(classes=("dog", "cat"), stuff=("grass",), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("dog", "cta")}, "did you mean 'cat'"),
        ({"stuff": ("grass", "watre")}, "did you mean 'water'"),
        ({"min_objects": 4}, "must be at least min_objects"),
        ({"max_scale": 0.1}, "must be at least min_scale"),
        ({"held_out_pairs": 139}, "at most 138"),
        ({"max_objects": 1}, "pairs need scenes of two objects"),
    ],
)
def test_wrong_configurations_say_what_is_wrong(changes, message):
    with pytest.raises(MixreorgError, match=message):
        easy().updated(**changes)
    with pytest.raises(MixreorgError, match=message):
        ScenesConfig.from_dict({**easy().to_dict(), **changes})
