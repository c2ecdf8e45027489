"""Augmentation of image batches and captions, drawn from keyed generators."""
