"""Our image encoder against ``transformers``' GroupViT with the same weights, at 224 and 448 px."""

import argparse

import torch
from transformers import GroupViTConfig, GroupViTModel
from transformers import __version__ as transformers_version

from harness import median_seconds, print_environment, print_table
from mixreorg.interop.key_maps import from_hf
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print_environment()
    print(f"transformers {transformers_version}, batch {arguments.batch}\n")
    theirs = GroupViTModel(GroupViTConfig()).eval()
    ours = DualEncoder(DualEncoderConfig()).eval()
    ours.load_state_dict(from_hf(theirs.state_dict()))
    vision = theirs.vision_model
    rows: list[list[object]] = []
    for side in (224, 448):
        images = torch.randn(arguments.batch, 3, side, side)

        def encode_theirs(images: torch.Tensor = images) -> torch.Tensor:
            tokens = vision.embeddings(images, interpolate_pos_encoding=True)
            return vision.layernorm(vision.encoder(hidden_states=tokens).last_hidden_state)

        def encode_ours(images: torch.Tensor = images) -> torch.Tensor:
            return ours.image_encoder(images).segment_tokens

        def encode_ours_bf16(images: torch.Tensor = images) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return ours.image_encoder(images).segment_tokens

        difference = (encode_theirs() - encode_ours()).abs().max().item()
        variants = {"transformers": encode_theirs, "mixreorg": encode_ours, "mixreorg, bf16 autocast": encode_ours_bf16}
        seconds = median_seconds(variants, arguments.rounds)
        for name, value in seconds.items():
            rows.append([side, name, arguments.batch / value, seconds["transformers"] / value, difference])
    print_table(["px", "encoder", "images/s", "speed-up", "largest fp32 difference"], rows)


if __name__ == "__main__":
    main()
