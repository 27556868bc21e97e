"""The ChatGLM-6B network on current transformers conventions; parameter names are those of the original checkpoint.

What sets it apart: rotary positions in two channels, a context that attends in both directions (both in
`positions.py`), and residuals that add the normalised input, scaled, instead of the raw stream (`layers.py`).
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GenericForSequenceClassification, GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from stages.models.chatglm.configuration import ChatGLMConfig
from stages.models.chatglm.layers import ChatGLMAttention, ChatGLMBlock, ChatGLMLayerNorm, rotary_angles
from stages.models.chatglm.positions import Ending, additive, ending, hold_position, next_positions, prompt_positions, real_tokens, visible


class ChatGLMPreTrainedModel(PreTrainedModel):
    """What the ChatGLM models share: loading, saving, and what transformers may do with them."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    _input_embed_layer = "word_embeddings"
    _no_split_modules = ["ChatGLMBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _keys_to_ignore_on_load_unexpected = [
        r"rotary_emb\.inv_freq$",  # computed, and the file's copy is the same
        r"^lm_head\.",  # by the trunk and the reward model, which have none
    ]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _can_compile_fullgraph = True
    derives_position_ids = True
    """From the ids and the mask, in two channels: callers leave position_ids out."""
    _can_record_outputs = {"hidden_states": ChatGLMBlock, "attentions": ChatGLMAttention}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, from safetensors only.

        Raises:
            OSError: the weights are pickled, as in the original repository; the message has the command to convert.
        """
        folder = Path(str(pretrained_model_name_or_path))
        hint = "run `python -m stages.models.chatglm.convert FOLDER NEW_FOLDER` on its folder once, and load the new one"
        if folder.is_dir() and list(folder.glob("*.bin")) and not list(folder.glob("*.safetensors")):
            raise OSError(f"{folder}: its weights are pickled (.bin), which is not loaded; {hint}")
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs | {"use_safetensors": True})
        except OSError as error:
            if folder.is_dir() or "safetensors" not in str(error):
                raise
            raise OSError(f"{folder}: has no safetensors weights; download it, {hint}") from error


class ChatGLMModel(ChatGLMPreTrainedModel):
    """The trunk: embeddings, blocks, final LayerNorm."""

    def __init__(self, config: ChatGLMConfig):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(ChatGLMBlock(config, index) for index in range(config.num_layers))
        self.final_layernorm = ChatGLMLayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the trunk over whole sequences, or over the tokens that follow cached ones.

        Args:
            input_ids: [b, s]; or `inputs_embeds` [b, s, hidden] with explicit positions.
            attention_mask: [b, s], or [b, past + s] with a cache: 1 on real tokens, 0 on padding, on either side; None
                means no padding. Or ready-made [b, 1, s, k], bool (True: visible) or additive.
            position_ids: [b, 2, s]. Best left out: they follow from the ids and the mask, and, after a forward pass
                that filled the cache, from what it remembers. Whoever reorders a cache's rows must pass them.
            past_key_values: any transformers cache.

        Returns:
            last_hidden_state [b, s, hidden] after the final LayerNorm. Of `hidden_states`, the first is the embeddings
            and the last is last_hidden_state.

        Raises:
            ValueError: a sequence without <sop> or [gMASK], positions of another shape, a context read in pieces.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        if position_ids is None:
            position_ids = self._positions(input_ids, inputs_embeds, attention_mask, past_key_values)
        elif position_ids.ndim != 3 or position_ids.shape[1] != 2:
            raise ValueError(
                f"position_ids is {list(position_ids.shape)}, but ChatGLM has two channels, [b, 2, s]; leave it out"
            )
        attention_mask = self._mask(position_ids, attention_mask, past_key_values, inputs_embeds)
        if past_key_values is not None and not torch.compiler.is_compiling():
            length = cached_length(past_key_values) + inputs_embeds.shape[1]
            past_key_values.chatglm_ending = ending(position_ids, length, self._ending(past_key_values))

        head_dim = self.config.hidden_size // self.config.num_attention_heads
        rotary = rotary_angles(position_ids, head_dim, inputs_embeds.dtype)
        hidden_states = inputs_embeds
        for layer in self.layers:
            hidden_states = layer(
                hidden_states, attention_mask=attention_mask, rotary=rotary, past_key_values=past_key_values, **kwargs
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_layernorm(hidden_states),
            past_key_values=past_key_values if use_cache else None,
        )

    @staticmethod
    def _ending(cache: Cache) -> Ending | None:
        """What the cache remembers, unless tokens came or went since (a compiled step, a crop)."""
        found = getattr(cache, "chatglm_ending", None)
        return found if found is not None and found.length == cached_length(cache) else None

    def _positions(
        self, input_ids: Tensor | None, inputs_embeds: Tensor, attention_mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        if attention_mask is not None and attention_mask.ndim != 2:
            raise ValueError(f"an attention_mask {list(attention_mask.shape)} needs position_ids [b, 2, s] beside it")
        batch, length = inputs_embeds.shape[:2]
        past = cached_length(cache)
        real = real_tokens(attention_mask, batch, past + length, inputs_embeds.device)[:, past:]
        if past > 0:
            before = self._ending(cache)
            if before is None or before.positions.shape[0] != batch:
                raise ValueError("this cache no longer knows where its rows ended: pass position_ids [b, 2, s]")
            return next_positions(before.positions, real)
        if input_ids is None:
            raise ValueError("inputs_embeds do not show where the context ends: pass position_ids [b, 2, s]")
        return positions_of(self.config, input_ids, real)

    def _mask(
        self, position_ids: Tensor, attention_mask: Tensor | None, cache: Cache | None, inputs_embeds: Tensor
    ) -> Tensor | None:
        device = inputs_embeds.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else inputs_embeds.dtype
        if attention_mask is not None and attention_mask.ndim == 4:
            return additive(attention_mask, dtype) if attention_mask.dtype == torch.bool else attention_mask
        batch, queries = inputs_embeds.shape[:2]
        past = cached_length(cache)
        keys = queries if cache is None else cache.get_mask_sizes(queries, 0)[0]
        if attention_mask is None and queries == 1 and keys == past + 1:
            return None  # one token of an answer, which sees everything
        real = real_tokens(attention_mask, batch, past + queries, device)
        return additive(visible(position_ids, real, past, keys), dtype)


def cached_length(cache: Cache | None) -> int:
    """How many tokens the cache holds."""
    return 0 if cache is None else int(cache.get_seq_length())


def positions_of(config: ChatGLMConfig, input_ids: Tensor, real: Tensor) -> Tensor:
    """`prompt_positions` with the ids that the configuration names."""
    return prompt_positions(input_ids, real, config.bos_token_id, config.gmask_token_id, config.mask_token_id)


class ChatGLMForCausalLM(ChatGLMPreTrainedModel, GenerationMixin):
    """The trunk and a language-model head that shares the embeddings' weight."""

    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}

    def __init__(self, config: ChatGLMConfig):
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """`ChatGLMModel.forward`, then the head.

        Args:
            labels: [b, s], −100 where nothing is learnt; shifted by one inside.
            logits_to_keep: compute the logits of the last so many positions only; 0 means all.

        Returns:
            logits [b, s, vocab]; loss: the mean cross-entropy in float32, where labels are given.
        """
        outputs = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Tie the head to the embeddings even where a checkpoint holds both and they differ, as the original did."""
        if missing_keys is not None and "transformer.word_embeddings.weight" not in missing_keys:
            missing_keys.add("lm_head.weight")
        super().tie_weights(missing_keys=missing_keys, recompute_mapping=recompute_mapping)

    def save_pretrained(
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """As in transformers, but the head is written under its own name too, for readers that do not tie it."""
        state_dict = dict(self.state_dict() if state_dict is None else state_dict)
        head = state_dict.get("lm_head.weight")
        if head is not None and head.device.type != "meta":
            state_dict["lm_head.weight"] = head.clone()
        super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)

    # --- generate: positions travel with the model's arguments, in two channels ---

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        input_ids = model_kwargs.get("input_ids", inputs_tensor)
        if input_ids.shape[1] == 0:
            input_ids = inputs_tensor
        if input_ids.is_floating_point():
            raise ValueError("inputs_embeds do not show where the context ends: pass position_ids [b, 2, s]")
        attention_mask = model_kwargs.get("attention_mask")
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        if real.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask is {list(real.shape)} for input_ids {list(input_ids.shape)}: to go on from a cache, "
                "pass all ids, from the start"
            )
        return positions_of(self.config, input_ids, real)

    def _expand_inputs_for_generation(self, expand_size: int = 1, **kwargs: Any) -> tuple[Tensor, dict[str, Any]]:
        # transformers takes the second dimension of [b, 2, s] for the batch
        positions = kwargs.pop("position_ids", None)
        input_ids, kwargs = super()._expand_inputs_for_generation(expand_size=expand_size, **kwargs)
        if positions is not None:
            kwargs["position_ids"] = positions.repeat_interleave(expand_size, dim=0)
        return input_ids, kwargs

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """As in transformers, which counts both position channels on with each token: the first one is held."""
        if kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = hold_position(kwargs["position_ids"])
        return dict(super().prepare_inputs_for_generation(input_ids, **kwargs))

    @staticmethod
    def create_masks_for_generate(
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        past_key_values: Cache,
        position_ids: Tensor,
        **_: Any,
    ) -> Tensor:
        """The mask [b, 1, q, k] that `generate` asks for ahead of a compiled step on a static cache."""
        batch, queries = inputs_embeds.shape[:2]
        past = cached_length(past_key_values)
        keys = past_key_values.get_mask_sizes(queries, 0)[0]
        real = real_tokens(attention_mask, batch, past + queries, inputs_embeds.device)
        return additive(visible(position_ids, real, past, keys), inputs_embeds.dtype)


class ChatGLMForSequenceClassification(GenericForSequenceClassification, ChatGLMPreTrainedModel):
    """The trunk and a linear head `score` at each row's last token that is not padding: a reward model."""

    base_model_prefix = "transformer"  # the mixin has another
