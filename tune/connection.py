"""A connection to Ray: to a cluster, or to one that is started here and closed to all others."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import ray
from ray._private import ray_constants
from ray.exceptions import RayError

from tune.signals import children_ignore_hangup

RAY_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables; ours replace them
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU must not see the others'
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class RunRefused(RuntimeError):
    """The sweep cannot be run now: another run holds it, or the cluster has no place for its trials."""


@contextmanager
def connected() -> Iterator[None]:
    """A connection to Ray: the process's own if it has one, the cluster of RAY_ADDRESS, else a local one.

    Raises RunRefused if it cannot be had.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    # Without an address Ray joins whatever cluster it finds on this machine, and its trials end with that one.
    address = os.environ.get("RAY_ADDRESS") or "local"
    with _on_loopback() if address == "local" else nullcontext():
        try:
            with children_ignore_hangup():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ValueError, ConnectionError, RuntimeError, RayError) as error:
            raise RunRefused(f"Ray cannot be started or reached: {str(error).partition(chr(10))[0]}") from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray start on 127.0.0.1 alone: by itself it opens a dozen ports to the network. Its token is for us only."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if "RAY_AUTH_TOKEN" not in os.environ and not token.exists():  # Ray's own would be readable to all on this machine
        with suppress(OSError):
            token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
    # What Ray does where it cannot make a cluster, on Windows and macOS: for the processes it starts, and for this one.
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = False, "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]
        else:
            os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = before[1]
