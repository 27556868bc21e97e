"""A user's mistake ends in one clear line, never in a traceback."""

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """Something the user can mend: the message names the file, line or key, and the mend."""


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Run a stage's function; a `UserError`, a missing file or a full disk becomes one `error: …` line and exit code 1.

    Set `COVID_DOCTOR_TRACEBACK=1` to see the whole traceback instead.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            message = str(error)
            cause: BaseException = error
        except FileNotFoundError as error:
            message = f"{error.filename}: no such file; run `dvc repro` to make what an earlier stage writes"
            cause = error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            message = f"{error.filename or 'a write'}: {error.strerror}; free some space or change its owner, then run again"
            cause = error
        if os.environ.get("COVID_DOCTOR_TRACEBACK"):
            raise cause
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1)

    return run
