import numpy as np

from mixreorg.segment.segment_merging import merge_segments


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def test_segments_that_agree_share_their_mean_by_area() -> None:
    embeddings = np.stack([[unit(1, 0, 0.1), unit(0, 1, 0)], [unit(1, 0.2, 0), unit(0, 0, 1)]])
    areas = np.array([[30, 10], [90, 5]], dtype=np.float32)
    merged, owners = merge_segments(embeddings, areas, 0.9)
    assert owners.tolist() == [[0, 1], [0, 2]]
    mean = 30 * embeddings[0, 0] + 90 * embeddings[1, 0]
    np.testing.assert_allclose(merged[0, 0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_array_equal(merged[0, 0], merged[1, 0])
    np.testing.assert_allclose(merged[0, 1], embeddings[0, 1], atol=1e-6)


def test_a_segment_joins_the_most_similar_one() -> None:
    first, second = unit(1, 0, 0), unit(0.6, 0.8, 0)
    embeddings = np.stack([first, second, unit(0.7, 0.7, 0)])[None]
    _, owners = merge_segments(embeddings, np.array([[3, 2, 1]], dtype=np.float32), 0.7)
    assert owners.tolist() == [[0, 1, 1]]


def test_nothing_merges_below_the_similarity() -> None:
    embeddings = np.eye(4, dtype=np.float32).reshape(2, 2, 4)
    merged, owners = merge_segments(embeddings, np.ones((2, 2), dtype=np.float32), 0.5)
    np.testing.assert_array_equal(merged, embeddings)
    assert sorted(owners.ravel().tolist()) == [0, 1, 2, 3]


def test_segments_without_pixels_keep_their_embedding() -> None:
    embeddings = np.eye(2, dtype=np.float32)[None]
    merged, _ = merge_segments(embeddings, np.zeros((1, 2), dtype=np.float32), 0.9)
    np.testing.assert_allclose(merged, embeddings)
