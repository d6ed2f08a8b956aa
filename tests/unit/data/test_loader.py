"""Batches: same content for every number of processes and workers, nothing dropped, problems handed over."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mixreorg.data.loader import PairBatch, PairDataset, collate, step_visits
from mixreorg.data.order import VisitOrder, epoch_order
from mixreorg.data.pairs import open_pairs
from mixreorg.data.transforms import ImageTransformConfig
from mixreorg.errors import MixreorgError
from mixreorg.text.noun_prompts import NounPrompter
from mixreorg.text.nouns import NounList
from mixreorg.text.tokenizer import Tokenizer

NUM_PAIRS = 10


def make_dataset(folder: Path, seed: int = 0) -> PairDataset:
    """Ten noisy pictures, of which numbers 4 and 7 are damaged."""
    for number in range(NUM_PAIRS):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "4.png").write_bytes(b"damaged")
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:300])
    rows = "".join(f"{number}.png,caption {number}\n" for number in range(NUM_PAIRS))
    (folder / "captions.csv").write_text("image,caption\n" + rows)
    tokenizer = Tokenizer.train(["caption 1", "caption 2"], vocab_size=600, context_length=12)
    (folder / "nouns.txt").write_text("caption\n1\n2\n3\n5\n")
    nouns = NounPrompter(NounList.from_file(folder / "nouns.txt"), tokenizer, 2, "subset", seed)
    return PairDataset(open_pairs(folder), tokenizer, ImageTransformConfig(image_size=16), seed, nouns)


def load(dataset: PairDataset, workers: int, steps: int = 4) -> list[PairBatch]:
    visits = step_visits(dataset.source.order(dataset.seed), batch_size=6, start_step=0, num_steps=steps)
    return list(DataLoader(dataset, batch_sampler=visits, num_workers=workers, collate_fn=collate))


def test_every_epoch_visits_every_pair_once_across_batch_borders() -> None:
    steps = list(step_visits(VisitOrder(3, [[10]]), batch_size=4, start_step=0, num_steps=10))
    assert [len(step) for step in steps] == [4] * 10
    visits = [visit for step in steps for visit in step]
    for epoch in range(4):
        expected = [(epoch, index) for index in epoch_order(3, epoch, 10).tolist()]
        assert visits[epoch * 10 : (epoch + 1) * 10] == expected


def test_a_batch_may_be_larger_than_an_epoch() -> None:
    (step,) = step_visits(VisitOrder(3, [[10]]), batch_size=25, start_step=2, num_steps=1)
    stream = [(epoch, index) for epoch in range(8) for index in epoch_order(3, epoch, 10).tolist()]
    assert step == stream[50:75]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_together_take_the_same_steps_from_any_start(world: int) -> None:
    whole = list(step_visits(VisitOrder(1, [[10]]), batch_size=6, start_step=0, num_steps=12))
    order = VisitOrder(1, [[10]])
    ranks = [step_visits(order, 6, start_step=5, num_steps=7, rank=rank, world=world) for rank in range(world)]
    together = [[visit for share in shares for visit in share] for shares in zip(*ranks, strict=True)]
    assert together == whole[5:]


def test_a_batch_that_processes_cannot_share_is_an_error() -> None:
    with pytest.raises(MixreorgError, match=r"batch of 10 .* 4 processes"):
        step_visits(VisitOrder(0, [[10]]), batch_size=10, start_step=0, num_steps=1, rank=0, world=4)


def test_batches_hold_what_the_sampler_asked_for(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, seed=5)
    batches = load(dataset, workers=0)
    visits = list(step_visits(VisitOrder(5, [[NUM_PAIRS]]), 6, 0, 4))
    for batch, expected in zip(batches, visits, strict=True):
        assert batch.images.shape == (6, 3, 16, 16)
        assert batch.images.dtype == torch.uint8
        assert batch.token_ids.shape == (6, 12)
        assert batch.sample_ids.tolist() == [epoch * NUM_PAIRS + index for epoch, index in expected]
        indices = [{4: 5, 7: 8}.get(index, index) for _, index in expected]
        assert batch.captions == [f"caption {index}" for index in indices]
        assert torch.equal(batch.token_ids, dataset.tokenizer.encode(batch.captions))
        assert batch.nouns is not None
        assert batch.nouns.token_ids.shape == (6, 2, 12)
        # The noun "caption" is in all captions, the second is the number, where it is in the list.
        numbers = {1: 1, 2: 2, 3: 3, 5: 4}
        expected_words = [{0, numbers.get(index, -1)} for index in indices]
        assert [set(words) for words in batch.nouns.words.tolist()] == expected_words
    assert len({sample_id for batch in batches for sample_id in batch.sample_ids.tolist()}) == 24


def test_workers_change_nothing_and_their_problems_arrive(tmp_path: Path) -> None:
    alone = load(make_dataset(tmp_path), workers=0)
    dataset = make_dataset(tmp_path)
    shared = load(dataset, workers=2)
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.token_ids, other.token_ids)
        assert torch.equal(one.sample_ids, other.sample_ids)
        assert one.captions == other.captions
        assert one.nouns is not None
        assert other.nouns is not None
        assert torch.equal(one.nouns.token_ids, other.nouns.token_ids)
        assert torch.equal(one.nouns.words, other.nouns.words)
    assert len(dataset.source.problems) == 0
    for batch in shared:
        dataset.source.problems.extend(batch.problems)
    assert dataset.source.problems.counts == {"damaged image": 2}


def test_augmentation_differs_between_epochs_and_seeds(tmp_path: Path) -> None:
    first, again = make_dataset(tmp_path), pickle.loads(pickle.dumps(make_dataset(tmp_path)))
    assert torch.equal(first[0, 1].image, again[0, 1].image)
    assert not torch.equal(first[0, 1].image, first[1, 1].image)
    assert not torch.equal(first[0, 1].image, make_dataset(tmp_path, seed=1)[0, 1].image)


def test_a_batch_moves_to_a_device(tmp_path: Path) -> None:
    batch = load(make_dataset(tmp_path), workers=0, steps=1)[0]
    moved = batch.to("meta")
    assert {moved.images.device.type, moved.token_ids.device.type, moved.sample_ids.device.type} == {"meta"}
    assert moved.captions == batch.captions
    assert moved.nouns is not None
    assert {moved.nouns.token_ids.device.type, moved.nouns.words.device.type} == {"meta"}


def test_captions_and_noun_prompts_are_cut_after_the_longest_of_each(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    end_id = dataset.tokenizer.end_id
    batch = load(dataset, workers=0, steps=1)[0]
    cut = batch.trimmed(end_id)
    assert batch.nouns is not None
    assert cut.nouns is not None
    for ids, shorter in ((batch.token_ids, cut.token_ids), (batch.nouns.token_ids, cut.nouns.token_ids)):
        length = shorter.shape[-1]
        assert torch.equal(ids[..., :length], shorter)
        assert (shorter == end_id).sum() == ids[..., 0].numel()
        assert (shorter[..., -1] == end_id).any()
        assert not ids[..., length:].any()
    dataset.nouns = None
    assert load(dataset, workers=0, steps=1)[0].trimmed(end_id).nouns is None


def test_every_visit_of_weighted_sources_has_an_id_of_its_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make_dataset(tmp_path / folder)
    dataset = make_dataset(tmp_path / "a")
    dataset.source = open_pairs([tmp_path / "a", tmp_path / "b"])
    visits = step_visits(dataset.source.order(0, weights=(3.0, 1.0)), batch_size=8, start_step=0, num_steps=10)
    ids = torch.cat([collate([dataset[visit] for visit in step]).sample_ids for step in visits])
    assert len(ids.unique()) == 80
    assert (ids % 20 < 10).sum() == 60


def test_weights_that_do_not_fit_the_sources_are_an_error(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    (tmp_path / "none.csv").write_text("image,caption\n")
    source = open_pairs([tmp_path / "captions.csv", tmp_path / "none.csv"])
    with pytest.raises(MixreorgError, match="3 weights for 2 data sources"):
        source.order(0, weights=(1.0, 1.0, 1.0))
    with pytest.raises(MixreorgError, match=r"no caption pairs in .*none\.csv; leave it and its weight out"):
        source.order(0, weights=(1.0, 1.0))
    assert len(source.order(0)) == NUM_PAIRS
