"""What a user's environment holds that Ray, and calls to this machine, would stumble over. Knows nothing of Ray."""

import os
import socket
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HOMELESS = "/HOME-is-not-set"  # what a file below it cannot be opened by says what to mend
SHARED_MEMORY = Path("/dev/shm")
SOCKET_BYTES = 107  # that the path of a socket may have
ANSWER_SECONDS = 10.0


def settle() -> None:
    """Make of this process's environment one that libraries can be imported in, and in which loopback is reached."""
    try:
        Path.home()
    except RuntimeError:  # neither HOME nor an entry for this user: Ray cannot even be imported
        os.environ["HOME"] = HOMELESS
    bypass_proxies(*LOOPBACK)


def bypass_proxies(*hosts: str) -> None:
    """Let this process, and what it starts, reach these hosts without the proxies that the environment names."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name for name in (part.strip() for part in known.split(",")) if name]
    if "*" not in names:
        names += [host for host in hosts if host and host not in names]
    for variable in ("no_proxy", "NO_PROXY"):  # which of the two is read differs from library to library
        os.environ[variable] = ",".join(names)


def host_and_port(address: str) -> tuple[str, int]:
    """Of a URL, or of HOST:PORT; "" and 0 where it names none."""
    try:
        url = urlsplit(address if "://" in address else f"//{address}")
        return url.hostname or "", url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    except ValueError:
        return "", 0


def local_problem() -> str | None:
    """Why Ray cannot be started here: the variable or folder, what is wrong with it, and the mend. None if it can."""
    return _temporary_problem() or _shared_memory_problem()


def _temporary_problem() -> str | None:
    known = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)  # macOS gives all a long TMPDIR
    variable = next((name for name in known if name in os.environ), None)
    text = os.environ[variable] if variable else "/tmp"
    what = f"{variable}: {text!r}" if variable else text
    mend = "set RAY_TMPDIR to a short path that can be written to, such as /tmp"
    folder = Path(text) / "ray"
    if not folder.is_absolute():
        return f"{what} is no absolute path, and Ray's workers have other folders; {mend}"
    sockets = f"{folder}/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    if (size := len(os.fsencode(sockets))) > SOCKET_BYTES:
        room = SOCKET_BYTES - size + len(os.fsencode(text))
        return f"{what} is longer than the {room} bytes that leave room for the names of Ray's sockets; {mend}"
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:
        return f"{what} cannot hold Ray's files ({error.strerror}); {mend}"
    problem = _cannot_write(there)
    return f"{what} cannot hold Ray's files ({there}: {problem}); {mend}" if problem else None


def _shared_memory_problem() -> str | None:
    problem = _cannot_write(SHARED_MEMORY) if sys.platform == "linux" else None
    mend = "mount it writable (in a container: --shm-size 1g)"
    return f"{SHARED_MEMORY} cannot hold Ray's objects: {problem}; {mend}" if problem else None


def _cannot_write(folder: Path) -> str | None:
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def unreachable(host: str, port: int) -> str | None:
    """Why nothing can be connected to there, None if something can."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        return f"cannot be reached ({error.strerror or error})"
    return None
