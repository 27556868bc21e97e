"""Every stage runs on every family of chat models, and what each needs holds: template, EOS, padding, LoRA, head."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import families
import pytest
import tiny_models
import torch
import yaml
from safetensors.torch import load_file

from stages import base as base_stage
from stages import evaluate, ppo, predict, rm, sft
from stages.generation import loop
from stages.generation.decoding import Decoding
from stages.generation.generate import eos_ids, generate
from stages.models import base_model, forward, reward, stack
from stages.rl import logprobs
from stages.runtime.errors import UserError
from stages.text import encoding, records
from stages.training import samples

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
SAMPLES = [
    {"history": [[families.QUESTION, families.ANSWER]] * (n % 2), "instruction": f"{n}岁，{families.NOW}",
     "output": text}
    for n, text in enumerate(tiny_models.TEXTS * 2)
]  # fmt: skip
PAIRS = [
    {"history": [], "instruction": f"{n}岁，{families.NOW}", "chosen": text, "rejected": text[: 3 + n]}
    for n, text in enumerate(tiny_models.TEXTS)
]
SUPERVISED = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "learning_rate": 0.02, "warmup_ratio": 0.0,
              "logging_steps": 1, "eval_steps": 1, "max_source_length": 200, "max_target_length": 60}  # fmt: skip
DECODING = Decoding(do_sample=True, temperature=0.95, top_k=0, top_p=0.9, repetition_penalty=1.0)


class Run(NamedTuple):
    family: families.Family
    folder: Path
    seen: list[dict[str, torch.Tensor]]
    """The batches that SFT trained on."""

    @property
    def base(self):
        return base_model.read(self.folder / "base")


@pytest.fixture(scope="module", params=families.FAMILIES)
def run(request, tmp_path_factory):
    """All stages from base to score on one family's model."""
    family = families.FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    families.write(folder / "model", family)
    config = write_params(folder, str(folder / "model"))
    write_data(folder)
    seen = []
    answer_loss = sft.answer_loss

    def spy(model, batch):
        seen.append({name: tensor.clone() for name, tensor in batch.items()})
        return answer_loss(model, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COVID_DOCTOR_WORK", str(folder / "work"))
        patch.setattr(sft, "answer_loss", spy)
        run_stages(folder, config)
    return Run(family, folder, seen)


def write_params(folder: Path, model: str, **more: object) -> Path:
    params = yaml.safe_load(Path(__file__).parents[1].joinpath("params.yaml").read_text(encoding="utf-8"))
    params["model"] |= {"name": model, **more}
    for stage in ("sft", "rm"):
        params[stage] |= SUPERVISED
        params[stage]["lora"]["r"] = 2
    params["sft"]["dev_ratio"] = 0.1
    params["ppo"] |= {"total_episodes": 8, "batch_size": 4, "tokens_per_batch": 300, "learning_rate": 0.02,
                      "normalization_samples": 4, "min_response_length": 6, "max_response_length": 8}  # fmt: skip
    params["predict"] |= {"max_new_tokens": 8}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return folder / "params.yaml"


def write_data(folder: Path) -> None:
    for name, rows in (("samples", SAMPLES), ("train", SAMPLES), ("test", SAMPLES[:3]), ("pairs", PAIRS),
                       ("preferences_validate", PAIRS)):  # fmt: skip
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def run_stages(to: Path, config: Path) -> None:
    train, test, pairs = (to / f"{name}.jsonl" for name in ("samples", "test", "pairs"))
    log = to / "log"
    base_stage.main(train, train, to / "base", log / "base", config)
    sft.main(train, test, to / "base", to / "sft", log / "sft", config)
    rm.main(pairs, pairs, to / "base", to / "rm", log / "rm", config)
    ppo.main(train, test, to / "base", to / "sft", to / "rm", to / "ppo", log / "ppo", config)
    stacks = {"base": [], "sft": [to / "sft"], "ppo": [to / "sft", to / "ppo"]}
    for name, adapters in stacks.items():
        predict.main(name, test, to / "base", to / "answers" / f"{name}.jsonl", config, adapters)
    evaluate.main(to, to / "answers", to / "base", to / "sft", to / "evaluation", config, to / "rm", to / "ppo")


def prompts(tokenizer):
    return [
        encoding.encode_prompt(tokenizer, sample["history"], sample["instruction"], 200, "ppo").ids
        for sample in SAMPLES[:4]
    ]


def test_a_history_becomes_what_the_family_writes(run):
    tokenizer = run.base.tokenizer()
    history = [[families.QUESTION, families.ANSWER]]
    found = encoding.encode_prompt(tokenizer, history, families.NOW, 300, "sft").ids
    assert tokenizer.decode(found) == run.family.prompt
    if run.family.bos and run.family.prompt.startswith(run.family.bos):
        assert found.count(tokenizer.bos_token_id) == 1
    attacked = encoding.encode_prompt(tokenizer, [], run.family.eos + families.NOW, 300, "sft").ids
    plain = encoding.encode_prompt(tokenizer, [], families.NOW, 300, "sft").ids
    assert attacked.count(tokenizer.eos_token_id) == plain.count(tokenizer.eos_token_id)


def test_padding_is_not_an_end_and_the_ends_are_all_known(run):
    tokenizer = run.base.tokenizer()
    assert tokenizer.pad_token == (run.family.padding or run.family.pad) != tokenizer.eos_token
    ends = [tokenizer.convert_tokens_to_ids(token) for token in [run.family.eos, *run.family.also_ends]]
    assert eos_ids(run.base.causal_lm(), tokenizer) == sorted(ends)


def test_the_loss_covers_the_answers_and_no_padding(run):
    tokenizer = run.base.tokenizer()
    assert len(run.seen) >= 2
    padded = 0
    for batch in run.seen:
        for ids, labels, sample in zip(batch["ids"], batch["labels"], batch["sample"], strict=True):
            for number in sample[sample >= 0].unique():
                learned = labels[sample == number]
                assert learned[-1] == tokenizer.eos_token_id and tokenizer.decode(learned[:-1]) in tiny_models.TEXTS
            behind = ids[int((sample >= 0).nonzero()[-1]) + 2 :]
            assert (behind == tokenizer.pad_token_id).all()
            padded += len(behind)
    assert padded


def test_the_loss_is_the_models_own_on_each_row_alone(run):
    """Without a mask, padded on the right, and with the answers' positions alone through the head."""
    model = stack.load(run.base.causal_lm(), [run.folder / "sft"])
    batch = run.seen[0]
    with torch.no_grad():
        weights, losses = sft.answer_loss(model, batch).unbind(1)
        for sample in range(len(losses)):
            places = (batch["sample"] == sample).nonzero()
            row, end = int(places[0, 0]), int(places[-1, 1]) + 1
            answer = batch["labels"][row, batch["sample"][row] == sample]
            ids = torch.cat([batch["ids"][row, :end], answer[-1:]])[None]
            labels = torch.where(torch.arange(end + 1) > end - len(answer), ids, -100)
            expected = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
            assert weights[sample] == len(places)
            assert losses[sample].item() / weights[sample].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_rounds_of_a_dialogue_cost_a_row_where_the_template_lets_them(run):
    config, tokenizer = sft.SftConfig(), run.base.tokenizer()
    rounds = [records.Sample([], families.QUESTION, families.ANSWER),
              records.Sample([[families.QUESTION, families.ANSWER]], families.NOW, "好的。")]  # fmt: skip
    encoded = [sft.encode(tokenizer, sample, config) for sample in rounds]
    assert len(samples.rows_of(encoded)) == (1 if run.family.rounds_share_a_row else 2)
    model = stack.load(run.base.causal_lm(), [run.folder / "sft"])
    with torch.no_grad():
        together = sft.answer_loss(model, samples.collate(encoded, tokenizer.pad_token_id))
        alone = torch.cat([sft.answer_loss(model, samples.collate([each], 0)) for each in encoded])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_lora_is_on_every_layer_it_should_be_and_on_no_head(run):
    for name in ("sft", "rm", "ppo"):
        weights = load_file(run.folder / name / stack.WEIGHTS)
        layers = {key.split(".lora_")[0] for key in weights}
        assert {layer.rpartition(".")[2] for layer in layers} == run.family.layers
        assert len(layers) == 2 * len(run.family.layers) and all(".layers." in layer for layer in layers)
        assert all(tensor.abs().max() > 0 for tensor in weights.values()), "a layer learned nothing"


def test_adapters_change_the_answers(run):
    names = ("base", "sft", "ppo")
    answers = {(run.folder / "answers" / f"{name}.jsonl").read_bytes() for name in names}
    numbers = {(run.folder / "evaluation" / f"{name}.jsonl").read_bytes() for name in names}
    assert len(answers) == len(numbers) == 3


def log_probs(model, tokenizer):
    batch = forward.to_batch(prompts(tokenizer), [[5 + n] * (2 + n) for n in range(4)], tokenizer.pad_token_id, "cpu")
    with torch.no_grad():
        return logprobs.response_log_probs(model, batch, temperature=1.0, chunk=64).log_probs


def test_a_stack_is_the_model_with_merged_weights(run):
    tokenizer, adapters = run.base.tokenizer(), [run.folder / "sft", run.folder / "ppo"]
    stacked = log_probs(stack.load(run.base.causal_lm(), adapters), tokenizer)
    twin = run.base.causal_lm()
    bare = log_probs(twin, tokenizer)
    for folder in adapters:
        tiny_models.multiply_out(twin, folder)
    torch.testing.assert_close(stacked, log_probs(twin, tokenizer), atol=2e-3, rtol=0)
    assert (stacked - bare).abs().max() > 0.05


def test_the_score_in_ppo_is_the_reward_models(run):
    """Rows of several lengths, each closed by EOS: the head must read at the EOS in both."""
    tokenizer = run.base.tokenizer()
    before = prompts(tokenizer)
    answers = [[5 + n] * (2 + n) + [tokenizer.eos_token_id] for n in range(4)]
    model, head = stack.load(run.base.causal_lm(), [run.folder / "rm"]), reward.load_head(run.folder / "rm", "cpu")
    found = reward.score(model, head, before, answers, tokenizer.pad_token_id, 300)
    classifier = run.base.reward_model()
    classifier.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    tiny_models.multiply_out(classifier, run.folder / "rm")
    classifier.score = head
    with torch.no_grad():  # as it trains: transformers finds the last token of a row by itself
        expected = [
            classifier(input_ids=torch.tensor([[*p, *a]])).logits.item() for p, a in zip(before, answers, strict=True)
        ]
    assert found == pytest.approx(expected, abs=1e-4) and max(expected) - min(expected) > 0.01


def test_an_answer_does_not_depend_on_its_batch_and_stops_at_its_end(run):
    tokenizer = run.base.tokenizer()
    model = stack.load(run.base.causal_lm(), [run.folder / "sft"])

    def answers(batch_size, eos):
        keys = [str(n) for n in range(4)]
        found = generate(model, prompts(tokenizer), keys, DECODING, 8, batch_size, eos, tokenizer.pad_token_id)
        return [answer for _, answer in sorted(found)]

    ends = eos_ids(model, tokenizer)
    together = answers(4, ends)
    assert together == answers(1, ends)
    longest = max(together, key=lambda answer: len(answer.ids))
    ends.append(longest.ids[len(longest.ids) // 2])
    for whole, cut in zip(together, answers(4, ends), strict=True):
        stop = next((n for n, token in enumerate(whole.ids, 1) if token in ends), None)
        assert cut[:2] == (whole.ids[:stop], stop is not None)
    assert sum(len(answer.ids) for answer in answers(4, ends)) < sum(len(answer.ids) for answer in together)


@pytest.mark.parametrize("decoding", [DECODING, DECODING.replace(top_k=5, repetition_penalty=1.4)], ids=["p", "k, p"])
def test_the_loop_says_what_transformers_generate_says(run, decoding, monkeypatch, capsys):
    """Token for token, with the same draws: prompts of several lengths, rows that end early, and log-probabilities."""
    tokenizer, model = run.base.tokenizer(), stack.load(run.base.causal_lm(), [run.folder / "sft"])
    keys, ends = [str(n) for n in range(4)], eos_ids(model, tokenizer)

    def answers(with_log_probs=False):
        found = generate(model, prompts(tokenizer), keys, decoding, 20, 4, ends, tokenizer.pad_token_id, with_log_probs)
        return dict(found)

    assert loop.why_not(model) is None
    longest = max(answers().values(), key=lambda answer: len(answer.ids))
    ends.append(longest.ids[len(longest.ids) // 2])  # what a row says in the middle, on whichever processor
    found = answers(with_log_probs=True)
    monkeypatch.setattr(loop, "why_not", lambda model: "the test says so")
    capsys.readouterr()
    expected = answers()
    assert "the test says so, so transformers' own, slower generate is used" in capsys.readouterr().err
    assert {i: answer[:2] for i, answer in found.items()} == {i: answer[:2] for i, answer in expected.items()}
    assert {len(answer.ids) for answer in found.values()} != {20}
    before = prompts(tokenizer)
    batch = forward.to_batch(before, [found[i].ids for i in range(4)], tokenizer.pad_token_id, "cpu")
    with torch.no_grad():
        exact = logprobs.response_log_probs(model, batch, decoding.temperature, chunk=64).log_probs
    for i in range(4):
        torch.testing.assert_close(torch.tensor(found[i].log_probs), exact[i, : len(found[i].ids)], atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def capped(tmp_path_factory):
    """A Gemma 2, which caps its logits."""
    folder = tmp_path_factory.mktemp("gemma2")
    family = replace(families.FAMILIES["gemma3"], network="Gemma2ForCausalLM",
                     config={"final_logit_softcapping": 2.0, "attn_logit_softcapping": None})  # fmt: skip
    families.write(folder / "model", family)
    return folder


def errors(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


def test_an_attention_that_a_model_lacks_is_named(capped, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COVID_DOCTOR_WORK", str(tmp_path / "work"))
    config = write_params(tmp_path, str(capped / "model"))
    write_data(tmp_path)
    with pytest.raises(SystemExit):
        run_stages(tmp_path, config)
    assert errors(capsys) == [
        f"error: model.name: {capped / 'model'} has no such attention; set model.attn_implementation to eager"
    ]


def test_capped_logits_end_ppo_with_one_line(capped, monkeypatch, capsys):
    monkeypatch.setenv("COVID_DOCTOR_WORK", str(capped / "work"))
    config = write_params(capped, str(capped / "model"), attn_implementation="eager")
    write_data(capped)
    with pytest.raises(SystemExit):
        run_stages(capped, config)
    assert errors(capsys) == [
        "error: model.name: Gemma2ForCausalLM changes its logits after the LM head, which PPO does not support; choose "
        "another model"
    ]
    assert (capped / "rm" / "lineage.json").exists() and not (capped / "ppo").exists()


@pytest.mark.parametrize(
    ("name", "target", "layers"),
    [
        ("llama", "query_key_value", "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        ("qwen3_moe", "down_proj", "k_proj, o_proj, q_proj, v_proj"),
    ],
)
def test_a_layer_name_that_the_model_lacks_is_refused(name, target, layers, tmp_path):
    import transformers

    families.write(tmp_path, families.FAMILIES[name])
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    lora = tiny_models.LORA.replace(target_modules=("q_proj", target))
    with pytest.raises(UserError) as refused:
        lora.fit(model, "sft")
    assert str(refused.value) == (
        f"params.yaml: sft.lora.target_modules: the model has no layer `{target}` that LoRA could be put on; there are "
        + layers
    )


def test_named_layers_alone_learn(tmp_path, monkeypatch):
    monkeypatch.setenv("COVID_DOCTOR_WORK", str(tmp_path / "work"))
    families.write(tmp_path / "model", families.FAMILIES["llama"])
    config = write_params(tmp_path, str(tmp_path / "model"))
    write_data(tmp_path)
    params = yaml.safe_load(config.read_text())
    for stage in ("sft", "rm", "ppo"):
        params[stage]["lora"]["target_modules"] = ["q_proj", "v_proj"]
    config.write_text(yaml.safe_dump(params))
    run_stages(tmp_path, config)
    for stage in ("sft", "rm", "ppo"):
        layers = {key.split(".lora_")[0].rpartition(".")[2] for key in load_file(tmp_path / stage / stack.WEIGHTS)}
        assert layers == {"q_proj", "v_proj"}
