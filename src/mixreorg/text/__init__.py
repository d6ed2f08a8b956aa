"""Text before the model: captions and class names to token ids."""
