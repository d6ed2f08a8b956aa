"""Many photos: finding them, reading ahead, going on where a run stopped, summaries."""
