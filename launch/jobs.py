"""Ray Jobs: submit a sweep to a cluster; status, logs and stop of a sweep by its name."""

import argparse
import asyncio
import logging
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from launch import local
from launch.local import JobError
from launch.paths import folder_path
from results.storage import Location
from tune.environment import bypass_proxies, host_and_port, unreachable
from tune.output import console, outlet
from tune.plan import ALL_DONE, BAD_INPUT, SOME_FAILED, STOPPED, manifest

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ADDRESS = "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"
LOCAL = "local"
# Trials save when they are told to end. By default Ray kills a job 3 seconds after SIGTERM.
STOPPING = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "30"}
INTERRUPTED = 130
_NO_AGENT, AGENT_SECONDS = "No available agent", 60.0


def add_commands(commands: argparse._SubParsersAction, submit: argparse.ArgumentParser) -> None:
    """Add the options of `submit`, and the commands `status`, `logs` and `stop`, to the parser of `rrm`."""
    submit.add_argument("--env", metavar="NAME", action="append", default=[], help="pass on this environment variable")
    submit.add_argument("--wait", action="store_true", help="follow the log; exit with the sweep's own exit code")
    submit.add_argument("--retry-failed", action="store_true", help="train diverged trials again too")
    _add_address(submit)
    for name, run, help in (
        ("status", _status, "how a sweep stands; on a cluster without NAME: all of them"),
        ("logs", _logs, "the log of a sweep's newest job, or of its newest run on this machine"),
        ("stop", _stop, "stop a sweep; its trials save first"),
    ):
        parser = commands.add_parser(name, help=help, description=help)
        parser.add_argument("name", metavar="NAME", nargs="?" if name == "status" else None, help="the sweep's name")
        _add_address(parser)
        help = "a sweep run on this machine: where its folder is, or s3://bucket/prefix (default: runs)"
        parser.add_argument("--storage", type=folder_path, help=help)
        if name == "logs":
            parser.add_argument("--follow", action="store_true", help="until it ends; exit with the sweep's exit code")
        parser.set_defaults(command=run, only_prints=name != "stop")


def _add_address(parser: argparse.ArgumentParser) -> None:
    help = f"the cluster, such as http://127.0.0.1:8265, or local for none (default: {' or '.join(ADDRESS)})"
    parser.add_argument("--address", metavar="URL", help=help)


def _cluster(arguments: argparse.Namespace) -> tuple[str, str] | None:
    """The option or variable that names the cluster, and its address; None for a sweep that runs on this machine.

    That is what --storage says, too: an exported address must not keep one from one's own sweeps.
    """
    storage = getattr(arguments, "storage", None)
    if arguments.address == LOCAL or (storage is not None and arguments.address is None):
        return None
    if storage is not None:
        raise JobError(f"--storage {storage}: a sweep on this machine, and --address another's; give one of the two")
    names = {"--address": arguments.address} | {name: os.environ.get(name) for name in ADDRESS}
    return next(((name, given) for name, given in names.items() if given and given != LOCAL), None)


def _storage(arguments: argparse.Namespace) -> Location:
    return arguments.storage or folder_path("runs")


