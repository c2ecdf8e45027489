"""Builds the clip-art corpus and its evaluation tasks that PoisonBench ships."""
