"""Which class of transformers loads a language model's trunk with a scalar head on it."""

from typing import Any


def of(config: Any) -> Any:
    """The class whose `from_pretrained` gives the model of this configuration as a sequence classifier.

    Where transformers has none (ERNIE-4.5 and a few dozen more), it is made as transformers makes the others: the
    trunk, and a linear layer on the hidden state of the last token.
    """
    from transformers import AutoModelForSequenceClassification, PreTrainedModel
    from transformers.modeling_layers import GenericForSequenceClassification
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    )

    known = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if known or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForSequenceClassification
    causal_lm = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    family = next(c for c in causal_lm.__mro__ if PreTrainedModel in c.__bases__)
    return type(
        causal_lm.__name__.replace("ForCausalLM", "ForSequenceClassification"),
        (GenericForSequenceClassification, family),
        {"base_model_prefix": causal_lm.base_model_prefix, "config_class": type(config)},
    )
