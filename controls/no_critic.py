"""PPO without a critic: does the value head pay?

python -m controls.no_critic --help
"""

from pathlib import Path

import typer

from controls import policy

main = policy.trained_by(
    Path(__file__),
    "Train PPO with every value 0 and the whole return of an answer as the advantage of each of its tokens.",
    change=lambda config: config.replace(vf_coef=0.0, lam=1.0, value_head_init="zero"),
)

if __name__ == "__main__":
    typer.run(main)
