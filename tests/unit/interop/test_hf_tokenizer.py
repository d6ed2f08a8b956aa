from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mixreorg.errors import MixreorgError
from mixreorg.interop.hf_tokenizer import read_hf_tokenizer, write_hf_tokenizer
from mixreorg.text.tokenizer import Tokenizer

TEXTS = ["a photo of a dog.", "A  Photo of the CAT on grass", "12 cafés, dog's tail", "the 猫 is here", ""]


@pytest.fixture(scope="module", params=["clip", "own"])
def both(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer.clip() if request.param == "clip" else tokenizer


def test_transformers_gives_the_same_ids(both: Tokenizer, tmp_path: Path) -> None:
    write_hf_tokenizer(both, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXTS).input_ids == both.encode_ids(TEXTS)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (both.start_id, both.end_id)
    padded = theirs(TEXTS, padding="max_length", truncation=True).input_ids
    assert {len(ids) for ids in padded} == {both.context_length}


@pytest.mark.parametrize("kept", [{"merges.txt", "vocab.json"}, {"merges.txt"}, {"tokenizer.json"}])
def test_the_way_back(both: Tokenizer, tmp_path: Path, kept: set[str]) -> None:
    write_hf_tokenizer(both, tmp_path)
    for path in tmp_path.iterdir():
        if path.name not in kept:
            path.unlink()
    read = read_hf_tokenizer(tmp_path, both.vocab_size, both.context_length)
    assert read is not None
    assert read.to_dict() == both.to_dict()


def test_what_transformers_saves_is_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_hf_tokenizer(tokenizer, tmp_path / "ours")
    AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    read = read_hf_tokenizer(tmp_path / "theirs", tokenizer.vocab_size, tokenizer.context_length)
    assert read is not None
    assert read.to_dict() == tokenizer.to_dict()


def test_no_tokenizer_and_damaged_ones(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert read_hf_tokenizer(tmp_path, 600, 24) is None
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(MixreorgError, match=r"'a b c' is not a merge of two symbols"):
        read_hf_tokenizer(tmp_path, 600, 24)
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(MixreorgError, match=r"cannot read .*merges\.txt"):
        read_hf_tokenizer(tmp_path, 600, 24)
    write_hf_tokenizer(tokenizer, tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(MixreorgError, match="or other ids than CLIP's layout"):
        read_hf_tokenizer(tmp_path, tokenizer.vocab_size, 24)
