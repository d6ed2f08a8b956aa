"""``load_model``: a model of any origin, ready for inference."""

from pathlib import Path

import torch

from mixreorg.errors import MixreorgError
from mixreorg.files import exists, read_json
from mixreorg.interop.checkpoint_files import FOLDER_FILES, FOLDER_INDICES
from mixreorg.interop.groupvit_checkpoint import GroupViTWeights, read_groupvit
from mixreorg.interop.hub import locate
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import FORMAT, check_state, load_model_folder, move
from mixreorg.text.tokenizer import Tokenizer


def load_model(
    source: str | Path, device: str | torch.device = "cpu", *, unseen: DualEncoderConfig | None = None
) -> DualEncoder:
    """Load a GroupViT or MixReorg model for inference.

    Args:
        source: ``scenes-tiny``, the model that comes with the package; a model folder, a checkpoint folder or a run
            folder (its best checkpoint by mIoU, or the newest where none was evaluated); a folder or file of
            ``transformers``' ``GroupViTModel``; a ``.pth`` of the original code; ``OWNER/NAME`` on the Hugging Face
            hub, or ``groupvit-gcc-yfcc`` and ``groupvit-gcc-redcaps``, the published weights (see
            :func:`~mixreorg.interop.hub.locate`). The architecture of others' weights is read from the tensors.
        device: where the weights go.
        unseen: for others' files that stand alone: what tensors do not show, above all the numbers of heads. By default
            those of the published models, whose heads are 64 wide.

    Returns:
        The model in evaluation mode, with tokenizer and, where one was saved, ``inference_protocol``.

    Raises:
        MixreorgError: nothing there, not a GroupViT, no tokenizer, or tensors that are missing, unexpected or
            mis-shaped.
    """
    path = locate(source)
    if not is_foreign(path):
        return load_model_folder(path, device)
    weights = read_groupvit(path, unseen)
    model = DualEncoder.for_weights(weights.config, require_tokenizer(weights))
    check_state(weights.state, model.state_dict(), str(weights.file))
    model.load_state_dict(weights.state)
    model.inference_protocol, model.inference_calibration = weights.protocol, weights.calibration
    return move(model, device).eval()


def is_foreign(path: Path) -> bool:
    """Whether a path is to be read by its tensors, and not as a model, checkpoint or run folder of this package."""
    if not exists(path):
        return False
    if path.is_file():
        return True
    if (path / "state.json").is_file() or (path / "checkpoints").is_dir():
        return False
    config = path / "config.json"
    content = read_json(config) if config.is_file() else {}
    own = isinstance(content, dict) and content.get("format") == FORMAT
    return not own and any((path / name).is_file() for name in (*FOLDER_FILES, *FOLDER_INDICES))


def require_tokenizer(weights: GroupViTWeights) -> Tokenizer:
    """The tokenizer of a checkpoint: its own, or CLIP's where the vocabulary has CLIP's size.

    Raises:
        MixreorgError: another vocabulary, and no tokenizer that makes it.
    """
    text = weights.config.text
    tokenizer = weights.tokenizer or Tokenizer.clip(text.context_length)
    if (tokenizer.vocab_size, tokenizer.context_length) != (text.vocab_size, text.context_length):
        what = "CLIP's" if weights.tokenizer is None else "the one beside it"
        raise MixreorgError(
            f"{weights.file} needs a tokenizer of {text.vocab_size:,} ids and context {text.context_length}; {what} "
            f"has {tokenizer.vocab_size:,} and {tokenizer.context_length}. Put the tokenizer.json that it was trained "
            f"with into {weights.file.parent}"
        )
    if tokenizer.end_id != text.end_id:
        raise MixreorgError(
            f"{weights.file} ends texts with the id {text.end_id}, and its tokenizer with the highest, "
            f"{tokenizer.end_id}; correct eos_token_id in its config.json"
        )
    return tokenizer
