"""Tokenizer files as ``transformers`` keeps them beside a model, from and to ours: both have CLIP's layout of ids."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as BackendTokenizer

from mixreorg.errors import MixreorgError
from mixreorg.files import read_json, write_atomically, write_json, write_text
from mixreorg.text.tokenizer import Merge, Tokenizer

VOCABULARY, MERGES, WHOLE = "vocab.json", "merges.txt", "tokenizer.json"
"""Files of a tokenizer; the third holds the other two and what CLIP does to a text before them."""
START, END = "<|startoftext|>", "<|endoftext|>"
"""How control tokens are spelt there; they have no spelling here."""
_WORD_END = "</w>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def read_hf_tokenizer(folder: Path, vocab_size: int, context_length: int) -> Tokenizer | None:
    """Read the tokenizer in a folder of ``transformers``.

    Args:
        folder: with ``merges.txt`` (and ``vocab.json``) or ``tokenizer.json``.
        vocab_size: ids of the model.
        context_length: ids per text of the model.

    Returns:
        The tokenizer, or None where the folder holds none.

    Raises:
        MixreorgError: damaged files, another kind of tokenizer, or one of another model.
    """
    if (folder / MERGES).is_file():
        path = folder / MERGES
        merges = _read_merges(path)
        vocabulary = read_json(folder / VOCABULARY) if (folder / VOCABULARY).is_file() else None
    elif (folder / WHOLE).is_file():
        path = folder / WHOLE
        content = read_json(path)
        if isinstance(content, dict) and "model" not in content and "merges" in content:
            return Tokenizer.from_dict(content, source=str(path))  # of this package's own form
        model = content.get("model") if isinstance(content, dict) else None
        if not isinstance(model, dict) or not isinstance(model.get("merges"), list):
            raise MixreorgError(f"{path} is not a byte-pair tokenizer, which a GroupViT has; restore it")
        merges = [_as_merge(merge, path) for merge in model["merges"]]
        vocabulary = model.get("vocab")
    else:
        return None
    tokenizer = Tokenizer(merges, context_length)
    if tokenizer.vocab_size != vocab_size or (vocabulary is not None and vocabulary != _vocabulary(tokenizer)):
        raise MixreorgError(
            f"{path} makes {tokenizer.vocab_size:,} ids, or other ids than CLIP's layout, and the model has "
            f"{vocab_size:,}; restore the tokenizer it was trained with"
        )
    return tokenizer


def write_hf_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer so that ``transformers.AutoTokenizer`` reads it, as a ``CLIPTokenizer``.

    It gives the same ids for every text that needs no cleaning; ours also mends mojibake and HTML entities first, and
    reads ``<|endoftext|>`` as the characters it is made of.

    Raises:
        MixreorgError: the files cannot be written.
    """
    vocabulary = _vocabulary(tokenizer)
    lines = ["#version: 0.2", *(" ".join(merge) for merge in tokenizer.merges)]
    write_text(folder / MERGES, "\n".join(lines) + "\n")
    write_text(folder / VOCABULARY, json.dumps(vocabulary, ensure_ascii=False))
    backend = _backend(vocabulary, tokenizer)
    write_atomically(folder / WHOLE, lambda path: backend.save(str(path)))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    write_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": tokenizer.context_length, **special}
    write_json(folder / "tokenizer_config.json", settings)


def _vocabulary(tokenizer: Tokenizer) -> dict[str, int]:
    return {token: index for index, token in enumerate((*tokenizer.tokens, START, END))}


def _backend(vocabulary: dict[str, int], tokenizer: Tokenizer) -> BackendTokenizer:
    """CLIP's chain: lower case, words, bytes, merges, control tokens around."""
    model = models.BPE(vocabulary, list(tokenizer.merges), unk_token=END, end_of_word_suffix=_WORD_END)
    backend = BackendTokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        (END, tokenizer.end_id), (START, tokenizer.start_id), trim_offsets=False, add_prefix_space=False
    )
    backend.add_special_tokens([START, END])
    return backend


def _read_merges(path: Path) -> list[Merge]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MixreorgError(f"cannot read {path}: {error}; restore it") from error
    return [_as_merge(line, path) for line in lines if line.strip() and not line.startswith("#version")]


def _as_merge(merge: Any, path: Path) -> Merge:
    parts = merge.split() if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise MixreorgError(f"{path} is damaged: {merge!r} is not a merge of two symbols; restore it")
    return parts[0], parts[1]