def _connect(cluster: tuple[str, str] | None) -> "JobSubmissionClient":
    """The cluster's job server. Raises JobError if it does not answer or does not take our token."""
    from ray.exceptions import AuthenticationError, RayError
    from ray.job_submission import JobSubmissionClient
    from requests import RequestException

    if cluster is None:
        raise JobError(f"--address: missing; give it, or set {ADDRESS[0]}, such as http://127.0.0.1:8265")
    name, address = cluster
    what = f"{name} {address}"
    again = "start Ray there (`ray start --head`), or give the URL of its dashboard"
    host, port = host_and_port(address)
    bypass_proxies(host)
    if port and (problem := unreachable(host, port)):  # Ray would ask for the better part of a minute
        raise JobError(f"{what}: {problem}; {again}")
    for module in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
    os.environ[ADDRESS[0]] = address  # or Ray would take RAY_ADDRESS, where it is set, instead of its own argument
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise JobError(
            f"{what}: {reason}; set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or its file in "
            "RAY_AUTH_TOKEN_PATH"
        ) from error
    except (RayError, RequestException, ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise JobError(f"{what}: {reason}; {again}") from error


def jobs_of(client: "JobSubmissionClient", name: str | None = None) -> list[tuple[str, int, "JobDetails"]]:
    """The jobs of a sweep (or of all), by (sweep, attempt): a job is a sweep's by its id, `<sweep>-<attempt>`."""
    found = []
    for job in client.list_jobs():
        match = re.fullmatch(r"(.+)-(\d+)", job.submission_id or "")
        if match and name in (None, match[1]):
            found.append((match[1], int(match[2]), job))
    return sorted(found, key=lambda item: item[:2])


def _newest(client: "JobSubmissionClient", name: str) -> "JobDetails":
    jobs = jobs_of(client, name)
    if not jobs:
        known = ", ".join(dict.fromkeys(sweep for sweep, _, _ in jobs_of(client))) or "none"
        here = "of one that is run on this machine, give --storage, or --address local"
        raise JobError(f"{name}: no such sweep on {client.get_address()}; sweeps there: {known}; {here}")
    return jobs[-1][-1]


def _or_job_error(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command whose cluster may fail to answer: Ray raises a bare RuntimeError then."""

    @wraps(command)
    def run(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments)
        except RuntimeError as error:
            raise JobError(f"{arguments.address or 'the cluster'}: {str(error).partition(chr(10))[0]}") from error

    return run


@_or_job_error
def submit(arguments: argparse.Namespace) -> int:
    """Send a sweep to a cluster as a job. Raises JobError if a job of this sweep is running there."""
    from launch.packing import SWEEP_FILE, pack  # torch takes seconds to import
    from tune.secrets import SECRETS_FILE, is_secret
    from tune.spec import load_sweep

    sweep = load_sweep(arguments.spec, arguments.overrides, arguments.preset)
    sweep.check_storage()
    for name in arguments.env:
        if name not in os.environ:
            raise JobError(f"--env {name}: not set here; set it, or leave it out")
        if is_secret(name, os.environ[name]):
            raise JobError(
                f"--env {name}: looks like a credential, and Ray writes what is passed on into its logs; {SECRETS_FILE}"
            )
    client = _connect(_cluster(arguments))
    from tune.connection import RAY_SETTINGS

    name = sweep.spec.name
    jobs = jobs_of(client, name)
    for _, _, job in jobs:
        if not job.status.is_terminal():
            other = _folder_of(job)
            if other not in ("", str(sweep.folder)):  # to stop it would stop somebody else's
                what = f"{name}: job {job.submission_id} runs another sweep of this name, in {other}"
                raise JobError(f"{what}; give this one a name of its own (--set name=...)")
            raise JobError(f"{name}: job {job.submission_id} is running it; `rrm logs {name}`, or `rrm stop {name}`")
    job_id = f"{name}-{1 + max((attempt for _, attempt, _ in jobs), default=0)}"
    command = ["exec", "python", "-m", "launch.start", "run", SWEEP_FILE]
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "working_dir.zip"
        size = pack(sweep, package)
        try:
            _once_there_is_an_agent(
                client.submit_job,
                entrypoint=shlex.join(command + ["--retry-failed"] * arguments.retry_failed),
                submission_id=job_id,
                runtime_env={
                    "working_dir": str(package),
                    "env_vars": RAY_SETTINGS | STOPPING | {name: os.environ[name] for name in arguments.env},
                },
                metadata={
                    "sweep": name,
                    "spec_digest": manifest(sweep)["spec_digest"],
                    "folder": str(sweep.folder),
                },
            )
        except RuntimeError as error:
            if job_id in {job.submission_id for _, _, job in jobs_of(client, name)}:
                running = f"job {job_id}, submitted at the same moment, is running it"
                raise JobError(f"{name}: {running}; `rrm logs {name}`, or `rrm stop {name}`") from error
            raise JobError(f"{name}: the cluster did not take the job: {_refusal(error)}") from error
    print(f"{job_id}: submitted with {size / 1024:.0f} KiB; {_link(client, job_id)}", flush=True)
    return _follow(client, job_id, only_prints=False) if arguments.wait else ALL_DONE


def _folder_of(job: "JobDetails") -> str:
    """Where the sweep of a job lies, "" if `rrm submit` did not send it."""
    return (job.metadata or {}).get("folder", "")


def _once_there_is_an_agent(submit: Callable[..., Any], **job: Any) -> None:
    """Submit a job; a head that has just started takes none for some seconds, and is asked again for a minute."""
    until = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            submit(**job)
            return
        except RuntimeError as error:
            if _NO_AGENT not in str(error) or time.monotonic() > until:
                raise
            time.sleep(1)


def _refusal(error: Exception) -> str:
    """What went wrong, at the end of a traceback of the job server's, and the mend of what it leaves unsaid."""
    if _NO_AGENT in str(error):
        mend = "start the head with --dashboard-agent-listen-port of its own"
        return f"its agent does not answer; perhaps another Ray on the head's machine has the agent's port: {mend}"
    return str(error).strip().rpartition("\n")[2]


def _link(client: "JobSubmissionClient", job_id: str) -> str:
    return f"{client.get_address()}/#/jobs/{job_id}"


def _follow(client: "JobSubmissionClient", job_id: str, only_prints: bool) -> int:
    """Print a job's log until it ends; returns the sweep's exit code. Who `only_prints` ends when nobody reads it."""
    from aiohttp import ClientError

    async def tail() -> None:
        async for lines in client.tail_job_logs(job_id):
            print(lines, end="", flush=True)

    async def tail_while_read() -> None:
        tailing = asyncio.create_task(tail())
        while not (await asyncio.wait([tailing], timeout=0.5))[0]:
            if only_prints and outlet(sys.stdout).unread:
                tailing.cancel()
                return
        tailing.result()

    try:
        asyncio.run(tail_while_read())
        if only_prints and outlet(sys.stdout).unread:
            return ALL_DONE
        job = client.get_job_info(job_id)
    except KeyboardInterrupt:
        print(f"\n{job_id} goes on; `rrm logs`, or `rrm stop` to end it")
        return INTERRUPTED
    except (ClientError, RuntimeError, OSError) as error:
        raise JobError(f"{job_id}: lost sight of it: {str(error).partition(chr(10))[0]}") from error
    if job.status == "SUCCEEDED":
        return ALL_DONE
    if job.driver_exit_code in (BAD_INPUT, SOME_FAILED, STOPPED):
        return job.driver_exit_code
    print(f"{job_id}: {str(job.status).lower()}: {(job.message or '').partition(chr(10))[0]}")
    return STOPPED


@_or_job_error
def _status(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    if cluster is None:
        return local.status(_storage(arguments), arguments.name)
    client = _connect(cluster)
    if arguments.name:
        _newest(client, arguments.name)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("job", "status", "exit code", "started", "took"):
        table.add_column(heading, justify="right" if heading in ("exit code", "took") else "left")
    jobs = [job for _, _, job in jobs_of(client, arguments.name)]
    for job in jobs:
        table.add_row(*_row(job))
    out = console()
    out.print(table)
    if arguments.name:
        lines = client.get_job_logs(str(jobs[-1].submission_id)).strip().splitlines()
        progress = re.compile(rf"\d+:\d\d|{re.escape(arguments.name)}: ")
        last = next((line for line in reversed(lines) if progress.match(line)), "")
        shown = last, _folder_of(jobs[-1]), _link(client, str(jobs[-1].submission_id))
        out.print(*filter(None, shown), sep="\n", soft_wrap=True)
    return ALL_DONE


def _row(job: Any) -> list[str]:
    started = (job.start_time or 0) / 1000
    took = (job.end_time / 1000 if job.end_time else time.time()) - started
    code = "" if job.driver_exit_code is None else str(job.driver_exit_code)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started))
    return [job.submission_id, str(job.status).lower(), code, when, f"{took:.0f} s"]


@_or_job_error
def _logs(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    if cluster is None:
        return local.logs(_storage(arguments), arguments.name, arguments.follow)
    client = _connect(cluster)
    job_id = str(_newest(client, arguments.name).submission_id)
    if arguments.follow:
        return _follow(client, job_id, only_prints=True)
    print(client.get_job_logs(job_id), end="")
    return ALL_DONE


@_or_job_error
def _stop(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    if cluster is None:
        return local.stop(_storage(arguments), arguments.name)
    client = _connect(cluster)
    job = _newest(client, arguments.name)
    job_id = str(job.submission_id)
    if job.status.is_terminal():
        print(f"{job_id}: already {str(job.status).lower()}")
        return ALL_DONE
    started = time.monotonic()
    client.stop_job(job_id)
    while not client.get_job_status(job_id).is_terminal():
        time.sleep(0.2)
    print(f"{job_id}: stopped in {time.monotonic() - started:.0f} s; submit it again to go on")
    return ALL_DONE
