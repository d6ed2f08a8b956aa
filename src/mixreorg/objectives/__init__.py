"""Training objectives: GroupViT's contrastive loss and MixReorg's three branches around the same encoder."""
