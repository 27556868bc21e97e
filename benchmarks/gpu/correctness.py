"""The tests that need a GPU: `pytest -m gpu`, with a line for each.

python -m benchmarks.gpu.correctness [--tiny]
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

from benchmarks.gpu.session import Session
from stages.runtime import resume


def main(argv: list[str] | None = None) -> None:
    session = Session("correctness", "the tests that need a GPU", argv)
    session.folder.mkdir(parents=True, exist_ok=True)
    report = session.folder / "correctness.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/test_gpu.py", "-p", "no:cacheprovider",
               f"--junitxml={report}"]  # fmt: skip
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": "", "COVID_DOCTOR_GPU_TESTS": "all"} if session.tiny else {})
    done = subprocess.run(command, cwd=resume.ROOT, env=environment)
    session.cases.clear()  # after a change of the code all of them count anew
    for case in ElementTree.parse(report).iter("testcase"):
        found = next((part.tag for part in case if part.tag in ("failure", "error", "skipped")), "passed")
        session.run(
            case.attrib["name"], lambda found=found, case=case: {"result": found, "s": float(case.attrib["time"])}
        )
    session.end(len(session.cases))
    print(dict(Counter(case["result"] for case in session.cases.values())))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
