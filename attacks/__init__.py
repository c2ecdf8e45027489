"""The attacks that ship with PoisonBench, one plugin per module."""
