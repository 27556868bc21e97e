"""The ChatGLM-6B tokenizer: SentencePiece over `ice_text.model`, and no text can become a control token.

Prompts are `text [gMASK] <sop>`, training sequences `text [gMASK] <sop> answer <eop>`. The official tokenizer turns a
literal `<sop>` in a question into the control token, which lets a user move the border of the context; here it stays
text. Literal `<n>`, `<|tab|>` and `<|blank_4|>` do become whitespace, in both.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizer

from stages.models.chatglm.prompt import check_round_start, clean_up_response, render, split_messages

MOST_BLANKS = 80
"""The longest run of spaces with a piece of its own."""

SPACES = re.compile(f" {{2,{MOST_BLANKS}}}")
BLANK = re.compile(r"<\|blank_(\d+)\|>")


def encode_whitespace(text: str) -> str:
    """Newlines, tabs and runs of 2 to 80 spaces → the pieces that stand for them."""
    text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
    return SPACES.sub(lambda run: f"<|blank_{len(run[0])}|>", text)


def decode_whitespace(text: str) -> str:
    """The inverse of `encode_whitespace`."""

    def spaces(match: re.Match[str]) -> str:
        number = int(match[1])
        return " " * number if 2 <= number <= MOST_BLANKS else match[0]

    return BLANK.sub(spaces, text.replace("<n>", "\n").replace("<|tab|>", "\t"))


class ChatGLMTokenizer(PreTrainedTokenizer):
    """Tokenizer of `THUDM/chatglm-6b`, and of any SentencePiece model with the same control pieces.

    Args:
        vocab_file: the SentencePiece model, `ice_text.model` in a model folder.
        round_start: the prompt's format, see `prompt.py`; saved with the tokenizer.

    Raises:
        ImportError: sentencepiece is not installed.
        ValueError: the folder has no `ice_text.model`, or it is another kind of file, or it lacks one of the control
            pieces; the configuration is of an older layout.
    """

    vocab_files_names = {"vocab_file": "ice_text.model"}
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "left"
    renders_messages_safely = True
    """`apply_chat_template` tokenizes messages apart from control tokens: no text needs escaping before."""

    def __init__(
        self,
        vocab_file: str | None = None,
        round_start: int = 0,
        bos_token: str = "<sop>",
        eos_token: str = "<eop>",
        pad_token: str = "<pad>",
        unk_token: str = "<unk>",
        mask_token: str = "[MASK]",
        gmask_token: str = "[gMASK]",
        end_token: str = "</s>",
        num_image_tokens: int = 0,
        **kwargs: Any,
    ):
        if num_image_tokens:
            raise ValueError(
                f"tokenizer_config.json: num_image_tokens {num_image_tokens} is the layout from before 2023-04-06; "
                "take the present files of THUDM/chatglm-6b"
            )
        check_round_start(round_start)
        self.round_start = round_start
        self.vocab_file = vocab_file
        self.sp_model = _load_sentencepiece(vocab_file)
        pieces = self.sp_model.id_to_piece(list(range(self.sp_model.get_piece_size())))
        self._vocabulary = {piece: index for index, piece in enumerate(pieces)}
        special = (bos_token, eos_token, pad_token, unk_token, mask_token, gmask_token, end_token)
        for token in map(str, special):
            index = self._vocabulary.get(token)
            if index is None or not (self.sp_model.is_control(index) or self.sp_model.is_unknown(index)):
                raise ValueError(f"{vocab_file}: `{token}` is not a control piece, so it is not ChatGLM-6B's model")
        self._unknown_id = self._vocabulary[str(unk_token)]

        kwargs.pop("auto_map", None)  # names remote code, which a saved copy must not
        super().__init__(
            round_start=round_start,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            unk_token=unk_token,
            mask_token=mask_token,
            gmask_token=gmask_token,
            end_token=end_token,
            num_image_tokens=0,
            **kwargs,
        )

    # --- vocabulary ---

    @property
    def vocab_size(self) -> int:
        """Pieces of the SentencePiece model; the network has more rows."""
        return len(self._vocabulary)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._vocabulary)

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        for token in new_tokens:
            if str(token) not in self._vocabulary:
                raise ValueError(f"`{token}` is not a piece of {self.vocab_file}: this vocabulary can't grow")
        return int(super()._add_tokens(new_tokens, special_tokens=special_tokens))

    def get_added_vocab(self) -> dict[str, int]:
        """Empty: every special token is a piece of the model, so there is nothing to save beside it."""
        return {}

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        path = Path(save_directory) / (prefix + self.vocab_files_names["vocab_file"])
        path.write_bytes(self.sp_model.serialized_model_proto())
        return (str(path),)

    # --- text ↔ ids ---

    def tokenize(self, text: str, **_: Any) -> list[str]:
        """Text → pieces, none of them a control piece, whatever the text says."""
        # by way of ids: the surface of an unknown run of characters could spell a control piece
        return list(self.sp_model.id_to_piece(self.sp_model.encode(encode_whitespace(text))))

    def _convert_token_to_id(self, token: str) -> int:
        return self._vocabulary.get(token, self._unknown_id)

    def _convert_id_to_token(self, index: int) -> str:
        return str(self.sp_model.id_to_piece(index)) if 0 <= index < self.vocab_size else str(self.unk_token)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return self._decode([self._convert_token_to_id(token) for token in tokens])

    def _decode(self, token_ids: int | Sequence[int], skip_special_tokens: bool = False, **_: Any) -> str:
        """Ids → text; control tokens give nothing, ids past the vocabulary (the network's padding rows) neither."""
        ids = [token_ids] if isinstance(token_ids, int) else [int(index) for index in token_ids]
        dropped = {self.pad_token_id} | (set(self.all_special_ids) if skip_special_tokens else set())
        kept = [index for index in ids if index not in dropped and 0 <= index < self.vocab_size]
        return decode_whitespace(self.sp_model.decode(kept))

    def clean_up_response(self, response: str) -> str:
        """See `prompt.clean_up_response`."""
        return clean_up_response(response)

    # --- layouts ---

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`text [gMASK] <sop>`, or `text [gMASK] <sop> answer <eop>`."""
        prompt = [*token_ids_0, self.gmask_token_id, self.bos_token_id]
        return prompt if token_ids_1 is None else [*prompt, *token_ids_1, self.eos_token_id]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        if already_has_special_tokens:
            special = set(self.all_special_ids)
            return [int(index in special) for index in token_ids_0]
        mask = [0] * len(token_ids_0) + [1, 1]
        return mask if token_ids_1 is None else [*mask, *[0] * len(token_ids_1), 1]

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Any = None,
        documents: Any = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        sanitize_control_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: dict[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        """Messages with roles user and assistant in turn → the prompt, and the answer where one closes them.

        The format is `render` with this tokenizer's `round_start`; there is no Jinja template. A conversation that
        ends with the user gives `text [gMASK] <sop>` and needs `add_generation_prompt=True`; one that ends with the
        assistant appends the answer's ids and <eop> (no <eop> with `continue_final_message=True`), so that a prompt's
        ids are always a prefix of the whole. With `tokenize=False`, the text alone, to which `tokenizer(text)` adds
        the special tokens. Truncation cuts the end of the text, never a special token.

        `return_assistant_tokens_mask` marks the last answer and its <eop>: earlier answers are context.

        Raises:
            ValueError: other roles, tools, documents or another template; a conversation whose end does not fit the
                flags.
        """
        for name, given in (("tools", tools), ("documents", documents), ("chat_template", chat_template)):
            if given:
                raise ValueError(f"{name}: ChatGLM-6B has one prompt format and takes none; set round_start to 0 or 1")
        batched = bool(conversation) and not isinstance(conversation[0], dict)
        rows = [
            self._chat_texts(messages, add_generation_prompt, continue_final_message)
            for messages in (conversation if batched else [conversation])
        ]
        if not tokenize:
            texts = [text + (answer or "") for text, answer in rows]
            return texts if batched else texts[0]

        limit = max_length if truncation else None
        features = [self._chat_features(text, answer, limit, continue_final_message) for text, answer in rows]
        batch = self.pad({"input_ids": [ids for ids, _ in features]}, padding=padding, max_length=max_length)
        if return_assistant_tokens_mask:
            widths = [len(ids) for ids in batch["input_ids"]]
            left = self.padding_side == "left"
            batch["assistant_masks"] = [
                [0] * (width - len(mask)) * left + mask + [0] * (width - len(mask)) * (not left)
                for width, (_, mask) in zip(widths, features, strict=True)
            ]
        single = not batched and return_tensors is None
        result = BatchEncoding(
            {key: value[0] if single else value for key, value in batch.items()}, tensor_type=return_tensors
        )
        return result if return_dict else result["input_ids"]

    def _chat_texts(
        self, messages: Sequence[dict[str, Any]], add_generation_prompt: bool, continue_final_message: bool
    ) -> tuple[str, str | None]:
        history, query, answer = split_messages(messages)
        if answer is None and not add_generation_prompt:
            raise ValueError("the conversation ends with the user: pass add_generation_prompt=True")
        if answer is not None and add_generation_prompt:
            raise ValueError("the conversation ends with the assistant: leave add_generation_prompt out")
        if answer is None and continue_final_message:
            raise ValueError("the conversation ends with the user: continue_final_message has no answer to go on with")
        return render(history, query, self.round_start), answer

    def _chat_features(
        self, text: str, answer: str | None, max_length: int | None, open_ended: bool
    ) -> tuple[list[int], list[int]]:
        """Ids, and 1 for each id of the answer."""
        ids = self.prepare_for_model(
            self._ids(text),
            None if answer is None else self._ids(answer),
            truncation=False if max_length is None else "only_first",
            max_length=max_length,
        )["input_ids"]
        if open_ended:
            ids = ids[:-1]
        prompt = len(ids) if answer is None else ids.index(self.bos_token_id) + 1
        return ids, [0] * prompt + [1] * (len(ids) - prompt)

    def _ids(self, text: str) -> list[int]:
        return [self._convert_token_to_id(token) for token in self.tokenize(text)]


def _load_sentencepiece(vocab_file: str | None) -> Any:
    # ValueError throughout: transformers puts a line of its own, which names no file, in the place of an OSError
    name = ChatGLMTokenizer.vocab_files_names["vocab_file"]
    if vocab_file is None or not Path(vocab_file).is_file():
        raise ValueError(f"{name} is missing in the model's folder: take it from THUDM/chatglm-6b")
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise ImportError(f"{name} needs sentencepiece: `pip install sentencepiece`") from None
    try:
        return SentencePieceProcessor(model_file=str(vocab_file))
    except (OSError, RuntimeError):
        raise ValueError(f"{vocab_file}: not a SentencePiece model (a Git LFS pointer?); download it again") from None
