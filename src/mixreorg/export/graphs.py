"""A model's parts as modules that torch can export, and their ONNX graphs."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.image_encoder import ImageEncoding, StageOneState
from mixreorg.models.pixels import normalise
from mixreorg.segment.class_maps import map_segments, score_segments

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""Version of ONNX's operators: the oldest with everything a graph needs, so that old runtimes read it."""
MAX_SIDE = 8192
"""Longest side in pixels of a graph of fixed size."""
OUTPUT_AXES = {
    "assignment": ("batch", "segments", "grid_height", "grid_width"),
    "segment_embeddings": ("batch", "segments", "embedding"),
    "image_embedding": ("batch", "embedding"),
    "segment_map": ("batch", "height", "width"),
    "segment_scores": ("batch", "segments", "classes"),
    "text_features": ("batch", "embedding"),
}
"""Names of the axes of every output."""


class ImageGraph(nn.Module):
    """Grey levels to assignments and embeddings: the free-vocabulary image graph."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def encode(self, pixels: Tensor) -> tuple[ImageEncoding, Tensor, Tensor]:
        """Encoding, segment embeddings ``[B, S, E]`` and image embeddings ``[B, E]`` of ``[B, 3, H, W]`` uint8."""
        encoder = self.model.image_encoder
        tokens, grid = encoder.patch_embedding(normalise(pixels))
        state = StageOneState(tokens + encoder.resized_positions(grid), grid)
        encoding = encoder.group(encoder.advance(state, 0, encoder.num_stage_one_blocks))
        # Together, so that the projector's weights are in the file once.
        features = torch.cat([encoding.segment_tokens, encoding.pooled[:, None]], dim=1)
        embeddings = F.normalize(self.model.image_projector(features), dim=-1)
        return encoding, embeddings[:, :-1], embeddings[:, -1]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, 3, H, W]`` uint8 to assignment ``[B, S, h, w]``, segment embeddings and image embedding."""
        encoding, segments, image = self.encode(pixels)
        assignment = encoding.patch_assignment
        return assignment.reshape(*assignment.shape[:2], *encoding.grid), segments, image


class BakedGraph(ImageGraph):
    """Grey levels to the protocol's class scores, the classes' embeddings inside."""

    class_embeddings: Tensor
    phrases_of_class: Tensor

    def __init__(self, model: DualEncoder, class_embeddings: Tensor, owners: Sequence[int], shortlist: int) -> None:
        """Take the phrases' embeddings ``[P, E]`` and the class of each."""
        super().__init__(model)
        self.register_buffer("class_embeddings", class_embeddings.clone())
        groups = [[place for place, owner in enumerate(owners) if owner == index] for index in range(max(owners) + 1)]
        # Rows of one length: a phrase that stands twice changes no maximum.
        longest = max(map(len, groups))
        rows = [group + group[:1] * (longest - len(group)) for group in groups]
        self.register_buffer("phrases_of_class", torch.tensor(rows))
        self.logit_scale = float(model.scale.detach())
        self.shortlist = shortlist

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # other outputs
        """``[B, 3, H, W]`` uint8 to segment map ``[B, H, W]`` int32 and segment scores ``[B, S, C]``."""
        encoding, segments, image = self.encode(pixels)
        scores = score_segments(self._class_logits(segments), self._class_logits(image), self.shortlist)
        size = (pixels.shape[2], pixels.shape[3])
        return map_segments(encoding.patch_assignment, encoding.grid, size).int(), scores

    def _class_logits(self, embeddings: Tensor) -> Tensor:
        """Largest logit of each class's phrases: ``[..., E]`` to ``[..., C]``."""
        logits = embeddings @ self.class_embeddings.T * self.logit_scale
        if self.phrases_of_class.shape[1] == 1:
            return logits
        return logits[..., self.phrases_of_class].amax(dim=-1)


class TextGraph(nn.Module):
    """Token ids to text features in the joint space, before normalisation: templates are averaged first."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor) -> Tensor:
        """``[B, L]`` int64 to ``[B, E]``; L as long as the longest text or longer."""
        features: Tensor = self.model.text_projector(self.model.text_encoder(token_ids))
        return features


def image_onnx(
    graph: ImageGraph, name: str, outputs: Sequence[str], size: tuple[int, int] | None, example: int
) -> "ModelProto":
    """ONNX form of an image graph, for any batch.

    Args:
        graph: on the CPU.
        name: of the input.
        outputs: names of the outputs.
        size: height and width that it will take, or None for any.
        example: side in pixels to trace with.
    """
    patch = graph.model.config.image.patch_size
    # Height and width differ, so that one is not taken for the other.
    height, width = size or (max(example, 2 * patch), max(example, 2 * patch) + patch)
    axes = {0: "batch"} if size else {0: "batch", 2: "height", 3: "width"}
    return _to_onnx(graph, torch.zeros(2, 3, height, width, dtype=torch.uint8), name, outputs, axes)


def text_onnx(graph: TextGraph, name: str, outputs: Sequence[str]) -> "ModelProto":
    """ONNX form of the text graph, for any number of texts of any length up to the context."""
    config = graph.model.config.text
    example = torch.full((2, config.context_length), config.end_id)
    return _to_onnx(graph, example, name, outputs, {0: "batch", 1: "length"})


def _to_onnx(
    module: nn.Module, example: Tensor, name: str, outputs: Sequence[str], axes: dict[int, str]
) -> "ModelProto":
    """Trace and translate."""
    import onnx

    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of every number made from a size; the tests run graphs at many sizes.
        warnings.simplefilter("ignore")
        # dynamo=False: the newer exporter takes thirty times longer for the same graph.
        torch.onnx.export(
            module.eval(),
            (example,),
            buffer,  # type: ignore[arg-type]  # it takes an open file
            dynamo=False,
            opset_version=OPSET,
            input_names=[name],
            output_names=list(outputs),
            dynamic_axes={name: axes},
        )
    model = onnx.load_from_string(buffer.getvalue())
    _strip(model)
    _declare_outputs(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _strip(model: "ModelProto") -> None:
    """Remove what the exporter notes of the sources it traced."""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""


def _declare_outputs(model: "ModelProto") -> None:
    """Name the axes of every output, which the exporter's inference loses now and then."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        shape = output.type.tensor_type.shape
        del shape.dim[:]
        for axis in OUTPUT_AXES[output.name]:
            shape.dim.add().dim_param = axis
