"""What an exported model is made of and which bytes it is: a CycloneDX bill of materials, and a list of hashes to sign.

Neither has a time or a path in it: the same model exported in the same environment gives the same bytes.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from stages.models.base_model import Base
from stages.models.stack import WEIGHTS, lineage
from stages.runtime import atomic

BILL = "bom.cdx.json"
MANIFEST = "SHA256SUMS"


def write(folder: Path, name: str, base: Base, adapters: Sequence[Path], data: Sequence[str]) -> None:
    """Add both files to the finished folder of a model, the list of hashes last: it covers all others.

    Args:
        name: what the model is called.
        adapters: the folders of what was merged into it, lowest first.
        data: what these learnt from.
    """
    atomic.write_json(folder / BILL, bill(name, weights(folder), base, adapters, data))
    atomic.write_text(folder / MANIFEST, manifest(folder))


def weights(folder: Path) -> dict[str, str]:
    """File name → SHA-256 of each file of weights."""
    return {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}


def manifest(folder: Path) -> str:
    """What `sha256sum` prints for all files but the list itself."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != MANIFEST)
    return "".join(f"{sha256(file)}  {file.name}\n" for file in files)


def sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def bill(name: str, files: dict[str, str], base: Base, adapters: Sequence[Path], data: Sequence[str]) -> dict[str, Any]:
    """CycloneDX 1.6 (ecma-international.org/publications-and-standards/standards/ecma-424): the model, and below it the
    base, the adapters that were merged, the data that they learnt from, and the packages that this was exported with.
    """
    parts: list[dict[str, Any]] = [
        {"type": "machine-learning-model", "bom-ref": "base", "name": base.model.name, "version": base.identity},
        *(
            {
                "type": "machine-learning-model",
                "bom-ref": f"adapter-{(record := lineage(adapter)).adapter}",
                "name": f"LoRA adapter {record.adapter}",
                "version": record.sha256,  # as the project's own lineages name it
                "hashes": [{"alg": "SHA-256", "content": sha256(adapter / WEIGHTS)}],
            }
            for adapter in adapters
        ),
        *({"type": "data", "bom-ref": f"data-{number}", "name": each} for number, each in enumerate(data)),
    ]
    packages = libraries()
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": name,
        "components": [
            {
                "type": "file",
                "bom-ref": f"file-{file}",
                "name": file,
                "hashes": [{"alg": "SHA-256", "content": content}],
            }
            for file, content in files.items()
        ],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": model},
        "components": [*parts, *packages],
        "dependencies": [{"ref": "model", "dependsOn": [part["bom-ref"] for part in (*parts, *packages)]}],
    }


def libraries() -> list[dict[str, Any]]:
    """The installed Python packages, one component each."""
    found = {re.sub(r"[-_.]+", "-", each.name).lower(): each for each in distributions() if each.name}
    components = []
    for name, distribution in sorted(found.items()):
        public = distribution.version.partition("+")[0]  # an index knows no local version such as 2.13.0+cpu
        purl = f"pkg:pypi/{name}@{public}"
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": distribution.version,
            "purl": purl,
        }
        if "License-Expression" in distribution.metadata:
            component["licenses"] = [{"expression": distribution.metadata["License-Expression"]}]
        components.append(component)
    return components
