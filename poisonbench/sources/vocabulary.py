"""The texts that decide which token ids a trimmed vocabulary keeps: a function of the clean data alone, never of an attack."""

from __future__ import annotations

from collections.abc import Iterator

from poisonbench.sources import Data
from poisonbench.tier import ModelSpec
from poisonbench.tokens import Tokenizer


def tokenizer_for(data: Data, model: ModelSpec) -> Tokenizer:
    """The tokenizer of a tier on its data."""
    return (
        Tokenizer.trimmed_to(texts_of(data), model.context)
        if model.trim_vocabulary
        else Tokenizer(model.context)
    )


def texts_of(data: Data) -> Iterator[str]:
    """Every caption and prompt, with repetitions, and every word with its synonyms as one text, which is encoded faster."""
    for pairs in (data.train, data.clean, data.validation):
        for options in pairs.captions:
            yield from options
    for task in data.tasks:
        yield from (template.format(c=name) for name in task.classes for template in task.templates)
    yield from (" ".join((word, *others)) for word, others in data.synonyms.items())
