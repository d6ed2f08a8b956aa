"""Fused attention against plain products, forward and backward, on this CPU: why ``models.layers.attend`` chooses."""

import torch
import torch.nn.functional as F

from harness import median_seconds, print_environment, print_table


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Softmax attention as three operations."""
    return ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).softmax(dim=-1) @ value


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    print_environment()
    rows: list[list[object]] = []
    for shape in ((128, 4, 80, 32), (32, 6, 260, 64)):
        for dtype in (torch.float32, torch.bfloat16):
            tokens = torch.randn(*shape, dtype=dtype).requires_grad_()

            def train(attention: object, tokens: torch.Tensor = tokens) -> None:
                attention(tokens, tokens, tokens).sum().backward()  # type: ignore[operator]

            variants = {
                "fused": lambda train=train: train(F.scaled_dot_product_attention),
                "plain": lambda train=train: train(plain),
            }
            seconds = median_seconds(variants)
            milliseconds = {name: 1000 * value for name, value in seconds.items()}
            ratio = seconds["fused"] / seconds["plain"]
            rows.append([str(shape), str(dtype), milliseconds["fused"], milliseconds["plain"], ratio])
    print_table(["[B, heads, T, D / heads]", "type", "fused, ms", "plain, ms", "fused / plain"], rows)


if __name__ == "__main__":
    main()
