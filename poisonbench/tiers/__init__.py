"""The shipped tiers, one YAML file each."""
