"""What ``transformers`` keeps beside the weights of a ``GroupViTModel``, and what it cannot express."""

from pathlib import Path
from typing import Any, Literal

from mixreorg.files import write_json
from mixreorg.interop.hf_tokenizer import write_hf_tokenizer
from mixreorg.models.dual_encoder import LOGIT_SCALE_INIT, DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.pixels import IMAGE_MEAN, IMAGE_STD
from mixreorg.text.tokenizer import Tokenizer

_BICUBIC = 3
_LAYER_NORM_EPS = 1e-5


def inexpressible(config: DualEncoderConfig, layout: Literal["hf", "original"]) -> list[str]:
    """Options of an architecture that the published GroupViT does not have, each with its setting here.

    Args:
        config: of the model.
        layout: of whom; the original code also fixes the activation of the text encoder, and ``transformers`` takes
            stage one to have as many group tokens as segments.
    """
    image, text = config.image, config.text
    problems = {
        f"the convolutional stem (model.image.stem={image.stem})": image.stem != "patch",
        f"soft assignment (model.image.assignment={image.assignment})": image.assignment != "hard",
        f"cosine assignment logits (model.image.assignment_logits={image.assignment_logits})": (
            image.assignment_logits != "dot"
        ),
        "centred assignment keys (model.image.centre_keys=true)": image.centre_keys,
        "grouping without attention before it (model.image.pre_assign_attention=false)": not image.pre_assign_attention,
        f"local blocks (model.image.num_local_blocks={image.num_local_blocks})": image.num_local_blocks > 0,
        "linear projectors (model.projector_hidden=0)": config.projector_hidden == 0,
    }
    if layout == "original":
        problems[f"the text encoder's activation (model.text.activation={text.activation})"] = (
            text.activation != "quick_gelu"
        )
    else:
        # It sizes the layer that makes stage two's group tokens of stage one's by stage one's number of segments.
        tokens, segments = image.num_group_tokens[0], image.num_segments[0]
        problems[
            f"{tokens} group tokens for {segments} segments in stage one (model.image.num_group_tokens, "
            "model.image.num_segments)"
        ] = tokens != segments
    return [name for name, holds in problems.items() if holds]


def hf_config(config: DualEncoderConfig) -> dict[str, Any]:
    """The ``config.json`` of a ``GroupViTModel``.

    Args:
        config: an architecture that ``transformers`` can express.
    """
    text = config.text
    return {
        "architectures": ["GroupViTModel"],
        "model_type": "groupvit",
        # What whoever loads the weights computes in, however they are stored: the image processor makes float32. Both
        # names, for releases before and after the field was renamed.
        "torch_dtype": "float32",
        "dtype": "float32",
        "projection_dim": config.embed_dim,
        "projection_intermediate_dim": config.projector_hidden,
        "logit_scale_init_value": round(LOGIT_SCALE_INIT, 4),
        "text_config": {
            "model_type": "groupvit_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "hidden_size": text.width,
            "intermediate_size": int(text.width * text.mlp_ratio),
            "num_hidden_layers": text.depth,
            "num_attention_heads": text.num_heads,
            "hidden_act": text.activation,
            "layer_norm_eps": _LAYER_NORM_EPS,
            "bos_token_id": text.end_id - 1,
            "eos_token_id": text.end_id,
            "pad_token_id": text.end_id,
        },
        "vision_config": _vision_config(config.image),
    }


def _vision_config(image: ImageEncoderConfig) -> dict[str, Any]:
    return {
        "model_type": "groupvit_vision_model",
        "image_size": image.image_size,
        "patch_size": image.patch_size,
        "num_channels": 3,
        "hidden_size": image.width,
        "intermediate_size": int(image.width * image.mlp_ratio),
        "num_attention_heads": image.num_heads,
        "depths": list(image.depths),
        "num_hidden_layers": sum(image.depths),
        "num_group_tokens": [*image.num_group_tokens, 0],
        "num_output_groups": [*image.num_segments, 0],
        "assign_mlp_ratio": [0.5, image.mlp_ratio],
        "assign_eps": 1.0,
        "hidden_act": "gelu",
        "layer_norm_eps": _LAYER_NORM_EPS,
    }


def write_hf_companions(config: DualEncoderConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Write configuration, tokenizer and image processor; the weights are somebody else's.

    The processor resizes and crops to the size of the training images, as that of the published models does.

    Raises:
        MixreorgError: a file cannot be written.
    """
    write_json(folder / "config.json", hf_config(config))
    write_hf_tokenizer(tokenizer, folder)
    size = config.image.image_size
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "do_convert_rgb": True,
    }
    write_json(folder / "preprocessor_config.json", processor)
