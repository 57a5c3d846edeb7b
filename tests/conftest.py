"""What several test files share: one local Ray, an S3 server on loopback, the real puzzles."""

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2] / "shared"
# Two test files run at a time: threads that wait for work in one of them, busily, would take the cores of the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "HOME" in os.environ:  # Vega's bundle, for tests with other homes
    os.environ.setdefault("RRM_CACHE", f"{os.environ['HOME']}/.cache/rrm")


@pytest.fixture(scope="session")
def s3_environment() -> int:
    """The environment of the S3 server: Ray's workers, too, must find it. Returns its port; nothing listens yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return port


@pytest.fixture(scope="session")
def s3_server(s3_environment) -> Iterator[Any]:
    """A real S3 server on loopback, in this process; it keeps its buckets when stopped and started again."""
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed: pip install 'rrm[test]'")
    dispatcher = "moto.moto_server.werkzeug_app.DomainDispatcherApplication.get_backend_for_host"
    pytest.MonkeyPatch().setattr(dispatcher, lambda *_: "s3")  # it looks at all of AWS's services for each request
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=s3_environment, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def throttle(s3_server) -> Iterator[Any]:
    """The server in the hands of a test (helpers/throttle.py)."""
    from throttle import Throttle

    throttle = Throttle(s3_server)
    yield throttle
    throttle.close()


@pytest.fixture
def bucket(s3_server) -> str:
    """The URL of a new bucket."""
    from pyarrow import fs

    name = f"b{uuid.uuid4().hex[:12]}"
    fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True).create_dir(name)
    return f"s3://{name}"


@dataclass
class LocalRay:
    """The addresses of a Ray on this machine: its own, its dashboard's (where jobs are sent), its metrics'."""

    address: str
    dashboard: str
    metrics: str


@pytest.fixture(scope="session")
def local_ray(s3_environment) -> Iterator[LocalRay]:
    """One Ray for all tests that do not themselves test how Ray is started: starting one takes seconds.

    This process is connected to it, others are by RAY_ADDRESS; it asks for a token. It has one GPU, a logical one of 24
    GB, so that one process trains the trials of a sweep: to start it takes a hundred times what a tiny trial does.
    """
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # a job's `python` is that of the cluster
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_prestart_worker_first_driver": "0",
    }
    import ray
    from ray._common.utils import get_default_ray_temp_dir
    from ray._private.utils import write_ray_address
    from ray._raylet import Config
    from ray.cluster_utils import Cluster

    Config.initialize("")  # from the environment as it is now: test files have imported Ray before
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        metrics = free.getsockname()[1]
    # Of two Rays on a machine one takes no jobs, if its agent has the port that all have by default, and gives its jobs
    # the address of the other, if both keep the newest head's in the same folder.
    own = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: sockets are in it
    Path(get_default_ray_temp_dir()).mkdir(parents=True, exist_ok=True)  # where Cluster writes the address all the same
    head = {
        "num_cpus": 2,
        "num_gpus": 1,
        "resources": {"accelerator_type:L4": 1},
        "include_dashboard": True,
        "include_log_monitor": False,
        "dashboard_port": 0,
        "dashboard_agent_listen_port": 0,
        "temp_dir": own,
        "metrics_export_port": metrics,
        "_system_config": {"metrics_report_interval_ms": 2000},
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    write_ray_address(cluster.address, own)
    context = ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield LocalRay(cluster.address, f"http://{context.dashboard_url}", f"http://127.0.0.1:{metrics}/metrics")
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(own, ignore_errors=True)


@pytest.fixture
def shared_data() -> Path:
    """The real puzzles beside the project."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not here")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """Where CI has installed all there is (RRM_NO_SKIP), a skipped test is a failure: it would hide a missing thing.

    A GPU is the one thing that cannot be installed.
    """
    report = yield
    if os.environ.get("RRM_NO_SKIP") and report.skipped and item.path.parent.name != "gpu":
        report.outcome, report.longrepr = "failed", f"skipped in CI: {report.longrepr}"
    return report
