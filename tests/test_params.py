"""params.yaml → typed sections: what is missing, unknown, of the wrong type or out of bounds is named."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from dvc.utils.serialize import dumps_yaml
from pydantic import Field, model_validator

from stages import parameters
from stages.parameters import SECTIONS
from stages.rl.config import PpoConfig
from stages.runtime import params
from stages.runtime.errors import UserError
from stages.sft import SftConfig

ROOT = Path(__file__).parents[1]


class Inner(params.Section):
    r: Annotated[int, Field(ge=1)] = 3
    names: Literal["all"] | Annotated[tuple[Annotated[str, Field(strict=True)], ...], Field(strict=False)] = "all"

    @model_validator(mode="after")
    def _fits(self) -> "Inner":
        if self.r > len(self.names):
            raise ValueError("r must be at most the number of names")
        return self


class Outer(params.Section):
    rate: params.LearningRate = 0.1
    limit: Annotated[float, Field(gt=0)] | None = None
    kind: Literal["a", "b"] = "a"
    flag: bool = True
    inner: Inner = Inner()


GOOD = """
seed: 42
outer:
  rate: 1
  limit: null
  kind: a
  flag: true
  inner: {r: 2, names: [x, y]}
"""


def load(folder: Path, text: str) -> Outer:
    file = folder / "params.yaml"
    file.write_text(text, encoding="utf-8")
    return params.load(file, "outer", Outer)


def test_good(tmp_path: Path) -> None:
    outer = load(tmp_path, GOOD)
    assert outer == Outer(rate=1.0, limit=None, kind="a", flag=True, inner=Inner(r=2, names=("x", "y")))
    assert type(outer.rate) is float
    assert params.load(tmp_path / "params.yaml", "seed", int) == 42


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate: 1", "rate: fast", "`outer.rate` must be a number, not 'fast'"),
        ("rate: 1", "rate: true", "`outer.rate` must be a number, not True"),
        ("rate: 1", "rate: .nan", "`outer.rate` must be a finite number, not nan"),
        ("rate: 1", "rate: 1.0e+6", "`outer.rate` must be at most 1.0, not 1000000.0"),
        ("rate: 1", "rate: 0x" + "f" * 5000, "`outer.rate` must be a number, not a number of that many digits"),
        ("limit: null", "limit: x", "`outer.limit` must be a number or null, not 'x'"),
        ("limit: null", "limit: -1", "`outer.limit` must be above 0.0 or null, not -1"),
        ("limit: null", "limit: .inf", "`outer.limit` must be a finite number or null, not inf"),
        ("kind: a", "kind: c", "`outer.kind` must be 'a' or 'b', not 'c'"),
        ("flag: true", "flag: 1", "`outer.flag` must be true or false, not 1"),
        ("flag: true", "flag: yes", "`outer.flag` must be true or false, not 'yes'"),
        ("  flag: true\n", "", "key `outer.flag` is missing"),
        ("flag: true", "flagg: true", "unknown key `outer.flagg`; did you mean `outer.flag`?"),
        ("flag: true", "flag: true\n  zzzz: 1", "unknown key `outer.zzzz`; known keys: rate, limit, kind, flag, inner"),
        ("flag: true", "flag: true\n  flag: false", "not valid YAML"),
        ("flag: true", "1: true", "`outer[1]` must be a text, not 1"),
        ("r: 2", "r: 2.5", "`outer.inner.r` must be a whole number, not 2.5"),
        ("r: 2", "r: true", "`outer.inner.r` must be a whole number, not True"),
        ("r: 2", "r: 0", "`outer.inner.r` must be at least 1, not 0"),
        ("r: 2", "r: 3", "`outer.inner`: r must be at most the number of names"),
        ("r: 2, ", "", "key `outer.inner.r` is missing"),
        ("r: 2", "rr: 2", "unknown key `outer.inner.rr`; did you mean `outer.inner.r`?"),
        ("[x, y]", "[x, 3]", "`outer.inner.names[1]` must be a text, not 3"),
        ("[x, y]", "3", "`outer.inner.names` must be 'all' or a list, not 3"),
        ("{r: 2, names: [x, y]}", "3", "`outer.inner` must be a section of keys, not 3"),
        ("outer:", "other:", "section `outer` is missing"),
        ("outer:", "outer: {", "not valid YAML"),
        ("rate: 1", "rate: !!int abc", "not valid YAML"),
        ("rate: 1", "rate: !!bool abc", "not valid YAML"),
        ("rate: 1", "rate: !!timestamp abc", "not valid YAML"),
        ("rate: 1", "rate: 2020-99-99", "not valid YAML"),
        ("rate: 1", "rate: !!python/object:os.system {}", "not valid YAML"),
        ("rate: 1", "rate: " + "9" * 5000, "not valid YAML"),
        ("rate: 1", "rate: " + "[" * 5000, "not valid YAML"),
    ],
)
def test_bad(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as error:
        load(tmp_path, GOOD.replace(old, new))
    assert message in str(error.value)
    assert "params.yaml" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"seed: \x80", b"- 3", b"", b"3"])
def test_a_file_that_holds_no_sections(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"params\.yaml: (not valid YAML|must consist of sections with keys)"):
        params.load(tmp_path / "params.yaml", "seed", int)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nope\.yaml: no such parameters file"):
        params.load(tmp_path / "nope.yaml", "seed", int)
    with pytest.raises(UserError, match="Is a directory"):
        params.load(tmp_path, "seed", int)


def test_a_seed_of_a_section_is_read_alone(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("seed: 1\ndata:\n  seed: 2\n", encoding="utf-8")
    assert params.load(file, "data.seed", int) == 2
    for text, message in (("seed: 1", "section `data` is missing"), ("data: {}", "key `data.seed` is missing")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            params.load(file, "data.seed", int)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "a", None])
def test_a_seed_that_some_generator_would_refuse(seed: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`seed` must be"):
        params.check(seed, "seed", int, tmp_path)


@pytest.mark.parametrize("section", SECTIONS)
def test_params_yaml_names_every_parameter_at_its_default(section: str) -> None:
    document = params.read(ROOT / "params.yaml")
    assert list(document) == list(SECTIONS)
    kind = SECTIONS[section]
    if kind is int:
        return
    assert params.load(ROOT / "params.yaml", section, kind) == kind()
    assert keys(document[section]) == keys(kind().model_dump())


def keys(section: dict[str, Any]) -> dict[str, Any]:
    return {name: keys(value) if isinstance(value, dict) else None for name, value in section.items()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base.block_size", 0),
        ("base.architecture.hidden_size", 0),
        ("base.architecture.num_attention_heads", 0),
        ("base.architecture.num_attention_heads", -2),
        ("base.architecture.num_key_value_heads", 0),
        ("base.num_train_epochs", float("inf")),
        ("sft.dev_ratio", 1.0),
        ("sft.dev_ratio", -0.5),
        ("sft.max_target_length", 0),
        ("sft.eval_steps", 0),
        ("sft.gradient_accumulation_steps", 10**9),
        ("sft.lora.r", 0),
        ("sft.lora.r", 10**6),
        ("sft.lora.alpha", 0),
        ("sft.lora.target_modules", []),
        ("sft.learning_rate", float("nan")),
        ("rm.max_source_length", -1),
        ("rm.center_rewards_coefficient", -5),
        ("rm.max_grad_norm", float("nan")),
        ("ppo.vf_coef", -1),
        ("ppo.reward_clip", 1e-9),
        ("ppo.normalization_samples", 1),
        ("ppo.kl_coef", -3),
        ("ppo.early_stop_kl", -1),
        ("ppo.kl_horizon", 1e-12),
        ("ppo.missing_eos_penalty", -100),
        ("predict.batch_size", 0),
        ("predict.top_p", 0.0),
        ("predict.temperature", 1e-30),
        ("predict.repetition_penalty", float("inf")),
        ("predict.repetition_penalty", 1e-30),
        ("evaluate.tokens_per_batch", 0),
        ("report.bootstrap_samples", 1),
        ("model.chatglm_first_round", True),
        ("model.name", "x" * 300),
        ("data.dialogues", ""),
        ("data.dialogues", None),
    ],
)
def test_the_stages_refuse_what_they_can_not_run(key: str, value: Any) -> None:
    section, *path, last = key.split(".")
    document = SECTIONS[section]().model_dump()
    inner = document
    for name in path:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(UserError, match=f"`{key}` must be"):
        params.check(document, section, SECTIONS[section], ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("ppo", {"batch_size": 33}, r"`ppo`: batch_size \(33\) must be a multiple of num_mini_batches \(4\)"),
        ("ppo", {"total_episodes": 8}, r"`ppo`: total_episodes \(8\) is less than one batch \(32\)"),
        ("ppo", {"min_response_length": 97}, "`ppo`: max_response_length must be at least min_response_length"),
        ("ppo", {"lora": {"dropout": 0.1}}, "`ppo`: lora.dropout must be 0"),
        ("ppo", {"kl_horizon": 6}, r"`ppo`: kl_horizon \(6\) must be more than a fifth of batch_size \(32\)"),
        ("sft", {"eval_steps": 15}, "`sft`: eval_steps 15 is not a multiple of logging_steps 10"),
        ("rm", {"gradient_accumulation_steps": 2**16}, "gradient_accumulation_steps is 1048576, and must be at most"),
        ("model", {"trust_remote_code": True}, "pin `revision` to a full 40-digit commit"),
        ("model", {"fsdp": True, "quantization": "4bit"}, "fsdp can't shard quantized weights"),
        ("model", {"portable": True, "dtype": "float16"}, "portable needs the fused optimizer"),
        ("base", {"architecture": {"num_key_value_heads": 3}}, "must be a multiple of num_key_value_heads"),
        ("base", {"architecture": {"hidden_size": 190}}, "must be an even multiple of num_attention_heads"),
    ],
)
def test_parameters_that_do_not_fit_each_other(section: str, changes: dict[str, Any], message: str) -> None:
    document = SECTIONS[section]().model_dump()
    for name, value in changes.items():
        document[name] = document[name] | value if isinstance(value, dict) else value
    with pytest.raises(UserError, match=message):
        params.check(document, section, SECTIONS[section], ROOT / "params.yaml")


def test_a_changed_copy_is_checked() -> None:
    assert PpoConfig().replace(total_episodes=1280, batch_size=64).updates == 20
    with pytest.raises(ValueError, match="multiple of num_mini_batches"):
        PpoConfig().replace(batch_size=33)


@pytest.mark.parametrize(
    ("override", "section", "name", "expected"),
    [
        ("ppo.learning_rate=0.00003", "ppo", "learning_rate", 3e-5),
        ("ppo.learning_rate=1e-5", "ppo", "learning_rate", 1e-5),
        ("ppo.learning_rate=5E-05", "ppo", "learning_rate", 5e-5),
        ("sft.learning_rate=1e-10", "sft", "learning_rate", 1e-10),
        ("sft.num_train_epochs=2", "sft", "num_train_epochs", 2.0),
        ("ppo.reward_clip=null", "ppo", "reward_clip", None),
        ("ppo.early_stop_kl=12.5", "ppo", "early_stop_kl", 12.5),
        ("ppo.whiten_rewards=true", "ppo", "whiten_rewards", True),
        ("ppo.merge_adapters_for_rollouts=False", "ppo", "merge_adapters_for_rollouts", False),
        ("sft.lora.target_modules=[q_proj,v_proj]", "sft", "lora.target_modules", ("q_proj", "v_proj")),
        ("model.name=Qwen/Qwen3-0.6B", "model", "name", "Qwen/Qwen3-0.6B"),
        ("model.revision=0000000000000000000000000000000000000001", "model", "revision", "0" * 39 + "1"),
    ],
)
def test_what_dvc_writes_for_a_changed_parameter_is_read_as_it_was_meant(
    override: str, section: str, name: str, expected: Any, tmp_path: Path
) -> None:
    """`dvc exp run -S` is these functions: Hydra's grammar, then DVC's YAML writer."""
    from dvc.utils.hydra import apply_overrides

    file = tmp_path / "params.yaml"
    file.write_bytes((ROOT / "params.yaml").read_bytes())
    apply_overrides(file, [override])
    found: Any = params.load(file, section, SECTIONS[section])
    for part in name.split("."):
        found = getattr(found, part)
    assert found == expected
    assert type(found) is type(expected)


def test_numbers_are_written_and_read_as_dvc_does(tmp_path: Path) -> None:
    for exponent in range(1, 30):
        rate = 3 * 10.0**-exponent
        (tmp_path / "params.yaml").write_text(
            dumps_yaml({"sft": SftConfig(learning_rate=rate).model_dump(mode="json")})
        )
        assert params.load(tmp_path / "params.yaml", "sft", SftConfig).learning_rate == rate


def test_the_document_is_current() -> None:
    assert (ROOT / "docs/parameters.md").read_text(encoding="utf-8") == parameters.document(), (
        "run `python -m stages.parameters > docs/parameters.md`"
    )


def test_the_document_says_what_each_parameter_does() -> None:
    table = [line.split(" | ") for line in parameters.document().splitlines() if line.startswith("| `")]
    assert len(table) > 100
    assert all(len(row) == 4 and len(row[3]) > 5 for row in table), [row for row in table if len(row[3]) <= 5]
