"""Image and text encoder with their projections into the joint space."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mixreorg.config import StrictConfig
from mixreorg.models.grouping import Assignment
from mixreorg.models.image_encoder import ImageEncoder, ImageEncoderConfig, ImageEncoding
from mixreorg.models.text_encoder import TextEncoder, TextEncoderConfig
from mixreorg.text.tokenizer import Tokenizer

Statistics = Literal["batch", "batch_only", "running"]
"""What a projector's BatchNorm normalises by in training."""

LOGIT_SCALE_INIT = math.log(1 / 0.07)
LOGIT_SCALE_MAX = 100.0


class DualEncoderConfig(StrictConfig):
    """Architecture of the whole model. The defaults are the published GroupViT ViT-S/16."""

    image: ImageEncoderConfig = ImageEncoderConfig()
    text: TextEncoderConfig = TextEncoderConfig()
    embed_dim: int = Field(256, gt=0)
    """Dimension E of the joint space."""
    projector_hidden: int = Field(4096, ge=0)
    """Inner width of both projectors (Linear, BatchNorm, ReLU, Linear); 0 makes them one linear layer."""
    multi_label: bool = False
    """Whether the model holds the logit scale of the multi-label loss, which inference does not use. In training the
    objective decides it, whatever this says."""


@dataclass(frozen=True)
class ImageOutput:
    """An encoded batch of images in the joint space."""

    image_embedding: Tensor
    """``[B, E]`` L2-normalised image embeddings."""
    segment_embeddings: Tensor
    """``[B, S, E]`` L2-normalised embeddings of the final segments."""
    encoding: ImageEncoding
    """Segment tokens, assignments of both grouping blocks, patch grid."""

    def part(self, start: int, stop: int) -> "ImageOutput":
        """The images ``start`` to ``stop`` (exclusive) of the batch."""
        rows = slice(start, stop)
        first, second = self.encoding.assignments
        encoding = ImageEncoding(
            self.encoding.segment_tokens[rows],
            (Assignment(first.soft[rows]), Assignment(second.soft[rows])),
            self.encoding.grid,
        )
        return ImageOutput(self.image_embedding[rows], self.segment_embeddings[rows], encoding)

    @classmethod
    def concatenate(cls, parts: list["ImageOutput"]) -> "ImageOutput":
        """Join batches of images of one size."""
        encodings = [part.encoding for part in parts]
        encoding = ImageEncoding(
            torch.cat([item.segment_tokens for item in encodings]),
            (
                Assignment(torch.cat([item.assignments[0].soft for item in encodings])),
                Assignment(torch.cat([item.assignments[1].soft for item in encodings])),
            ),
            encodings[0].grid,
        )
        return cls(
            torch.cat([part.image_embedding for part in parts]),
            torch.cat([part.segment_embeddings for part in parts]),
            encoding,
        )


class Projector(nn.Module):
    """Features to the joint space, un-normalised: ``[..., D] -> [..., E]``."""

    def __init__(self, width: int, hidden: int, out: int, *, initialise: bool = True) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.norm = nn.BatchNorm1d(hidden) if hidden else None
        self.out = nn.Linear(hidden or width, out)
        if initialise:
            self.init_weights()

    def init_weights(self) -> None:
        """Initialise: truncated normal of std 0.02, or ``width ** -0.5`` for a single layer; biases 0."""
        for layer in (self.hidden, self.out):
            if layer is not None:
                nn.init.trunc_normal_(layer.weight, std=0.02 if self.hidden else layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, statistics: Statistics = "batch") -> Tensor:
        """Project.

        Args:
            features: ``[..., D]``; all leading dimensions together are the batch of the BatchNorm.
            statistics: in training, normalise by this batch's statistics and update the running ones (``batch``),
                or leave those alone (``batch_only``), or use the running ones as they are, which is what inference
                does (``running``). Makes no difference in evaluation.
        """
        if self.hidden is None or self.norm is None:
            projected: Tensor = self.out(features)
            return projected
        x = self.hidden(features).flatten(0, -2)
        norm = self.norm
        if statistics == "batch" or not self.training:
            x = norm(x)
        elif statistics == "batch_only":
            x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
        else:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            # Copies: backward needs the values used here, and another call may update the buffers in place first.
            mean, variance = norm.running_mean.clone(), norm.running_var.clone()
            x = F.batch_norm(x, mean, variance, norm.weight, norm.bias, eps=norm.eps)
        projected = self.out(F.relu(x))
        return projected.view(*features.shape[:-1], -1)


