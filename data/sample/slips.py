"""Answers with a slip: two characters side by side that no text of the sample world has.

python data/sample/slips.py reports/answers/sft.jsonl reports/answers/ppo.jsonl
"""

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent


def texts() -> Iterator[str]:
    """What is asked and answered in the dialogues and preferences; not the answers with stray characters."""
    for name in ("train_data.json", "validate_data.json", "test_data.json"):
        for turns in json.loads((HERE / name).read_text(encoding="utf-8")):
            yield from turns
    facts = json.loads((HERE / "facts.json").read_text(encoding="utf-8"))["preferences"]
    for record, entry in zip(json.loads((HERE / "preferences.json").read_text(encoding="utf-8")), facts, strict=True):
        yield record["instruction"]
        yield from (text for text, kind in zip(record["output"], entry["answers"], strict=True) if kind != "garbled")


def main() -> None:
    """Print the share of each file's answers."""
    known = {pair for text in texts() for pair in pairwise(text)}
    for path in sys.argv[1:]:
        answers = [json.loads(line)["predict"] for line in Path(path).read_text(encoding="utf-8").splitlines()]
        slips = sum(any(pair not in known for pair in pairwise(answer)) for answer in answers)
        print(f"{path}: {100 * slips / len(answers):.1f} % of {len(answers)} answers")


if __name__ == "__main__":
    main()
