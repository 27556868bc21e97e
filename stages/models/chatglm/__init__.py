"""ChatGLM-6B (first generation) as a native transformers model: configuration, model, tokenizer, prompts, conversion.

After `register()`, `AutoConfig`, `AutoTokenizer` and `AutoModel…` load a folder of `model_type: chatglm`
with these classes and without any code from the hub.
"""


def register() -> None:
    """Make all `Auto…` classes know ChatGLM. Imports only when called; may be called again."""
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    from stages.models.chatglm.configuration import ChatGLMConfig
    from stages.models.chatglm.modeling import ChatGLMForCausalLM, ChatGLMForSequenceClassification, ChatGLMModel
    from stages.models.chatglm.tokenization import ChatGLMTokenizer

    AutoConfig.register(ChatGLMConfig.model_type, ChatGLMConfig, exist_ok=True)
    AutoModel.register(ChatGLMConfig, ChatGLMModel, exist_ok=True)
    AutoModelForCausalLM.register(ChatGLMConfig, ChatGLMForCausalLM, exist_ok=True)
    AutoModelForSequenceClassification.register(ChatGLMConfig, ChatGLMForSequenceClassification, exist_ok=True)
    AutoTokenizer.register(ChatGLMConfig, tokenizer_class=ChatGLMTokenizer, exist_ok=True)
