"""Finds evaluation art that nearly repeats pre-training art."""

import numpy as np

LIMIT = 0.95


def fingerprints(pictures: np.ndarray) -> np.ndarray:
    """Return unit vectors of 32x32 pictures, blind to background colour and contrast."""
    small = pictures.reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4), dtype=np.float64)
    flat = (small - pictures[:, :1, :1]).reshape(len(small), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    unit: np.ndarray = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return unit.astype(np.float32)


def leak_scores(pictures: np.ndarray, corpus: np.ndarray, chunk: int = 512) -> np.ndarray:
    """Return each picture's largest cosine to any picture of the corpus."""
    if not len(pictures):
        return np.zeros(0)
    known = fingerprints(corpus).T
    rows = fingerprints(pictures)
    return np.concatenate([(rows[at : at + chunk] @ known).max(axis=1) for at in range(0, len(rows), chunk)])
