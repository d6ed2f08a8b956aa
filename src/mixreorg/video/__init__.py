"""Videos and cameras: frames, scores averaged over time, an overlay video."""
