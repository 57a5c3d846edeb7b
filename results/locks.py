"""Who holds a lock (tune.lease): in a folder the operating system says, in a bucket the claim that stands there."""

import errno
import fcntl
import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from results import versioned
from results.storage import Location, S3Path
from results.versioned import Versioned

STALE_SECONDS = 30.0  # a claim in a bucket whose last beat is older is dead
_PROC = Path("/proc")


def is_held(path: Location) -> bool:
    """Whether a live process holds the lock with this name. Changes nothing: a lock not there stays so.

    In a folder the operating system is asked, for a moment and shared: whoever takes the lock just then tries again. In
    a bucket it is held if its claim is not `is_free`.
    """
    if isinstance(path, S3Path):
        found = versioned.read(path)
        return found is not None and not is_free(found)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # of a pipe no writer is waited for
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems refuse with EACCES. One without such locks cannot be asked.
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(file)  # lets go of it, too
    return False


def is_free(found: Versioned) -> bool:
    """Whether whoever may take a claim: given back, not beaten for STALE_SECONDS by the server's clock, or `died`."""
    claim = claim_of(found)
    return bool(claim.get("released")) or found.age > STALE_SECONDS or died(claim)


def claim_of(found: Versioned) -> dict[str, Any]:
    """What stands in a claim; nothing of one that is damaged."""
    with suppress(ValueError, RecursionError):
        claim = json.loads(found.content)
        if isinstance(claim, dict) and type(claim.get("fence", 0)) is int:
            return claim
    return {}


def this_process() -> dict[str, Any]:
    """What tells this process from all others, here and elsewhere, and what people call it: pid and host.

    The number of a process counts in its namespace and until it dies, the namespace's until the machine starts again
    (`boot`). What cannot be said is left out: then nobody knows when it has died.
    """
    names = {"pid": os.getpid(), "host": platform.node()}
    with suppress(OSError):
        if str(_PROC.joinpath("self").readlink()) == str(os.getpid()):  # else it shows those of another namespace
            boot = _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
            namespace = str(_PROC.joinpath("self/ns/pid").readlink())
            return names | {"boot": boot, "namespace": namespace, "started": started("self")}
    return names


def died(claim: dict[str, Any]) -> bool:
    """Whether a claim is of a process that this one could see, and that is gone."""
    here, pid = this_process(), claim.get("pid")
    if "boot" not in here or any(claim.get(name) != here[name] for name in ("host", "boot", "namespace")):
        return False
    try:
        os.kill(pid, 0)  # pyright: ignore[reportArgumentType]
    except (ProcessLookupError, OverflowError):
        return True
    except (PermissionError, TypeError):
        return False
    try:
        return started(str(pid)) != claim.get("started")
    except OSError:
        return True


def started(pid: str) -> int:
    """When a process began, in ticks since the machine did; -1 of one that has ended and is not yet waited for.

    Raises OSError if there is none.
    """
    state, *fields = (_PROC / pid / "stat").read_text().rpartition(") ")[2].split()
    return -1 if state in "ZX" else int(fields[18])
