"""Models by their name on a hub: resolved to a commit, loaded at it, and refused with one line that says the mend."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import families
import hub_server
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
OLD, NEW = "1" * 40, "2" * 40
ELSEWHERE = "3" * 40
OWN_CODE = """
import sys
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

print("own code", file=sys.stderr)

class Config(Qwen3Config):
    model_type = "homemade"

class Model(Qwen3ForCausalLM):
    config_class = Config

class Classifier(Qwen3ForSequenceClassification):
    config_class = Config
"""


class Machine:
    """A process with one hub and one mode, which runs the base stage."""

    def __init__(self, top: Path, **environment: str):
        self.top = top
        self.count = 0
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "hub_stages.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env=inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HOME": str(top / "cache"),
                             "COVID_DOCTOR_WORK": str(top / "work"), "TQDM_DISABLE": "1"} | environment,
        )  # fmt: skip

    def run(self, name: str, to: Path | None = None, load_only: bool = False, **model: object) -> dict:
        """Run the stage in the folder `to` (a new one if not given) and load the model."""
        self.count += 1
        to = to or self.top / f"{self.process.pid}-{self.count}"
        to.mkdir(exist_ok=True)
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["model"] |= {"name": name, **model}
        (to / "params.yaml").write_text(yaml.safe_dump(params))
        order = {"to": str(to), "config": str(to / "params.yaml"), "load_only": load_only}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def refusal(self, name: str, **model: object) -> str:
        """The one line that the stage ends with."""
        result = self.run(name, **model)
        assert result["code"] == 1, result
        (line,) = result["stderr"].splitlines()
        return line.removeprefix("error: model.name: ")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    top = tmp_path_factory.mktemp("hub")
    family = families.FAMILIES["qwen3"]
    for name in (OLD, NEW):
        families.write(top / name, family)
    weights = load_file(top / NEW / "model.safetensors")
    weights["model.embed_tokens.weight"] += 1
    save_file(weights, top / NEW / "model.safetensors", metadata={"format": "pt"})
    both = {OLD: top / OLD, NEW: top / NEW}

    pickled = copy(top / OLD, top / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save(weights, pickled / "pytorch_model.bin")
    (pickled / "onnx").mkdir()
    save_file(weights, pickled / "onnx" / "model.safetensors")
    chatglm = copy(pickled, top / "chatglm")
    (chatglm / "ice_text.model").write_bytes(b"pieces")
    coded, half = copy(top / OLD, top / "coded"), copy(top / OLD, top / "half")
    config = json.loads((coded / "config.json").read_text()) | {"model_type": "homemade"}
    classes = {"AutoConfig": "homemade.Config", "AutoModelForCausalLM": "homemade.Model"}
    (half / "config.json").write_text(json.dumps(config | {"auto_map": classes}))
    classes["AutoModelForSequenceClassification"] = "homemade.Classifier"
    (coded / "config.json").write_text(json.dumps(config | {"auto_map": classes}))
    for folder in (coded, half):
        (folder / "homemade.py").write_text(OWN_CODE)
    with hub_server.Hub() as server:
        server.repositories = {
            "clinic/doctor": hub_server.Repository(both, {"main": OLD, "next": NEW}),
            "clinic/gated": hub_server.Repository(both, {"main": OLD}, refuses=(401, "GatedRepo")),
            "clinic/forbidden": hub_server.Repository(both, {"main": OLD}, refuses=(403, "GatedRepo")),
            "clinic/pickled": hub_server.Repository({OLD: pickled}, {"main": OLD}),
            "clinic/chatglm": hub_server.Repository({OLD: chatglm}, {"main": OLD}),
            "clinic/coded": hub_server.Repository({OLD: coded}, {"main": OLD}),
            "clinic/half": hub_server.Repository({NEW: half}, {"main": NEW}),
        }
        yield server


def copy(source: Path, to: Path) -> Path:
    shutil.copytree(source, to)
    return to


@pytest.fixture(scope="module")
def machines(hub, tmp_path_factory):
    """One with the hub; one whose network is down; one that is told to stay offline. They share one cache."""
    top = tmp_path_factory.mktemp("machines")
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}"  # free again when this block ends
    found = {
        "online": Machine(top, HF_ENDPOINT=hub.endpoint),
        "down": Machine(top, HF_ENDPOINT=nobody),
        "offline": Machine(top, HF_ENDPOINT=nobody, HF_HUB_OFFLINE="1"),
    }
    yield found
    for machine in found.values():
        machine.close()


@pytest.fixture(scope="module")
def online(machines):
    return machines["online"]


@pytest.fixture(scope="module")
def downloaded(online):
    """What the first machine found: the main branch, by then in its cache."""
    return online.run("clinic/doctor")


def weight(hub, commit: str) -> float:
    return load_file(hub.repositories["clinic/doctor"].commits[commit] / "model.safetensors")[
        "model.embed_tokens.weight"
    ][0, 0].item()


@pytest.mark.parametrize(("revision", "commit"), [(None, OLD), ("main", OLD), ("next", NEW), (OLD, OLD), (NEW, NEW)])
def test_a_revision_is_recorded_as_its_commit_and_loaded_at_it(hub, online, downloaded, revision, commit):
    found = online.run("clinic/doctor", revision=revision)
    assert (found["code"], found["stderr"]) == (0, "")
    assert found["identity"] == f"hub:clinic/doctor@{commit}" and found["weight"] == weight(hub, commit)
    assert found["eos"] == "<|im_end|>"


def test_a_branch_that_moves_leaves_a_recorded_base_as_it_is(hub, online, tmp_path):
    repository = hub.repositories["clinic/doctor"]
    repository.branches["moving"] = OLD
    before = online.run("clinic/doctor", to=tmp_path, revision="moving")
    repository.branches["moving"] = NEW
    after = online.run("clinic/doctor", to=tmp_path, load_only=True, revision="moving")
    assert after["identity"] == before["identity"] == f"hub:clinic/doctor@{OLD}"
    assert after["weight"] == before["weight"] == weight(hub, OLD) != weight(hub, NEW)
    assert online.run("clinic/doctor", revision="moving")["weight"] == weight(hub, NEW)


@pytest.mark.parametrize("name", ["clinic/gated", "clinic/forbidden"])
@pytest.mark.parametrize("revision", [None, OLD])
def test_a_gated_model(online, name, revision):
    assert online.refusal(name, revision=revision) == (
        f"{name} is gated: accept its terms on its page, then `hf auth login` or set HF_TOKEN"
    )


def test_a_missing_model_and_a_missing_revision(online):
    assert online.refusal("clinic/docter") == (
        "clinic/docter was not found on the hub (or is private: `hf auth login`); correct model.name"
    )
    for revision in ("v2", ELSEWHERE):
        assert online.refusal("clinic/doctor", revision=revision) == (
            f"clinic/doctor has no revision {revision}; correct model.revision"
        )


def test_pickled_weights_are_not_loaded(online):
    assert online.refusal("clinic/pickled") == (
        "clinic/pickled has no *.safetensors: pickled weights are not loaded; choose a model or a revision that has "
        "them"
    )
    assert online.refusal("clinic/chatglm") == (
        "clinic/chatglm has no *.safetensors: pickled weights are not loaded; run `hf download clinic/chatglm "
        "--local-dir OLD_FOLDER` and `python -m stages.models.chatglm.convert OLD_FOLDER NEW_FOLDER` once, and set "
        "model.name to NEW_FOLDER"
    )


def test_a_models_own_code_is_not_run_unasked(online):
    line = online.refusal("clinic/coded")
    assert line.startswith("clinic/coded needs the code in its repository: read it, then set model.trust_remote_code")
    result = online.run("clinic/coded", trust_remote_code=True, revision="main")
    assert result["code"] == 1 and result["stderr"].endswith("pin `revision` to a full 40-digit commit\n")


def test_a_models_own_code_runs_when_its_commit_is_pinned(hub, online):
    found = online.run("clinic/coded", trust_remote_code=True, revision=OLD)
    assert (found["code"], set(found["stderr"].splitlines())) == (0, {"own code"})
    assert found["identity"] == f"hub:clinic/coded@{OLD}" and found["weight"] == weight(hub, OLD)
    half = online.run("clinic/half", trust_remote_code=True, revision=NEW)
    assert half["code"] == 1 and half["stderr"].splitlines()[-1] == (
        "error: model.name: clinic/half: its own code has no AutoModelForSequenceClassification, which the reward "
        "model needs; choose a model that transformers knows"
    )


@pytest.mark.parametrize("machine", ["down", "offline"])
def test_without_a_network_an_earlier_download_serves(hub, machines, downloaded, machine, tmp_path):
    found = machines[machine].run("clinic/doctor", to=tmp_path)
    assert found["code"] == 0 and found["seconds"] < 60, found  # the hub is not asked for minutes
    assert found["identity"] == f"hub:clinic/doctor@{OLD}" and found["weight"] == weight(hub, OLD)
    assert found["stderr"] == f"no network: clinic/doctor is taken from the local cache, at commit {OLD}\n"
    exact = machines[machine].run("clinic/doctor", revision=OLD)
    assert (exact["code"], exact["stderr"], exact["weight"]) == (0, "", weight(hub, OLD))


@pytest.mark.parametrize("machine", ["down", "offline"])
@pytest.mark.parametrize(("name", "revision"), [("clinic/other", None), ("clinic/doctor", "v2"),
                                                ("clinic/doctor", ELSEWHERE)])  # fmt: skip
def test_without_a_network_and_a_download(machines, downloaded, machine, name, revision):
    assert machines[machine].refusal(name, revision=revision) == (
        f"{name} can't be fetched: no network. Download it where there is one (`hf download {name}`) and "
        "set model.name to that folder"
    )


@pytest.fixture
def local(hub, tmp_path):
    return copy(hub.repositories["clinic/doctor"].commits[OLD], tmp_path / "model")


def test_a_local_folder_needs_no_hub(machines, local):
    found = machines["offline"].run(str(local))
    assert (found["code"], found["stderr"]) == (0, "") and found["identity"].startswith("local:")


def test_a_damaged_configuration(machines, local):
    (local / "config.json").write_text('{"model_type": ')
    line = machines["offline"].refusal(str(local))
    assert line.startswith(f"{local} can't be loaded: ") and "config.json" in line and "JSON" in line


def test_an_unknown_architecture(machines, local):
    (local / "config.json").write_text('{"model_type": "abacus"}')
    assert machines["offline"].refusal(str(local)) == (
        f"{local} is of an architecture (abacus) that the installed transformers does not know"
    )


def test_a_model_that_does_not_write(machines, local):
    (local / "config.json").write_text('{"model_type": "vit"}')
    assert machines["offline"].refusal(str(local)) == f"{local} (vit) is not a causal language model"


def test_a_local_folders_own_code_is_not_run_unasked(machines, hub, tmp_path):
    folder = copy(hub.repositories["clinic/coded"].commits[OLD], tmp_path / "coded")
    assert machines["offline"].refusal(str(folder)).startswith(f"{folder} needs the code in its repository")


def test_a_folder_without_weights_or_without_a_model(machines, local, tmp_path):
    (local / "model.safetensors").unlink()
    assert machines["offline"].refusal(str(local)) == (
        f"{local} has no *.safetensors, and pickled weights are not loaded; convert them first"
    )
    assert machines["offline"].refusal(str(tmp_path)) == f"{tmp_path} has no config.json: it is not a model folder"
    assert machines["offline"].refusal("doctor") == ("doctor is not `tiny`, an existing folder, or a hub id owner/name")
