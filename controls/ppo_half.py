"""PPO with the parameters of the run, against the reward model of the first half, judged by that of the second.

python -m controls.ppo_half --help
"""

from pathlib import Path

import typer

from controls import policy

main = policy.trained_by(
    Path(__file__), "Train PPO as the run does, and have each update judged by a reward model that it never sees."
)

if __name__ == "__main__":
    typer.run(main)
