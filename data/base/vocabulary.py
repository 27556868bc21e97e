"""The base's tokenizer: characters and frequent words, no bytes.

Every character of the corpus and those most frequent in Chinese text have a token of their own; words
that are frequent in the corpus are merged into one. A character outside of both is `<|unk|>`, a special token: text with
it can be read, and nothing that the model writes can hold a broken character.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jieba
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, END, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|unk|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

FREQUENT_CHARACTERS = 1200
LONGEST_WORD = 4
PRINTABLE_ASCII = {chr(code) for code in range(32, 127)} | {"\n"}
WIDE_PUNCTUATION = set("，。？！、；：（）《》【】“”‘’…—～·℃％×")


def build(texts: Iterable[str], size: int, further: set[str]) -> PreTrainedTokenizerFast:
    """A character-level BPE tokenizer of `size` tokens, trained on the texts; it has the `further` characters too."""
    texts = list(texts)
    alphabet = {character for text in texts for character in text} | further
    alphabet |= frequent_characters(FREQUENT_CHARACTERS) | PRINTABLE_ASCII | WIDE_PUNCTUATION

    bpe = Tokenizer(models.BPE(unk_token=UNKNOWN))
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\p{P}\p{S}\s\d]"), "isolated")  # no word crosses one of these
    bpe.decoder = decoders.Fuse()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[PAD, UNKNOWN, END, USER, ASSISTANT, SYSTEM],
            initial_alphabet=sorted(alphabet),
            max_token_length=LONGEST_WORD,
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def frequent_characters(count: int) -> set[str]:
    """The most frequent characters of Chinese text, by the word frequencies that jieba comes with."""
    frequency: Counter[str] = Counter()
    for line in (Path(jieba.__file__).parent / "dict.txt").read_text(encoding="utf-8").splitlines():
        word, times, *_ = line.split(" ")
        for character in word:
            if "\u4e00" <= character <= "\u9fff":
                frequency[character] += int(times)
    return {character for character, _ in sorted(frequency.items(), key=lambda item: (-item[1], item[0]))[:count]}
