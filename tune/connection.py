"""A connection to Ray: to a cluster, or to one that is started here and closed to all others."""

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import grpc
import ray
from ray._private import ray_constants, worker
from ray._private.services import canonicalize_bootstrap_address

from tune.environment import ANSWER_SECONDS, host_and_port, local_problem, unreachable
from tune.leftovers import marked
from tune.signals import ENDING, children_ignore_hangup, handled

RAY_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables; ours replace them
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU must not see the others'
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",  # idle processes, one a core: a trial has an environment of its own
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",  # a container's /dev/shm is small, and nearly nothing goes through it
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
RECONNECT_SECONDS = "RAY_gcs_rpc_server_reconnect_timeout_s"  # for how long Ray itself waits for a head that is gone


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
    if problem := local_problem() if address == "local" else _head_problem(address):
        raise RunRefused(problem)
    with _on_loopback() if address == "local" else nullcontext():
        try:
            # Ray takes SIGTERM for itself, and keeps it.
            with handled(ENDING, signal.default_int_handler), children_ignore_hangup():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except SystemExit as error:  # what Ray makes of it until then
            raise KeyboardInterrupt from error
        except Exception as error:  # Ray raises bare ones, too
            where = "here" if address == "local" else f"at RAY_ADDRESS {address}"
            reason = str(error).partition("\n")[0]
            raise RunRefused(f"Ray cannot be started or reached {where}: {reason}") from error
        with marked(session_folder()) if address == "local" else nullcontext():
            try:
                yield
            finally:
                ray.shutdown()


def session_folder() -> Path:
    """Where the Ray that this process is connected to keeps its files on this node."""
    node = worker._global_node
    assert node is not None
    return Path(node.get_session_dir_path())


def _head_problem(address: str) -> str | None:
    """Why the cluster that RAY_ADDRESS names cannot be joined: `ray.init` would wait for a dead head for minutes."""
    what, found = f"RAY_ADDRESS: {address!r}", address
    here = "unset it to train on this machine"
    if address == "auto":
        try:
            found = canonicalize_bootstrap_address(address) or address
        except ConnectionError:
            return f"{what}, and no Ray runs on this machine; start it, give HOST:PORT, or {here}"
        what += f", which is {found},"
    host, port = host_and_port(found)
    if "://" in found or not port:
        url = f"; `rrm submit --address {address}` takes a dashboard's" if address.startswith("http") else ""
        return f"{what} is no head's address; give HOST:PORT as `ray start --head` shows it, or {here}{url}"
    problem = _no_answer(f"[{host}]" if ":" in host else host, port)
    return f"{what} {problem}; start it (`ray start --head`), mend the address, or {here}" if problem else None


def _no_answer(host: str, port: int) -> str | None:
    """Why no server of gRPC, which all of Ray's are, answers there within ANSWER_SECONDS; None if one does."""
    if problem := unreachable(host, port):
        return problem
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):  # Ray has certificates for it, and is asked next
        return None
    with grpc.insecure_channel(f"{host}:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            return "does not answer as Ray does"
        return None


@contextmanager
def watched(lost: Callable[[str], None]) -> Iterator[None]:
    """Call `lost`, which ends the process, with the reason, once the head or Ray on this node is silent for too long.

    The thread that trains cannot: it waits in Ray, for ever if Ray on this node is gone. Without the head, Ray itself
    ends the process a while later, with a line that means something to Ray's authors.
    """
    (node,) = (n for n in ray.nodes() if n["NodeID"] == ray.get_runtime_context().get_node_id())
    head = ray.get_runtime_context().gcs_address
    servers = {f"Ray's head {head}": head}
    servers["Ray on this node"] = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
    rounds = max(1, int(int(os.environ.get(RECONNECT_SECONDS, 60)) / ANSWER_SECONDS) - 1)
    over = threading.Event()

    def watch() -> None:
        silent, wait = dict.fromkeys(servers, 0), ANSWER_SECONDS
        while not over.wait(wait):
            started = time.monotonic()
            for name, address in servers.items():
                host, _, port = address.rpartition(":")
                # Rounds are counted, not seconds: this process, too, may have been stopped for a while.
                silent[name] = silent[name] + 1 if _no_answer(host, int(port)) else 0
                if silent[name] >= rounds and not over.is_set():
                    lost(f"{name} is gone, or cannot be reached: no answer for {rounds * ANSWER_SECONDS:.0f} s")
            wait = max(0.0, ANSWER_SECONDS - (time.monotonic() - started))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1)  # at once, unless a server is silent just now


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray start on 127.0.0.1 alone: by itself it opens a dozen ports to the network. Its token is for us only."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if "RAY_AUTH_TOKEN" not in os.environ and not token.exists():  # Ray's own would be readable to all on this machine
        secret = secrets.token_hex(32)
        try:
            token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secret)
        except OSError:  # no home to keep it in: it is this run's alone
            os.environ["RAY_AUTH_TOKEN"] = secret
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
