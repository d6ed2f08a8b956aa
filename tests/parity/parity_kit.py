"""The architecture of the tensors in ``../shared/parity``."""

from mixreorg.models.dual_encoder import DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.text_encoder import TextEncoderConfig

KIT_CONFIG = DualEncoderConfig(
    image=ImageEncoderConfig(
        image_size=96, width=64, num_heads=2, depths=(2, 1, 1), num_group_tokens=(8, 4), num_segments=(8, 4)
    ),
    text=TextEncoderConfig(vocab_size=4096, width=64, depth=2, num_heads=1, end_id=4095),
    embed_dim=64,
    projector_hidden=128,
)
