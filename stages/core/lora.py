"""The LoRA section that sft, rm and ppo share."""

from dataclasses import dataclass
from typing import Any

from stages.core.errors import UserError


@dataclass(frozen=True)
class Lora:
    r: int
    """Rank of the update."""
    alpha: int
    """The update is scaled by alpha / r."""
    dropout: float
    """Dropout before the update while SFT and RM train; PPO has none (its checklist, point 5)."""
    target_modules: str | tuple[str, ...]
    """`all-linear` (every linear layer but the output), or the names of the layers. The experts of a mixture are no
    linear layers in transformers: `all-linear` leaves them and the router as they are, and adapts the rest."""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError("r must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout must lie in [0, 1)")
        if isinstance(self.target_modules, str) and self.target_modules != "all-linear":
            raise ValueError("target_modules must be `all-linear` or a list of layer names")

    def config(self, **more: Any) -> Any:
        """The section as a `peft.LoraConfig`."""
        from peft import LoraConfig

        targets = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        return LoraConfig(
            r=self.r, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets, bias="none", **more
        )

    def check(self, model: Any, section: str) -> None:
        """Raises UserError when a listed name is no layer of the model; PEFT would pass over it.

        Args:
            model: a language model or classifier, with or without adapters.
            section: of params.yaml, for the message.
        """
        import torch

        if isinstance(self.target_modules, str):
            return
        modules = {
            name.removesuffix(".base_layer"): module for name, module in model.named_modules() if ".lora_" not in name
        }
        for target in self.target_modules:
            if not any(name == target or name.endswith(f".{target}") for name in modules):
                linear = {n.rpartition(".")[2] for n, m in modules.items() if isinstance(m, torch.nn.Linear)}
                raise UserError(
                    f"params.yaml: {section}.lora.target_modules: the model has no layer `{target}`; "
                    f"its linear layers are {', '.join(sorted(linear - {'score', 'lm_head'}))}"
                )
