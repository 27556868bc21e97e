"""Threads: how many a busy machine leaves, and that their number does not change the default's bytes."""

import pytest
import torch
from parameters import ROOT

from stages.runtime import threads


@pytest.mark.parametrize(
    ("others", "cores", "most", "wanted"),
    [(0.0, 2, 2, 2), (0.29, 2, 2, 2), (0.31, 2, 2, 1), (3.0, 2, 2, 1), (1.0, 8, 4, 4), (5.0, 8, 4, 3), (-0.1, 2, 2, 2)],
)
def test_other_processes_get_their_cores(others: float, cores: int, most: int, wanted: int) -> None:
    assert threads.beside(others, cores, most) == wanted


def test_idle_and_waiting_are_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    assert threads.busy_seconds("cpu  100 20 30 9999 888 4 6 77 0 0\ncpu0 1 2 3\n") == 1.6


def test_a_busy_machine_gets_a_core_back(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    clock = iter(range(0, 100, 2))
    busy = iter([0.0, 2.0, 6.0, 8.0])  # others take nothing, then a core, then nothing
    own = iter([0.0, 2.0, 4.0, 6.0])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_most", 2)
    monkeypatch.setattr(threads, "_before", None)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("time.process_time", lambda: next(own))
    monkeypatch.setattr(threads, "busy_seconds", lambda stat: next(busy))
    current = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: current[0])

    def choose(count: int) -> None:
        chosen.append(count)
        current[0] = count

    monkeypatch.setattr(torch, "set_num_threads", choose)
    for _ in range(4):
        threads.make_room()
    assert chosen == [1, 2]


def test_their_number_does_not_change_a_step() -> None:
    """Two threads are as exact as one: the default runs on as many as are free."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    ids = torch.randint(3, 2048, (8, 70))
    gradients = []
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.manual_seed(1)
            base = AutoModelForCausalLM.from_pretrained(ROOT / "data/base", dtype=torch.float32)
            model = get_peft_model(base, LoraConfig(r=32, target_modules="all-linear", init_lora_weights=False))
            model(input_ids=ids, labels=ids).loss.backward()
            gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    finally:
        torch.set_num_threads(before)
    one, two = gradients
    assert len(one) == 84
    assert all(torch.equal(one[name], two[name]) for name in one)
