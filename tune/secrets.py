"""Credentials: known by their names, read from a file that only its owner can read, kept out of what Ray writes down.

What is passed through Ray's runtime_env, to a job or to a worker, stands in its logs and is told by its job server. So
nothing secret is. The workers of a local Ray inherit this process's environment, those of a cluster the environment
that `ray start` had; and a sweep may name a file, the same on every node, whose variables every process of its sets.
"""

import os
import platform
import re
import stat
from typing import Any

from dotenv.parser import parse_stream

from results.places import PlaceError, filled_in

_NAMES = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|TOKENS?(_|\d|$)|COOKIE|(_|API|ACCESS|PRIVATE)KEYS?(_|\d|$)"
    r"|(^|_)(PASS|AUTH|PAT|PWD)(_|\d|$)",
    re.IGNORECASE,
)
_PLACES = re.compile(r"(_(FILE|PATH|DIR|URI|MODE)|^(OLD)?PWD)$", re.IGNORECASE)  # where one is, or how it is used
_VALUES = re.compile(
    r"-----BEGIN|://[^/@\s]+@"  # a key in PEM; a user and password in a URL
    r"|\b(A[KS]IA[A-Z0-9]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}|hf_[A-Za-z0-9]{30,}|sk-[\w-]{20,}|xox[a-z]-[\w-]{10,})"
)
SECRETS_FILE = "put it into a file of mode 0600, at one path on every node, and name that in the sweep (secrets: PATH)"


class SecretsError(ValueError):
    """Credentials that stand where they are seen, or a secrets file that cannot be used. The text shows no value."""


def is_secret(name: str, value: str = "") -> bool:
    """Whether a variable is a credential: by its name, by what its value looks like, or as one by another name."""
    if _is_named_so(name) or _VALUES.search(value):
        return True
    return len(value) >= 16 and any(value == other for key, other in os.environ.items() if _is_named_so(key))


def _is_named_so(name: str) -> bool:
    return bool(_NAMES.search(name)) and not _PLACES.search(name)


def read_secrets(name: str) -> dict[str, str]:
    """The variables of a secrets file, lines of NAME=VALUE.

    Raises SecretsError if it is not there, not this user's, open to others, or holds another line.
    """
    where = f"secrets: {name} on node {platform.node()}"
    try:
        with open(filled_in(name), encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            lines = list(parse_stream(file))
    except (OSError, UnicodeDecodeError, PlaceError) as error:
        reason = "not a text file" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", str(error))
        raise SecretsError(f"{where}: {reason}; every node needs it, and the machine of the command too") from error
    if found.st_uid != os.geteuid():
        raise SecretsError(f"{where}: belongs to another user; give a file of your own")
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(found.st_mode)
        raise SecretsError(f"{where}: mode {mode:04o} lets others at it; chmod 600 {name}")
    for line in lines:
        if line.error or (line.key is not None and not line.value):
            raise SecretsError(f"{where}: line {line.original.line} is no NAME=VALUE; mend it")
    return {line.key: line.value for line in lines if line.key is not None and line.value is not None}


def set_secrets(name: str | None) -> None:
    """Set the variables of a secrets file, if one is named, for this process and its children. Raises SecretsError."""
    if name is not None:
        os.environ.update(read_secrets(name))


def secrets_in(value: Any, fields: set[str], field: str = "") -> list[str]:
    """What a sweep file must not hold, for copies of it are kept and sent: a line a credential, without its value.

    The names in `fields` are no credentials' (`token_loss`), whatever they look like; their values may be.
    """
    if isinstance(value, dict):
        parts = {f"{field}.{key}" if field else str(key): part for key, part in value.items()}
        return [line for name, part in parts.items() for line in secrets_in(part, fields, name)]
    if isinstance(value, list):
        return [line for part in value for line in secrets_in(part, fields, field)]
    last = field.rpartition(".")[2]
    if isinstance(value, str) and field != "secrets" and is_secret("" if last in fields else last, value):
        return [f"{field}: looks like a credential, and copies of a sweep file are kept; {SECRETS_FILE}"]
    return []


def keep_from_runtime_env() -> None:
    """Let Tune copy no credential into its workers' runtime_env, as it does with AWS_SECRET_ACCESS_KEY and others."""
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if is_secret(name)])
