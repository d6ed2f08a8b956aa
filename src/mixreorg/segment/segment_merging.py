"""Segments of several windows that are the same thing: one embedding, hence one name, for all of them."""

import numpy as np

from mixreorg.segment.resize import FloatArray, IntArray


def merge_segments(
    segment_embeddings: FloatArray, segment_areas: FloatArray, similarity: float
) -> tuple[FloatArray, IntArray]:
    """Merge segments of one photo's windows whose embeddings agree.

    The largest segments come first (of equals the first). Each joins the merged segment whose embedding, the
    normalised mean of its members weighted by area, is most similar, if the cosine reaches ``similarity``; otherwise
    it begins a merged segment of its own.

    Args:
        segment_embeddings: ``[B, S, E]`` of the windows, L2-normalised.
        segment_areas: ``[B, S]`` area of each, in any unit.
        similarity: cosine from which two segments are one.

    Returns:
        For each segment, ``[B, S, E]`` the embedding and ``[B, S]`` the number of the merged segment it is part of.
    """
    flat = segment_embeddings.reshape(-1, segment_embeddings.shape[-1])
    areas = segment_areas.reshape(-1)
    sums = np.zeros_like(flat)
    means = np.zeros_like(flat)
    owners = np.zeros(len(flat), dtype=np.int64)
    count = 0
    for index in np.argsort(-areas, kind="stable"):
        cosines = means[:count] @ flat[index]
        owner = int(cosines.argmax()) if count and cosines.max() >= similarity else count
        count = max(count, owner + 1)
        # A segment without any pixel still needs a name of its own to compare others with.
        sums[owner] += max(float(areas[index]), 1e-6) * flat[index]
        means[owner] = sums[owner] / max(float(np.linalg.norm(sums[owner])), 1e-12)
        owners[index] = owner
    merged: FloatArray = means[owners].reshape(segment_embeddings.shape)
    return merged, owners.reshape(segment_areas.shape)
