"""Profiles: each is valid for every stage, the switch keeps the comments, and a mistake in one is named."""

import math
import shutil
from pathlib import Path

import pytest

from stages import profile
from stages.page import reference_results
from stages.parameters import SECTIONS
from stages.predict import PredictConfig
from stages.preference.config import RmConfig
from stages.preprocess import DataConfig
from stages.rl.config import PpoConfig
from stages.runtime import params
from stages.runtime.errors import UserError
from stages.sft import SftConfig
from stages.training import trainer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROFILES = ROOT / "profiles"
NAMES = sorted(path.stem for path in PROFILES.glob("*.yaml"))
LARGE = ("chatglm-6b", "chatglm-6b-12gb")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "data/sample", tmp_path / "data/sample")
    return Path(shutil.copy(PROFILES / "default.yaml", tmp_path / "params.yaml"))


def switch(name: str, config: Path, profiles: Path = PROFILES) -> None:
    profile.main(name=name, profiles=profiles, params_file=config)


def comments(file: Path) -> list[str]:
    return [line.partition("#")[2] for line in file.read_text(encoding="utf-8").splitlines() if "#" in line]


def test_the_default_profile_is_what_is_committed() -> None:
    assert (PROFILES / "default.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_every_profile_that_the_documents_promise() -> None:
    promised = {"default", "smallest", "covid-tiny", "chatglm-6b", "chatglm-6b-12gb", "qwen3-0.6b", "qwen3-1.7b"}
    assert promised <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_is_valid(name: str, config: Path) -> None:
    profile.apply(name, PROFILES, config)
    assert set(params.read(config)) == set(SECTIONS)
    for section, kind in SECTIONS.items():
        params.load(config, section, kind)


@pytest.mark.parametrize("processes", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "smollm2-135m"])  # 42 dialogues on one CPU thread
def test_runs_on_so_many_processes(name: str, processes: int, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several GPUs, and two machines with eight each; PPO shares any batch out among any number."""
    profile.apply(name, PROFILES, config)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    for section, kind in (("sft", SftConfig), ("rm", RmConfig)):
        stage = params.load(config, section, kind)
        samples, passes = trainer.share(stage, "float32")
        assert samples <= stage.per_device_train_batch_size
        assert samples * passes * processes == stage.batch_size


@pytest.mark.parametrize("name", NAMES)
def test_is_what_it_says_over_the_defaults(name: str, config: Path) -> None:
    before, after = profile.apply(name, PROFILES, config)
    overlay = dict(profile.keys(params.read(PROFILES / f"{name}.yaml")))
    assert after == before | overlay
    assert dict(profile.keys(params.read(config))) == after


def keys_only(lines: list[str]) -> list[str]:
    """Without the items of lists, of which a profile may have more or fewer."""
    return [line for line in lines if not line.lstrip().startswith("- ")]


@pytest.mark.parametrize("name", NAMES)
def test_comments_stay(name: str, config: Path) -> None:
    before = config.read_text(encoding="utf-8").splitlines()
    text = comments(config)
    profile.apply(name, PROFILES, config)
    assert comments(config) == text
    after = config.read_text(encoding="utf-8").splitlines()
    # each key on its own line still, so `git diff` shows the values and no more
    assert len(keys_only(before)) == len(keys_only(after))


def test_one_profile_after_another_leaves_nothing_behind(config: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(config, tmp_path / "other.yaml"))
    switch("chatglm-6b", config)
    switch("qwen3-0.6b", config)
    switch("qwen3-0.6b", other)
    assert profile.read(config) == profile.read(other)
    switch("default", config)
    assert config.read_bytes() == (PROFILES / "default.yaml").read_bytes()


def test_what_changed_is_printed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    switch("default", config)
    assert capsys.readouterr().out == f"{config} already is the profile `default`\n"
    switch("qwen3-0.6b", config)
    assert "model.name: data/base → Qwen/Qwen3-0.6B\n" in capsys.readouterr().out


def test_users_own_comment_and_null_stay(config: Path) -> None:
    config.write_text(config.read_text(encoding="utf-8").replace("seed: 42\n", "seed: 42  # my own\n"), "utf-8")
    switch("chatglm-6b", config)
    text = config.read_text(encoding="utf-8")
    assert "seed: 42  # my own\n" in text
    assert "  revision: null " in text
    assert "  learning_rate: 5.0e-5\n" in text  # as the profile writes it


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("ppo: {kl_ceof: 0.1}", "unknown key `ppo.kl_ceof`; did you mean `ppo.kl_coef`?"),
        ("sft: {lora: {rank: 4}}", "unknown key `sft.lora.rank`; known keys: r, alpha, dropout, target_modules"),
        ("ppp: {kl_coef: 0.1}", "unknown key `ppp`; did you mean `ppo`?"),
        ("ppo: 3", "`ppo` must be a section of keys"),
        ("seed: {a: 3}", "`seed` must be a value"),
        ("- 3", "must consist of sections with keys"),
        ("ppo: {", "not valid YAML"),
    ],
)
def test_a_mistake_in_a_profile(overlay: str, message: str, config: Path, tmp_path: Path) -> None:
    shutil.copy(PROFILES / "default.yaml", tmp_path / "default.yaml")
    (tmp_path / "mine.yaml").write_text(overlay, encoding="utf-8")
    before = config.read_bytes()
    with pytest.raises(UserError) as error:
        profile.apply("mine", tmp_path, config)
    assert message in str(error.value)
    assert str(tmp_path / "mine.yaml") in str(error.value)
    assert config.read_bytes() == before


def test_an_unknown_profile(config: Path) -> None:
    with pytest.raises(UserError, match=r"no profile `gpt` in .*; there are: chatglm-6b, chatglm-6b-12gb, "):
        profile.apply("gpt", PROFILES, config)


@pytest.mark.parametrize("name", LARGE)
def test_no_second_copy_of_a_large_model(name: str, config: Path) -> None:
    profile.apply(name, PROFILES, config)
    assert not params.load(config, "predict", PredictConfig).merge_adapters
    assert not params.load(config, "ppo", PpoConfig).merge_adapters_for_rollouts


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("gb")])
def test_another_card_changes_no_batch_and_no_coefficient(name: str, config: Path) -> None:
    same = set()
    for each in (name.rpartition("-")[0], name):
        _, values = profile.apply(each, PROFILES, config)
        for section, kind in (("sft", SftConfig), ("rm", RmConfig)):
            values[f"{section} batch"] = params.load(config, section, kind).batch_size
        free = ("per_device_", "gradient_", "tokens_per", "merge_", "local_", "predict.batch_size", "quantization")
        same.add(tuple((key, str(value)) for key, value in sorted(values.items()) if not any(f in key for f in free)))
    assert len(same) == 1


def test_the_tutorials_steps(config: Path) -> None:
    """The step counts that the tutorial's figures show, from 3,804 samples, 36,441 pairs and 3,804 prompts."""
    profile.apply("chatglm-6b", PROFILES, config)
    sft, rm, ppo = (
        params.load(config, "sft", SftConfig),
        params.load(config, "rm", RmConfig),
        params.load(config, "ppo", PpoConfig),
    )
    samples = round(3804 * (1 - sft.dev_ratio)) * sft.num_train_epochs
    assert math.ceil(samples / sft.batch_size) == reference_results.SFT_STEPS  # the last batch is filled up
    assert (
        abs(36441 * (1 - params.load(config, "data", DataConfig).preferences_validate_ratio) / rm.batch_size - 1080) < 5
    )
    assert ppo.updates == 2375
    assert sft.learning_rate == 5e-5
    assert rm.learning_rate == ppo.learning_rate == 1e-5


def test_what_a_run_would_lack_is_told(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    switch("smallest", config)
    assert "next: " not in capsys.readouterr().out
    switch("covid-tiny", config)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert "data/covid-dialogue/train_data.json, " in line
    assert "`make data`" in line and "data/README.md" in line


def test_without_a_name_the_profiles_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    profile.main(name=None, profiles=PROFILES)
    assert capsys.readouterr().out.splitlines() == NAMES


def test_a_list_gives_way_to_an_empty_one(config: Path, tmp_path: Path) -> None:
    """Whatever its indentation, in the parameters (DVC rewrites them) and in the default."""
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    default = (PROFILES / "default.yaml").read_text(encoding="utf-8").replace("\n    - ", "\n  - ")
    (profiles / "default.yaml").write_text(default, encoding="utf-8")
    (profiles / "smallest.yaml").write_bytes((PROFILES / "smallest.yaml").read_bytes())
    overlay = "data: {boilerplate: []}\nbase: {architecture: {vocab_size: 320}}\n"
    (profiles / "own.yaml").write_text(overlay, encoding="utf-8")
    profile.apply("smallest", profiles, config)
    (profiles / "default.yaml").write_bytes(config.read_bytes())
    config.write_text(config.read_text(encoding="utf-8").replace("\n    - ", "\n  - "), encoding="utf-8")
    profile.apply("own", profiles, config)
    assert params.read(config)["data"]["boilerplate"] == []
    assert params.read(config)["base"]["architecture"]["vocab_size"] == 320
