"""What a user's environment may hold: each thing that Ray would stumble over is named before it is started."""

import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import grpc
import pytest

from tune import connection, environment
from tune.connection import _head_problem
from tune.environment import HOMELESS, bypass_proxies, host_and_port, local_problem, settle


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("TMPDIR", "RAY_TMPDIR", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TMPDIR", "{file}", "TMPDIR: '{file}' cannot hold Ray's files ({file}: Not a directory)"),
        ("TMPDIR", "/proc", "TMPDIR: '/proc' cannot hold Ray's files (/proc: No such file or directory)"),
        ("RAY_TMPDIR", "/proc/nowhere/deep", "RAY_TMPDIR: '/proc/nowhere/deep' cannot hold Ray's files (/proc: "),
        ("TMPDIR", "/tmp/" + "x" * 60, "is longer than the "),
        ("TMPDIR", "here", "TMPDIR: 'here' is no absolute path"),
        ("RAY_TMPDIR", "", "RAY_TMPDIR: '' is no absolute path"),
    ],
)
def test_a_folder_for_temporary_files_that_is_none(variable, value, says, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(environment, "SOCKET_BYTES", 107 if "xxx" in value else 1000)  # pytest's own folders are long
    monkeypatch.setenv(variable, value.format(file=file))
    problem = local_problem()
    assert problem is not None
    assert says.format(file=file) in problem
    assert problem.startswith(variable)
    assert problem.endswith("; set RAY_TMPDIR to a short path that can be written to, such as /tmp")


def test_what_is_well_is_no_problem(tmp_path, monkeypatch):
    assert local_problem() is None
    monkeypatch.setattr(environment, "SOCKET_BYTES", 1000)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "not" / "made" / "yet"))
    assert local_problem() is None
    assert list(tmp_path.iterdir()) == []


def test_on_macos_the_folder_is_rays_own_or_none(monkeypatch):
    """There TMPDIR is always long, and Ray does not read it (ray._common.utils.get_default_system_temp_dir)."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("TMPDIR", long := "/var/folders/" + "x" * 60)
    assert local_problem() is None
    monkeypatch.setenv("RAY_TMPDIR", long)
    assert (local_problem() or "").startswith("RAY_TMPDIR: '/var/folders/x")


@pytest.mark.parametrize("folder", ["/proc", "/proc/nowhere"])
def test_shared_memory_that_cannot_be_written(folder, monkeypatch):
    monkeypatch.setattr(environment, "SHARED_MEMORY", Path(folder))
    assert local_problem() == (
        f"{folder} cannot hold Ray's objects: No such file or directory; mount it writable "
        "(in a container: --shm-size 1g)"
    )


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def frozen_server() -> Iterator[int]:
    """A process that was stopped: its kernel takes the connection, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def rpc_server() -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


@pytest.mark.parametrize(
    ("there", "says"),
    [(web_server, "does not answer as Ray does"), (frozen_server, "does not answer"), (rpc_server, "")],
)
def test_only_what_answers_as_a_head_is_joined(there, says, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 2.0)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with there() as port:
        problem = _head_problem(f"127.0.0.1:{port}")
    mend = "start it (`ray start --head`), mend the address, or unset it to train on this machine"
    assert bool(problem) == bool(says)
    assert not problem or (f"RAY_ADDRESS: '127.0.0.1:{port}' {says}" in problem and problem.endswith(mend))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (
            "127.0.0.1:1",
            "RAY_ADDRESS: '127.0.0.1:1' cannot be reached (Connection refused); start it (`ray start --hea",
        ),
        ("no-such-host.invalid:6379", "RAY_ADDRESS: 'no-such-host.invalid:6379' cannot be reached ("),
        (
            "http://127.0.0.1:8265",
            "show it, or unset it to train on this machine; `rrm submit --address http://127.0.0",
        ),
        ("ray://127.0.0.1:10001", "RAY_ADDRESS: 'ray://127.0.0.1:10001' is no head's address; give HOST:PORT as `ray"),
        ("127.0.0.1", "is no head's address"),
        ("127.0.0.1:99999", "is no head's address"),
        ("[::1]:1", "RAY_ADDRESS: '[::1]:1' cannot be reached ("),
    ],
)
def test_an_address_that_leads_nowhere(address, says):
    assert says.replace("show it", "shows it") in str(_head_problem(address))


def test_loopback_and_the_address_given_are_reached_without_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "example.org, .internal")
    with web_server() as port:
        settle()
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10).status == 200
        assert urllib.request.urlopen(f"http://localhost:{port}", timeout=10).status == 200
    bypass_proxies("head.example.net")
    assert urllib.request.proxy_bypass("head.example.net")
    assert urllib.request.proxy_bypass("example.org")
    assert not urllib.request.proxy_bypass("wandb.ai")
    known = os.environ["no_proxy"]
    bypass_proxies("head.example.net", "")
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == known
    monkeypatch.setenv("no_proxy", "*")
    bypass_proxies("head.example.net")
    assert os.environ["no_proxy"] == "*"


def test_hosts_of_addresses():
    assert host_and_port("http://head:8265/x") == ("head", 8265)
    assert host_and_port("https://head") == ("head", 443)
    assert host_and_port("127.0.0.1:6379") == ("127.0.0.1", 6379)
    assert host_and_port("[::1]:6379") == ("::1", 6379)
    assert host_and_port("auto")[1] == host_and_port("http://head:x")[1] == 0


def test_a_user_without_a_home_can_import_ray(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/somebody")
    settle()
    assert os.environ["HOME"] == "/home/of/somebody"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no entry in passwd")))
    settle()
    assert os.environ["HOME"] == HOMELESS
