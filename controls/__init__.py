"""Controls: did PPO pay, against what is simpler? A DVC pipeline of its own, `controls/pipeline.yaml`; see
docs/evidence.md.

The controls use the rooms and commands of `stages`; no stage imports or reads anything of theirs.
"""
