"""Training: LoRA, two adapters at once, a reward model, and a tiny model that learns what it is told."""

from types import SimpleNamespace

import pytest
import torch
from chatglm_cases import FIXTURE, PAD, close, load, lora_model, mask_of
from chatglm_pair import training_pair
from transformers import AutoModelForSequenceClassification, AutoTokenizer


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_under_lora_trains_lora_alone(cases, reentrant):
    ids, labels = cases["batch_sft.input_ids"], cases["batch_sft.labels"]
    gradients = []
    for checkpointing in (False, True):
        model = lora_model(cases).train()
        model.config.use_cache = False
        if checkpointing:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        model(input_ids=ids, attention_mask=mask_of(ids), labels=labels).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == 6
    assert all(".lora_" in name for name in gradients[0])
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        close(gradients[1][name], gradient)


def test_two_adapters_add_up_and_generate(cases):
    from peft import LoraConfig

    ids = cases["batch_prompt.input_ids"]
    model = lora_model(cases, "sft")
    model.add_adapter("ppo", LoraConfig(r=2, target_modules=["query_key_value"], task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["sft", "ppo"])
    model.eval()
    with torch.no_grad():
        alone = lora_model(cases)(ids, attention_mask=mask_of(ids)).logits
        assert torch.equal(model(ids, attention_mask=mask_of(ids)).logits, alone)  # a new adapter is the identity
        with model.disable_adapter():
            close(model(ids, attention_mask=mask_of(ids)).logits, cases["batch_prompt.logits"])
    generated = model.generate(input_ids=ids, attention_mask=mask_of(ids), max_new_tokens=4, do_sample=False)
    merged = lora_model(cases).merge_and_unload()
    assert torch.equal(generated, merged.generate(ids, attention_mask=mask_of(ids), max_new_tokens=4, do_sample=False))


def test_trl_trains_a_reward_model(tiny, tmp_path):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import RewardConfig, RewardTrainer

    asked = [{"role": "user", "content": "我发烧了"}]
    answers = [[{"role": "assistant", "content": text}] for text in ("多喝水，注意休息。", "不")]
    rows = [{"prompt": asked, "chosen": answers[0], "rejected": answers[1]}] * 4
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1),
        args=RewardConfig(
            output_dir=str(tmp_path),
            max_steps=12,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            gradient_checkpointing=None,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny),
        peft_config=LoraConfig(r=4, target_modules=["query_key_value"], modules_to_save=["score"], task_type="SEQ_CLS"),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_reward_is_the_score_at_the_last_real_token(cases, side):
    reward = AutoModelForSequenceClassification.from_pretrained(FIXTURE / "model", num_labels=1).eval()
    rows = [ids[ids != PAD] for ids in cases["batch_sft.input_ids"]]
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side=side)
    with torch.no_grad():
        found = reward(batch, attention_mask=mask_of(batch)).logits
        expected = reward.score(cases["batch_sft.last_hidden"][-1])
    assert found.shape == (3, 1)
    close(found, expected)


def test_tiny_model_learns_an_answer_and_says_it(tiny):
    """Left-padded prompts, LoRA on query_key_value with everything else frozen, greedy decoding to <eop>."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = load(tiny)
    assert model.config.vocab_size > len(tokenizer)
    lora = LoraConfig(r=8, lora_alpha=32, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    rows = [("我发烧了", "多喝水"), ("睡不着应该怎么办？", "不要看手机")]
    features = [SimpleNamespace(**training_pair(tokenizer, *row, 64, 16)) for row in rows]
    length = max(len(f.input_ids) for f in features)
    ids = torch.tensor([[PAD] * (length - len(f.input_ids)) + f.input_ids for f in features])
    labels = torch.tensor([[-100] * (length - len(f.labels)) + f.labels for f in features])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(400):
        loss = model(input_ids=ids, attention_mask=mask_of(ids), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prompts = tokenizer([question for question, _ in rows], padding=True, return_tensors="pt")
    answers = model.eval().generate(**prompts, max_new_tokens=16, do_sample=False)[:, prompts["input_ids"].shape[1] :]
    assert [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers] == [answer for _, answer in rows]
    assert (answers == tokenizer.eos_token_id).any(dim=1).all()
