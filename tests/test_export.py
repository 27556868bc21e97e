"""The export: what plain transformers loads from the folder answers as the stack does, and the card tells the truth."""

import ast
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import imports
import pytest
import tiny_models
import torch
import yaml
from chatglm_fixture.tiny import build_tiny_chatglm
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from stages import export
from stages.models import base_model, stack
from stages.runtime import atomic
from stages.serving import merged_model, model_names
from stages.serving.model_card import SOURCES
from stages.serving.model_names import Name
from stages.text import encoding

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
HISTORY, QUESTION = [["医生您好", "您好，请讲。"]], "我发烧三天了，怎么办？"
MESSAGES = [
    {"role": "user", "content": HISTORY[0][0]},
    {"role": "assistant", "content": HISTORY[0][1]},
    {"role": "user", "content": QUESTION},
]


@pytest.fixture(autouse=True)
def lock(tmp_path, monkeypatch):
    """What DVC recorded: nothing, unless a test writes it."""
    monkeypatch.setattr(export, "LOCK", tmp_path / "dvc.lock")
    return export.LOCK


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Options of the command, for a tiny stack with metrics of its own."""
    folder = tmp_path_factory.mktemp("export")
    base, sft, _ = tiny_models.write(folder)
    ppo = folder / "ppo"
    tiny_models.write_adapter(ppo, "ppo", base, below=[sft], seed=3)
    options = {"base": base, "sft": sft, "ppo": ppo, "params_file": params(folder)}
    return options | evaluation(folder, base, sft, ppo)


def params(folder: Path, **data: str) -> Path:
    document = yaml.safe_load((imports.ROOT / "params.yaml").read_text())
    document["data"] |= {"dialogues": "data/sample", "preferences": "data/sample/preferences.json"} | data
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    return folder / "params.yaml"


def evaluation(folder: Path, base: Path, *adapters: Path) -> dict[str, Path]:
    """What `evaluate` and `report` leave of a run, as options of the export."""
    to, table = folder / "evaluation", folder / "models.csv"
    parts = {record.adapter: record.__dict__ for record in map(stack.lineage, adapters)}
    identity = {"name": "tiny", "identity": base_model.read(base).identity}
    atomic.write_json(to / "lineage.json", {"base": identity} | parts)
    scores = {"rouge-1": (12.5, 1.0, 20.0), "bleu-4": (3.25, None, None), "reward": (0.5, -1.0, 1.0)}
    atomic.write_csv(
        table,
        ("model", "metric", "value", "low", "high"),
        [
            {"model": name, "metric": metric, "value": value + index, "low": low, "high": high}
            for metric, (value, low, high) in scores.items()
            for index, name in enumerate(("ppo", "sft", "base"))
        ],
    )
    for index, name in enumerate(("ppo", "sft", "base")):
        answer = {metric: value + index for metric, (value, _, _) in scores.items()}
        atomic.write_jsonl(to / f"{name}.jsonl", [answer] * 217)
    return {"scores": table, "evaluation": to}


def stacked(files, name):
    origin = base_model.read(files["base"])
    folders = model_names.resolve(name, origin, files["sft"], files["ppo"])
    return origin.tokenizer(), stack.load(origin.causal_lm(), folders)


def greedy(model, ids):
    mask = torch.ones(1, len(ids))
    return model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=24, attention_mask=mask)


@pytest.mark.parametrize("name", Name)
def test_the_bill_and_the_hashes_are_those_of_the_folder(files, tmp_path, name):
    for to in (tmp_path / "out", tmp_path / "again/out"):
        export.main(to, model=name, **files)
    to = tmp_path / "out"
    again = {file.name: file.read_bytes() for file in (tmp_path / "again/out").iterdir()}
    assert again == {file.name: file.read_bytes() for file in to.iterdir()}  # so whoever exports it can sign the same

    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=to, check=True)
    listed = {line.split("  ")[1] for line in (to / "SHA256SUMS").read_text().splitlines()}
    assert listed == {file.name for file in to.iterdir()} - {"SHA256SUMS"}

    bill = json.loads((to / "bom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    components = {each["bom-ref"]: each for each in bill["components"]}
    assert len(components) == len(bill["components"])
    assert bill["dependencies"] == [{"ref": "model", "dependsOn": list(components)}]
    assert components["base"]["version"] == base_model.read(files["base"]).identity
    adapters = {"base": [], "sft": ["sft"], "ppo": ["sft", "ppo"]}[name]
    assert [ref for ref in components if ref.startswith("adapter-")] == [f"adapter-{each}" for each in adapters]
    for each in adapters:
        (found,) = components[f"adapter-{each}"]["hashes"]
        content = hashlib.sha256((files[each] / stack.WEIGHTS).read_bytes()).hexdigest()
        assert found == {"alg": "SHA-256", "content": content}
    assert [c["name"] for c in components.values() if c["type"] == "data"] == {
        "base": [], "sft": ["data/sample"], "ppo": ["data/sample", "data/sample/preferences.json"]
    }[name]  # fmt: skip
    assert f"pkg:pypi/torch@{torch.__version__.partition('+')[0]}" in components
    weights = bill["metadata"]["component"]["components"]
    assert [each["name"] for each in weights] == ["model.safetensors"]
    assert weights[0]["hashes"][0]["content"] in (to / "SHA256SUMS").read_text()


@pytest.mark.parametrize("name", Name)
def test_plain_transformers_gives_the_answers_of_the_stack(files, tmp_path, name, capsys):
    to = tmp_path / "out"
    export.main(to, model=name, **files)
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{to}: written") and printed.err == ""
    assert list(tmp_path.iterdir()) == [to]
    assert sorted(p.suffix for p in to.iterdir() if "model" in p.name) == [".safetensors"]
    assert len({p.stat().st_mode for p in to.iterdir()}) == 1  # a server may be another user

    tokenizer, model = stacked(files, name)
    ids = encoding.encode_prompt(tokenizer, HISTORY, QUESTION, 400, "sft").ids
    plain = AutoModelForCausalLM.from_pretrained(to)
    with torch.no_grad():
        expected, found = model(torch.tensor([ids])).logits, plain(torch.tensor([ids])).logits
        with stack.merged(model):
            assert torch.equal(found, model(torch.tensor([ids])).logits)
    # Of the largest logit: in absolute terms, the stack's own rounding in float32 is of this size.
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    answer = greedy(model, ids)
    assert greedy(plain, ids).tolist() == answer.tolist()

    conversation = pipeline("text-generation", model=str(to))(MESSAGES, do_sample=False, max_new_tokens=24)
    text = conversation[0]["generated_text"][-1]["content"]
    assert text == tokenizer.decode(answer[0, len(ids) :], skip_special_tokens=True)
    with safe_open(to / "model.safetensors", "pt") as weights:
        assert not [key for key in weights.keys() if "lora" in key or "base_layer" in key]  # noqa: SIM118


def test_it_decodes_as_predict_by_itself(files, tmp_path):
    export.main(tmp_path / "out", **files)
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    wanted = yaml.safe_load(files["params_file"].read_text())["predict"]
    for key in ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens"):
        assert saved[key] == wanted[key], key


def test_the_template_is_the_one_of_training(files):
    tokenizer = base_model.read(files["base"]).tokenizer()
    thinking = "{{ 'quick' if enable_thinking is defined and not enable_thinking else 'slow' }}"
    for template, with_thinking_off in ((thinking, True), (None, False)):
        tokenizer.chat_template = template
        ids = encoding.encode_prompt(tokenizer, HISTORY, QUESTION, 400, "sft").ids
        merged_model.pin_chat_template(tokenizer)
        rendered = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
        assert tokenizer.encode(rendered, add_special_tokens=False) == ids
        assert (rendered == "quick") is with_thinking_off


def test_chatglm(tmp_path):
    """In a fresh process, with no more than the card tells."""
    model = tiny_models.MODEL.replace(name=str(build_tiny_chatglm(tmp_path / "chatglm")))
    base, sft = tmp_path / "base", tmp_path / "sft"
    with atomic.folder(base) as folder:
        base_model.write_pointer(folder, model)
    tiny_models.write_adapter(sft, "sft", base, seed=1)
    to = tmp_path / "doctor"
    export.main(to, Name.sft, base, sft, sft, params(tmp_path), tmp_path / "no scores", tmp_path / "no evaluation")
    card = (to / "README.md").read_text()
    assert "second\ngeneration" in card and "vllm serve ./" not in card and "MODEL_LICENSE" in card

    code = card.split("```python\n")[1].split("```")[0]
    assert "chatglm.register()" in code
    code = code.replace("print(doctor(messages)", "print(doctor(messages, do_sample=False, max_new_tokens=24)")
    environment = {"PYTHONPATH": str(imports.ROOT), "OMP_NUM_THREADS": "1", "PATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code.replace("医生您好，我发烧三天了", QUESTION)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    tokenizer, stacked_model = stacked({"base": base, "sft": sft, "ppo": sft}, Name.sft)
    ids = encoding.encode_prompt(tokenizer, [], QUESTION, 200, "sft").ids
    answer = greedy(stacked_model, ids)[0, len(ids) :]
    assert done.stdout.removesuffix("\n") == tokenizer.decode(answer, skip_special_tokens=True), done.stderr
    assert len(answer) > 1


# --- the card ---


def test_the_card(files, tmp_path):
    export.main(tmp_path / "doctor", **files)
    card = ModelCard.load(tmp_path / "doctor" / "README.md")
    assert card.data.license == "apache-2.0" and card.data.language == ["zh"]
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "text-generation"
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found == {"ROUGE-1": 12.5, "BLEU-4": 3.25, "Reward": 0.5}
    assert {result.metric_type for result in card.data.eval_results} == {"rouge", "bleu", "reward"}
    for part in (
        "It gives no medical advice",
        "## Intended use",
        "## Limits",
        "## Licence notes",
        "| ROUGE-1 | 12.50 | 1.00 … 20.00 |",
        "| BLEU-4 | 3.25 | – |",
        "vllm serve ./doctor",
        "transformers serve ./doctor",
        '{"model": "./doctor",',
        stack.lineage(files["ppo"]).sha256,
        "217 questions",
    ):
        assert part in card.text, part
    written = yaml.safe_load(card.text.split("```yaml\n")[1].split("```")[0])
    assert written["ppo"] == yaml.safe_load(files["params_file"].read_text())["ppo"]


def test_scores_of_other_weights_are_left_out(files, tmp_path, capsys):
    others = tmp_path / "evaluation"
    shutil.copytree(files["evaluation"], others)
    document = json.loads((others / "lineage.json").read_text())
    document["sft"]["sha256"] = "0" * 64
    atomic.write_json(others / "lineage.json", document)
    export.main(tmp_path / "doctor", **(files | {"evaluation": others}))
    card = ModelCard.load(tmp_path / "doctor" / "README.md")
    assert card.data.eval_results is None and "12.50" not in card.text
    assert "has no scores of these weights" in capsys.readouterr().err


def test_scores_of_another_run_than_the_evaluation_are_left_out(files, tmp_path, capsys):
    table = tmp_path / "models.csv"
    table.write_text(files["scores"].read_text().replace("ppo,rouge-1,12.5,", "ppo,rouge-1,12.6,"))
    export.main(tmp_path / "doctor", **(files | {"scores": table}))
    assert "12.60" not in ModelCard.load(tmp_path / "doctor" / "README.md").text
    assert "has no scores of these weights" in capsys.readouterr().err


def test_scores_of_answers_that_were_decoded_otherwise_are_left_out(files, lock, tmp_path, capsys):
    predict = yaml.safe_load(files["params_file"].read_text())["predict"]
    for name, temperature in (("as recorded", predict["temperature"]), ("otherwise", 0.2)):
        recorded = {"params": {"params.yaml": {"predict": predict | {"temperature": temperature}}}}
        lock.write_text(yaml.safe_dump({"stages": {"predict@ppo": recorded}}))
        export.main(tmp_path / name, **files)
        assert ("has no scores" in capsys.readouterr().err) == (name == "otherwise")


def test_a_name_can_not_break_out_of_its_place(files, tmp_path):
    """A folder's or a data set's name is text to the Markdown, the Python and the shell of the card."""
    folder, data = "a \"$(touch broken)` 'b", "data/<script>`x\n# Heading"
    export.main(tmp_path / folder, **(files | {"params_file": params(tmp_path, dialogues=data)}))
    card = (tmp_path / folder / "README.md").read_text()
    assert "\n# Heading" not in card and "`data/<script>'x # Heading`" in card
    code = card.split("```python\n")[1].split("```")[0]
    [call] = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.keyword) and node.arg == "model"]
    assert ast.literal_eval(call.value) == folder
    serve = next(line for line in card.splitlines() if "vllm serve" in line)
    assert shlex.split(serve, comments=True) == ["vllm", "serve", f"./{folder}"]
    request = shlex.split(next(line for line in card.splitlines() if line.strip().startswith("-d ")))[1]
    assert json.loads(request)["model"] == f"./{folder}"


@pytest.mark.parametrize(
    ("dialogues", "part"),
    [("data/covid-dialogue", SOURCES["covid-dialogue"].rights), ("data/mine", "unknown: state it")],
)
def test_the_licence_follows_the_data(files, tmp_path, dialogues, part):
    export.main(tmp_path / "doctor", **(files | {"params_file": params(tmp_path, dialogues=dialogues)}))
    card = ModelCard.load(tmp_path / "doctor" / "README.md")
    assert card.data.license == "other" and card.data.license_name
    assert part in card.text


# --- whole or not at all ---


def test_a_folder_with_something_in_it_is_refused(files, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for to in (tmp_path, tmp_path / "file"):
        with pytest.raises(SystemExit):
            export.main(to, **files)
        error = capsys.readouterr().err
        assert error.startswith(f"error: --to: {to} exists") and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export.main(tmp_path / "empty", **files)


def test_a_failure_leaves_no_folder(files, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("halfway")

    monkeypatch.setattr(merged_model, "pin_chat_template", fail)
    with pytest.raises(RuntimeError, match="halfway"):
        export.main(tmp_path / "doctor", **files)
    assert not (tmp_path / "doctor").exists()


def test_a_tokenizer_of_its_own(files, tmp_path):
    export.main(tmp_path / "doctor", **files)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "doctor")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id and tokenizer.padding_side == "left"
