"""The defences that ship with PoisonBench, one plugin per module or folder."""
