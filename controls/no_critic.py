"""PPO without a critic: does the value head pay? All else is the run's, `lam` too, or that would be measured instead.

python -m controls.no_critic --help
"""

from pathlib import Path

import typer

from controls import policy

main = policy.trained_by(
    Path(__file__),
    "Train PPO with every value 0: the discounted rewards that follow a token are its advantage.",
    change=lambda config: config.replace(vf_coef=0.0, value_head_init="zero"),
)

if __name__ == "__main__":
    typer.run(main)
