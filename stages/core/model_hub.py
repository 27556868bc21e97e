"""A model's name on the Hugging Face hub → the commit to load, and what goes wrong on the way → one line."""

import fnmatch
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.core.errors import UserError

WEIGHTS = "*.safetensors"


def resolve(name: str, revision: str | None) -> str:
    """The full commit of a branch, a tag, a commit or (None) the default branch.

    Without a network it is the commit of an earlier download, if there was one.

    Raises:
        UserError: the model is missing, gated, out of reach, or has no safetensors.
    """
    with clear_errors(name, revision):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        if revision is not None and is_commit(revision) and _downloaded_commit(name, revision):
            return revision
        try:
            info = HfApi().model_info(name, revision=revision, timeout=30)
        except HfHubHTTPError:  # the hub answered, and said no
            raise
        except Exception:
            commit = _downloaded_commit(name, revision)
            if commit is None:
                raise
            print(f"no network: {name} is taken from the local cache, at commit {commit}", file=sys.stderr)
            return commit
    if not any(fnmatch.fnmatch(file.rfilename, WEIGHTS) for file in info.siblings or []):
        raise UserError(
            f"model.name: {name} has no {WEIGHTS}: pickled weights are not loaded; choose a model or a revision that "
            "has them"
        )
    return str(info.sha)


def is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


@contextmanager
def clear_errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub or a loader raises for a model that can't be had into a UserError with the mend."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        line = _line(name, revision, error)
        if line is None:
            raise
        raise UserError(f"model.name: {name} {line}") from error


def _downloaded_commit(name: str, revision: str | None) -> str | None:
    """The commit of an earlier download, as its branch or tag stood then."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def _line(name: str, revision: str | None, error: BaseException) -> str | None:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < 10:
        chain.append(link)
        link = link.__cause__ or link.__context__
    kinds = {cls.__name__ for link in chain for cls in type(link).__mro__}
    said = " ".join(str(error).split())
    if "GatedRepoError" in kinds:
        return "is gated: accept its terms on its page, then `hf auth login` or set HF_TOKEN"
    if "RevisionNotFoundError" in kinds:
        return f"has no revision {revision}; correct model.revision"
    if "RepositoryNotFoundError" in kinds:
        return "was not found on the hub (or is private: `hf auth login`); correct model.name"
    if kinds & {"ConnectionError", "ConnectError", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "Timeout",
                "TimeoutException", "TransportError", "ProxyError"}:
        return (
            f"can't be fetched: no network. Download it where there is one (`hf download {name}`) and set model.name "
            "to that folder"
        )
    if "custom code" in said:
        return (
            "needs the code in its repository: read it, then set model.trust_remote_code to true and model.revision "
            "to the full commit that you read"
        )
    if "does not recognize this architecture" in said:
        kind = re.search(r"model type `([^`]*)`", said)
        return f"is of an architecture{f' ({kind[1]})' if kind else ''} that the installed transformers does not know"
    if isinstance(error, OSError | ValueError | ImportError | KeyError):
        return f"can't be loaded: {said[:400]}"
    return None