class _NoDefaultWeights(TorchFunctionMode):
    """Leaves out the random numbers with which torch's layers start.

    The usual way, building on torch's meta device, imports another two seconds of torch at its first use.
    """

    _OPERATIONS = frozenset({"kaiming_uniform_", "normal_", "uniform_"})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self._OPERATIONS:
            # Functions of torch.nn.init name the tensor, methods of tensors do not.
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class DualEncoder(nn.Module):
    """GroupViT: a grouping image encoder and a text encoder that share an embedding space.

    The tokenizer belongs to the model: it is saved with it and makes texts into its ids.

    Args:
        config: the architecture.
        tokenizer: goes with the model.
        initialise: False where weights are about to be loaded, see :meth:`for_weights`.
    """

    def __init__(
        self, config: DualEncoderConfig, tokenizer: Tokenizer | None = None, *, initialise: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        # Values of the protocol that the model was trained to be used with; read by the segmenter.
        self.inference_protocol: dict[str, Any] | None = None
        # Values of a calibration that was saved with it, likewise.
        self.inference_calibration: dict[str, Any] | None = None
        projector = partial(Projector, hidden=config.projector_hidden, out=config.embed_dim, initialise=initialise)
        self.image_encoder = ImageEncoder(config.image, initialise=initialise)
        self.text_encoder = TextEncoder(config.text, initialise=initialise)
        self.image_projector = projector(config.image.width)
        self.text_projector = projector(config.text.width)
        # One element instead of a scalar, which sharded training cannot split.
        self.logit_scale = nn.Parameter(torch.full((1,), LOGIT_SCALE_INIT))
        own_scale = nn.Parameter(torch.full((1,), LOGIT_SCALE_INIT)) if config.multi_label else None
        self.register_parameter("multi_label_logit_scale", own_scale)
        self.multi_label_logit_scale: nn.Parameter | None

    @classmethod
    def for_weights(cls, config: DualEncoderConfig, tokenizer: Tokenizer | None = None) -> "DualEncoder":
        """A model whose weights are about to be loaded: they hold anything until then.

        Drawing random weights takes longer than reading trained ones. This draws none, so loading a model leaves
        torch's generator alone, too.
        """
        with _NoDefaultWeights():
            return cls(config, tokenizer, initialise=False)

    @property
    def scale(self) -> Tensor:
        """The factor on cosine similarities: the learned scale, exponentiated once and clamped at 100."""
        return self.logit_scale[0].exp().clamp(max=LOGIT_SCALE_MAX)

    @property
    def multi_label_scale(self) -> Tensor:
        """The same for noun prompts, in a model that is built for the multi-label loss."""
        assert self.multi_label_logit_scale is not None
        return self.multi_label_logit_scale[0].exp().clamp(max=LOGIT_SCALE_MAX)

    def encode_image(self, images: Tensor, keys: Tensor | None = None) -> ImageOutput:
        """Encode normalised images.

        Args:
            images: ``[B, 3, H, W]``, ImageNet mean and standard deviation, any H and W.
            keys: ``[B]`` keys of the training noise; None for none.
        """
        encoding = self.image_encoder(images, keys)
        return ImageOutput(
            image_embedding=F.normalize(self.image_projector(encoding.pooled), dim=-1),
            segment_embeddings=F.normalize(self.image_projector(encoding.segment_tokens, "running"), dim=-1),
            encoding=encoding,
        )

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Encode token ids ``[B, L]`` into L2-normalised embeddings ``[B, E]``."""
        return F.normalize(self.text_projector(self.text_encoder(token_ids)), dim=-1)

    def similarity(self, image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
        """Scaled cosine similarities ``[B, B_text]`` of L2-normalised embeddings."""
        return self.scale * image_embeddings @ text_embeddings.T

    @torch.no_grad()
    def encode_prompts(self, prompts: list[list[str]], batch_size: int = 256) -> Tensor:
        """Embed phrases, each given by all its prompts (one per template).

        The features of a phrase's prompts are averaged *before* normalisation, as the published evaluation does.

        Args:
            prompts: one list of prompts per phrase, all of the same length.
            batch_size: prompts per forward pass.

        Returns:
            ``[len(prompts), E]`` L2-normalised.
        """
        if self.tokenizer is None:
            raise ValueError("this model was built without a tokenizer; pass one to DualEncoder")
        flat = [prompt for group in prompts for prompt in group]
        parts = []
        for start in range(0, len(flat), batch_size):
            ids = self.tokenizer.encode(flat[start : start + batch_size])
            ids = trim(ids, self.config.text.end_id).to(self.logit_scale.device)
            parts.append(self.text_projector(self.text_encoder(ids)))
        features = torch.cat(parts).view(len(prompts), -1, self.config.embed_dim)
        return F.normalize(features.mean(dim=1), dim=-1)


def trim(token_ids: Tensor, end_id: int) -> Tensor:
    """Cut token ids ``[..., L]`` after the longest text; the causal encoder gives the same features."""
    longest = int((token_ids == end_id).int().argmax(dim=-1).max()) + 1
    return token_ids[..., :longest]
