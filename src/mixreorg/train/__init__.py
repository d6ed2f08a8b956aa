"""Pre-training: optimizer groups and schedule, checkpoints, logs, and the loop that knows only loss terms."""
