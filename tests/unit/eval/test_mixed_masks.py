import json

import pytest
import torch
from PIL import Image

from mixreorg.data.pairs import Pair
from mixreorg.errors import MixreorgError
from mixreorg.eval.mixed_masks import held_out_pairs, mixed_mask_accuracy_on
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.pixels import normalise, to_uint8
from mixreorg.objectives.groupvit import project_texts
from mixreorg.objectives.mixreorg import MixReorgObjective
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.randomness import sample_keys

CAPTIONS = ["a red dog", "a green cat", "a blue car", "a grey tree", "two birds", "one fish", "a cow", "a pig"]


@pytest.fixture
def objective(tiny_model):
    config = MixReorgConfig(num_contextual_blocks=1, group_size=2, block=1)
    return MixReorgObjective(tiny_model, config).eval()


@pytest.fixture
def pairs():
    shades = [(30 * index + 10, 255 - 30 * index, 7 * index) for index in range(len(CAPTIONS))]
    return [
        Pair(str(index), "shard", Image.new("RGB", (32, 32), shade), CAPTIONS[index])
        for index, shade in enumerate(shades)
    ]


def test_the_accuracy_is_the_objectives_own_however_it_is_cut(objective, pairs):
    model = objective.model
    images = normalise(torch.stack([to_uint8(pair.image) for pair in pairs]))
    with torch.no_grad():
        _, mixed, _ = objective.branches(images, sample_keys(0, torch.arange(8)), with_restored=False)
        texts = project_texts(model, model.text_encoder(model.tokenizer.encode(CAPTIONS)), slice(0, 8))
        expected = float(objective.mixed_loss(mixed.features, texts)[1])
    assert 0 < expected < 1
    for groups in (1, 3, 16):
        assert mixed_mask_accuracy_on(objective, pairs, groups=groups) == pytest.approx(expected, abs=1e-6)


def test_every_mixed_image_counts_also_where_training_makes_one_of_a_group(objective, pairs):
    expected = mixed_mask_accuracy_on(objective, pairs)
    config = objective.config.updated(mixed_per_group=1, restored=WeightSchedule(weight=0.0))
    one = MixReorgObjective(objective.model, config).eval()
    assert mixed_mask_accuracy_on(one, pairs) == expected
    assert one.config.mixed_per_group == 1


def test_captions_are_asked_for_whatever_the_loss_is_made_of(tiny_config, tokenizer, objective, pairs):
    torch.manual_seed(0)
    nouns = MultiLabelConfig(weight=WeightSchedule())
    model = DualEncoder(tiny_config.updated(multi_label=True), tokenizer)
    config = objective.config.updated(multi_label=nouns)
    expected = mixed_mask_accuracy_on(MixReorgObjective(model, config).eval(), pairs)
    for change in ({"candidates": "nouns"}, {"patch_weights": "relevance"}, {"candidates": "group"}):
        other = MixReorgObjective(model, config.updated(**change)).eval()
        assert mixed_mask_accuracy_on(other, pairs) == expected


def test_captioned_scenes_are_read_in_order_and_absent_captions_are_no_error(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    records = [{"image": f"val_{index}", "caption": caption} for index, caption in enumerate(CAPTIONS[:3])]
    for record in records:
        Image.new("L", (8, 8)).save(tmp_path / "JPEGImages" / f"{record['image']}.jpg")
    (tmp_path / "captions_val.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pairs = held_out_pairs(tmp_path, "val", 2)
    assert [(pair.key, pair.caption, pair.image.mode) for pair in pairs] == [
        ("val_0", "a red dog", "RGB"),
        ("val_1", "a green cat", "RGB"),
    ]
    assert held_out_pairs(tmp_path, "test", 2) == []
    (tmp_path / "JPEGImages" / "val_1.jpg").unlink()
    with pytest.raises(MixreorgError, match=r"captions_val\.jsonl"):
        held_out_pairs(tmp_path, "val", 2)
