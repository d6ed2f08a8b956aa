"""How well a model tells which image each patch of a mixed image came from, on scenes it has not seen."""

import json
from pathlib import Path

import torch
from PIL import Image

from mixreorg.data.pairs import Pair
from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import trim
from mixreorg.models.pixels import normalise, to_uint8
from mixreorg.objectives.groupvit import project_texts
from mixreorg.objectives.mixreorg import MixReorgObjective
from mixreorg.randomness import sample_keys


def held_out_pairs(voc: Path, split: str, count: int) -> list[Pair]:
    """The first scenes of a held-out split with their captions; empty where the folder has no captions.

    Args:
        voc: folder in VOC layout as the scenes generator writes it, with ``captions_SPLIT.jsonl``.
        split: name of the split.
        count: scenes at most.

    Raises:
        MixreorgError: the captions or a picture cannot be read.
    """
    path = voc / f"captions_{split}.jsonl"
    if not path.is_file():
        return []
    pairs = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines()[:count]:
            record = json.loads(line)
            with Image.open(voc / "JPEGImages" / f"{record['image']}.jpg") as image:
                pairs.append(Pair(record["image"], str(voc), image.convert("RGB"), record["caption"]))
    except Exception as error:  # a damaged picture raises whatever the format's decoder happens to meet
        raise MixreorgError(f"cannot read the captioned scenes of {path} ({error}); make the scenes again") from error
    return pairs


@torch.no_grad()
def mixed_mask_accuracy_on(objective: MixReorgObjective, pairs: list[Pair], *, groups: int = 16) -> float:
    """Share of mixed patches whose source is found among the texts of their group, 0 to 1; 1 / K is chance.

    Consecutive pairs are mixed, the last group may be smaller; every mixed image of a group counts. The order of
    patches is keyed by the pair's index, so every model is asked the same questions.

    Args:
        objective: in evaluation mode; any model with a tokenizer can be inside, however it was trained.
        pairs: pictures of the model's size with captions.
        groups: mixing groups that are encoded together.
    """
    objective = objective.with_every_mixed_image()
    model = objective.model
    if model.tokenizer is None or not pairs:
        raise ValueError("needs a model with its tokenizer and at least one pair")
    device = model.logit_scale.device
    size = groups * objective.config.group_size
    found = 0.0
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        images = normalise(torch.stack([to_uint8(pair.image) for pair in part]).to(device))
        keys = sample_keys(0, torch.arange(start, start + len(part))).to(device)
        _, mixed, _ = objective.branches(images, keys, with_restored=False)
        ids = trim(model.tokenizer.encode([pair.caption for pair in part]), model.config.text.end_id).to(device)
        texts = project_texts(model, model.text_encoder(ids), slice(0, len(part)))
        found += float(objective.mask_accuracy(mixed.features, texts)) * len(part)
    return found / len(pairs)
