"""The LoRA section that sft, rm and ppo share."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stages.runtime.errors import UserError
from stages.runtime.params import Section

LayerNames = Annotated[
    tuple[Annotated[str, Field(min_length=1, strict=True)], ...],
    Field(min_length=1, strict=False),  # YAML has lists
]


class LoraConfig(Section):
    r: Annotated[int, Field(ge=1, le=4096)] = 16
    """Rank of the update."""
    alpha: Annotated[int, Field(ge=1, le=2**16)] = 32
    """The update is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the update while SFT and RM train, for a third more time on a CPU. PPO has none: with it the first
    ratio would not be 1."""
    target_modules: Literal["all-linear"] | LayerNames = "all-linear"
    """`all-linear` (every linear layer but the output), or the names of the layers. Of a
    mixture of experts `all-linear` means the attention: the experts and the router stay as they are."""

    def config(self, **more: Any) -> Any:
        """The section as a `peft.LoraConfig`."""
        import peft

        targets = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        return peft.LoraConfig(
            r=self.r, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets, bias="none", **more
        )

    def fit(self, model: Any, section: str) -> "LoraConfig":
        """The section with layer names that the model has.

        Args:
            model: a language model or classifier, with or without adapters.
            section: of params.yaml, for the message.

        Raises:
            UserError: a listed name is not a layer, which PEFT would ignore, or names the experts of a mixture.
        """
        import torch

        heads = (model.get_output_embeddings(), getattr(model, "score", None))
        layers = {
            name.removesuffix(".base_layer"): module
            for name, module in model.named_modules()
            if ".lora_" not in name and not any(module is head for head in heads) and _has_matrix(module)
        }
        linear = {name.rpartition(".")[2] for name, layer in layers.items() if isinstance(layer, torch.nn.Linear)}
        mixture = any(p.dim() == 3 and ".experts." in name for name, p in model.named_parameters())
        if mixture:  # PEFT would adapt the tensors that hold the experts, of which no two adapters can be stacked
            linear -= EXPERTS
        if isinstance(self.target_modules, str):
            return self.replace(target_modules=tuple(sorted(linear))) if mixture else self
        for target in self.target_modules:
            known = any(name == target or name.endswith(f".{target}") for name in layers)
            if not known or (mixture and target in EXPERTS):
                raise UserError(
                    f"params.yaml: {section}.lora.target_modules: the model has no layer `{target}` that LoRA could be "
                    f"put on; there are {', '.join(sorted(linear))}"
                )
        return self


def _has_matrix(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and weight.dim() > 1


EXPERTS = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""What PEFT takes for the router and the experts of a mixture, whose layers transformers keeps in one tensor."""
