"""Computes colours from features: the first three principal components."""

from collections.abc import Sequence

import numpy as np

PERCENTILES = (1, 99)  # of a component, shown as 0 and 1, so that a few outliers do not determine the range


def principal_colours(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Maps (C, h, w) float32 -> colours (h, w, 3) from 0 to 1. Positions where all channels are zero are black.

    The components are computed from the vectors of all maps together. The sign of a component is chosen so that its
    largest loading is positive.
    """
    there = [one.any(axis=0) for one in maps]
    vectors = np.concatenate([one[:, mask].T for one, mask in zip(maps, there)])  # (T, C)
    colours = _lights(components(vectors)) if len(vectors) else np.zeros((0, 3), np.float32)
    ends = np.cumsum([np.count_nonzero(mask) for mask in there])[:-1]
    pictures = []
    for mask, part in zip(there, np.split(colours, ends)):
        picture = np.zeros((*mask.shape, 3), np.float32)
        picture[mask] = part
        pictures.append(picture)
    return pictures


def components(vectors: np.ndarray, count: int = 3) -> np.ndarray:
    """Principal components (T, count) of vectors (T, C), in order of descending variance; zero beyond C components."""
    centred = vectors - vectors.mean(axis=0)
    # Eigenvectors of the covariance matrix (C, C); a singular value decomposition of (T, C) costs more if T is 100,000.
    _, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))  # ascending
    axes = axes[:, ::-1][:, :count]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    result = np.zeros((len(vectors), count), np.float32)
    result[:, : axes.shape[1]] = centred @ (axes * np.where(largest < 0, -1, 1)).astype(np.float32)
    return result


def _lights(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, PERCENTILES, axis=0)
    return np.clip((values - low) / np.where(high > low, high - low, 1), 0, 1).astype(np.float32)
