"""A model's name on the Hugging Face hub → the commit to load, and what goes wrong on the way → one line with a hint."""

import fnmatch
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.models.local_model import WEIGHTS
from stages.runtime.errors import UserError

CHATGLM_FILE = "ice_text.model"
"""Only the first ChatGLM-6B has it. Its own repository has pickled weights alone, which this project converts."""


def resolve(name: str, revision: str | None) -> str:
    """The full commit of a branch, a tag, a commit or (None) the default branch; its small files are downloaded.

    Without a network it is the commit of an earlier download, if there was one.

    Raises:
        UserError: the model is missing, gated, out of reach, or has no safetensors.
    """
    with clear_errors(name, revision):
        from huggingface_hub import HfApi, errors

        files = None
        try:
            files = HfApi().model_info(name, revision=revision, timeout=30).siblings or []
        except errors.HfHubHTTPError:  # the hub answered, and refused
            raise
        except (errors.HTTPError, OSError):  # no network, but there may be an earlier download
            pass
        if files is not None and not fnmatch.filter([f.rfilename for f in files if "/" not in f.rfilename], WEIGHTS):
            hint = "choose a model or a revision that has them"
            if any(file.rfilename == CHATGLM_FILE for file in files):
                hint = (
                    f"run `hf download {name} --local-dir OLD_FOLDER` and `python -m stages.models.chatglm.convert "
                    "OLD_FOLDER NEW_FOLDER` once, and set model.name to NEW_FOLDER"
                )
            raise UserError(f"model.name: {name} has no {WEIGHTS}: pickled weights are not loaded; {hint}")
        commit = download(name, revision, cached=files is None).name
    if files is None and not is_commit(revision):
        print(f"no network: {name} is taken from the local cache, at commit {commit}", file=sys.stderr)
    return commit


def download(name: str, revision: str | None, weights: bool = False, cached: bool = False) -> Path:
    """The local folder, named after the commit, of a model's configuration, tokenizer and code, and of its weights.

    What is there is not asked for again, so a finished download needs no network.

    Args:
        cached: take what an earlier download left, or nothing; no waiting for a network.
    """
    with clear_errors(name, revision):
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                name,
                revision=revision,
                local_files_only=cached,
                allow_patterns=["*.json", "*.jinja", "*.txt", "*.model", "*.py", *([WEIGHTS] if weights else [])],
                ignore_patterns=["*/*", "consolidated*"],  # the same weights once more, in other formats
            )
        )


def is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


@contextmanager
def clear_errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub or a loader raises for a model that can't be had into a UserError with a hint."""
    from huggingface_hub import errors
    from safetensors import SafetensorError

    try:
        yield
    except errors.GatedRepoError as error:
        hint = "is gated: accept its terms on its page, then `hf auth login` or set HF_TOKEN"
        raise UserError(f"model.name: {name} {hint}") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"model.name: {name} has no revision {revision}; correct model.revision") from error
    except errors.RepositoryNotFoundError as error:
        hint = "was not found on the hub (or is private: `hf auth login`); correct model.name"
        raise UserError(f"model.name: {name} {hint}") from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise UserError(
            f"model.name: {name} can't be fetched: no network. Download it where there is one (`hf download {name}`) "
            "and set model.name to that folder"
        ) from error
    except (
        *(OSError, ValueError, ImportError, KeyError, AttributeError, TypeError, SafetensorError),
        errors.StrictDataclassError,  # a value of config.json with a wrong type
    ) as error:
        raise UserError(f"model.name: {name} {_loading(error)}") from error
    except Exception as error:
        if type(error) is not Exception:  # tokenizers has no class of its own for a damaged tokenizer.json
            raise
        raise UserError(f"model.name: {name} {_loading(error)}") from error


def _loading(error: Exception) -> str:
    """What transformers found wrong; it has no classes of its own for these, so its words tell them apart."""
    text = " ".join(str(error).split())
    if "custom code" in text:
        return (
            "needs the code in its repository: read it, then set model.trust_remote_code to true and model.revision "
            "to the full commit that you read"
        )
    if "does not recognize this architecture" in text:
        kind = re.search(r"model type `([^`]*)`", text)
        return f"is of an architecture{f' ({kind[1]})' if kind else ''} that the installed transformers does not know"
    if "does not support an attention implementation" in text:
        return "has no such attention; set model.attn_implementation to eager"
    return f"can't be loaded: {text[:400]}"
