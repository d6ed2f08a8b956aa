"""Things and stuff are measured apart where a world has both as classes."""

import numpy as np
import pytest
from ablation_kit import make_spec

from mixreorg.ablate.measuring import things_and_stuff
from mixreorg.ablate.worlds import labelled_stuff
from mixreorg.eval.result import Details, SplitResult

NAMES = ("dog", "cat", "grass", "sand")


def counted(truth, prediction, segments):
    """A result of one photo: ``[W]`` true, predicted and best segment labels."""
    result = SplitResult.empty(NAMES, (), Details(len(NAMES), has_background=False))
    result.foreground.add(np.array([truth]), np.array([prediction]))
    result.details.grouping.add(np.array([truth]), np.array([segments]))
    return result


def test_a_mean_over_all_classes_is_taken_apart():
    result = counted([0, 0, 2, 2, 2, 3], [0, 2, 2, 2, 2, 3], [0, 0, 2, 2, 2, 3])
    kinds = things_and_stuff(result, {"grass", "sand"})
    assert kinds["things_miou"] == pytest.approx(50)  # one of two pixels; no cat is there to be missed
    assert kinds["stuff_miou"] == pytest.approx(100 * (3 / 4 + 1) / 2)
    assert kinds["things_grouping_oracle_miou"] == pytest.approx(100)
    assert result.foreground.miou() == pytest.approx((kinds["things_miou"] + 2 * kinds["stuff_miou"]) / 3)


def test_there_are_no_kinds_without_stuff_and_no_oracle_without_segments():
    result = counted([0, 2], [0, 2], [0, 2])
    assert things_and_stuff(result, ()) == {}
    result.details.grouping.matrix[...] = 0
    assert set(things_and_stuff(result, ("grass",))) == {"things_miou", "stuff_miou"}


def test_names_that_changed_places_are_counted():
    result = counted([0], [0], [0])
    result.present.add(np.array([[0, 0, 1, 1, 2, 3, 3]]), np.array([[2, 0, 0, 3, 0, 2, 3]]))
    kinds = things_and_stuff(result, {"grass", "sand"})
    assert kinds["things_named_stuff"] == pytest.approx(50)  # the dog that is a cat is not
    assert kinds["stuff_named_things"] == pytest.approx(100 / 3)


def test_a_made_world_knows_its_stuff_where_it_is_a_class():
    worlds = make_spec(
        worlds={
            "tiny": {"preset": "easy", "train": 40, "val": 8, "test": 8},
            "named": {"preset": "easy", "train": 40, "val": 8, "test": 8, "set": {"label_stuff": True}},
        }
    ).worlds
    assert labelled_stuff("tiny", worlds["tiny"]) == ()
    assert "grass" in labelled_stuff("named", worlds["named"])
