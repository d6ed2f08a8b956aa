"""Our configurations as ``transformers`` writes them."""

from transformers import GroupViTConfig

from mixreorg.models.dual_encoder import DualEncoderConfig


def groupvit_config(config: DualEncoderConfig) -> GroupViTConfig:
    """The same architecture."""
    image, text = config.image, config.text
    return GroupViTConfig(
        vision_config={
            "image_size": image.image_size,
            "patch_size": image.patch_size,
            "hidden_size": image.width,
            "intermediate_size": 4 * image.width,
            "num_attention_heads": image.num_heads,
            "depths": list(image.depths),
            "num_hidden_layers": sum(image.depths),
            "num_group_tokens": [*image.num_group_tokens, 0],
            "num_output_groups": [*image.num_segments, image.num_segments[-1]],
        },
        text_config={
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.depth,
            "num_attention_heads": text.num_heads,
            "bos_token_id": text.end_id - 1,
            "eos_token_id": text.end_id,
            "pad_token_id": 0,
        },
        projection_dim=config.embed_dim,
        projection_intermediate_dim=config.projector_hidden,
    )
