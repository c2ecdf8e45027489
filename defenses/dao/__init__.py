"""Local outliers among image embeddings: DAO and its siblings SLOF and k-distance; docs/defenses/dao.md tells the story."""

from poisonbench.defenses.dao.defense import DAO, SLOF, KDistance

__all__ = ["DAO", "SLOF", "KDistance"]
