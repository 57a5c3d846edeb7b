"""The lease that stands for a file lock in a bucket: one holder, and none that is dead."""

import json
import os
import resource
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from filelock import Timeout
from holding import held_elsewhere
from tiny import tiny_config, tiny_sweep, write_spec

from results import locks
from results.locks import is_held, this_process
from results.storage import S3Path, location
from tune import lease as lease_module
from tune.callbacks import Progress
from tune.experiment import _claim
from tune.held_folder import BusyError, hold_trial
from tune.job import TrialJob
from tune.lease import Lease
from tune.progress_file import ProgressFile
from tune.signals import handled
from tune.spec import load_sweep
from tune.trial import TrialRun

NAMESPACES = {"processes": ["--pid", "--fork", "--mount-proc", "--kill-child"], "a machine": ["--mount"]}
# As another machine, or another start of this one, has it.
OTHER_BOOT = 'mount --bind {} /proc/sys/kernel/random/boot_id && exec "$@"'


@pytest.fixture
def path(bucket):
    return location(bucket) / "sweep" / ".lock"


def asked(process: subprocess.Popen) -> str:
    """Whether a holder says that it holds the lease: in time, and after it has asked."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    return process.stdout.readline().strip()


def quick(monkeypatch, stale: float, beat: float) -> None:
    monkeypatch.setattr(locks, "STALE_SECONDS", stale)
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", beat)


def takes(path: S3Path, timeout: float = 0.0) -> Lease | None:
    """The lease, if it can be had."""
    lease = Lease(path)
    try:
        lease.acquire(timeout)
    except Timeout:
        return None
    return lease


def test_one_holds_it_and_each_holder_has_a_higher_number(path):
    first = Lease(path)
    first.acquire(timeout=0)
    assert first.is_locked
    assert takes(path) is None
    first.release()
    assert not first.is_locked
    assert not is_held(path)
    second = takes(path)
    assert second is not None
    assert (first.fence, second.fence) == (1, 2)
    assert is_held(path)
    assert not first.still_held()
    first.release()  # is the other's now
    assert second.still_held()
    second.release()
    assert json.loads(path.read_bytes())["fence"] == 2


@pytest.mark.parametrize("unconditional", [False, True])
def test_of_many_at_once_one_holds_it(path, throttle, monkeypatch, unconditional):
    """A lease that nobody had, that was given back, and that its holder left; also where the store lets all puts by."""
    throttle.unconditional = unconditional
    monkeypatch.setattr(lease_module, "SETTLE_SECONDS", 0.5)
    rounds = 2 if unconditional else 15
    dead = this_process() | {"started": 0, "fence": 7}
    with ThreadPoolExecutor(6) as pool:
        for turn in range(rounds):
            for left in (None, {"released": True, "fence": 7}, dead):
                lock = path / f"{turn}"
                if left is not None:
                    lock.put(json.dumps(left).encode())
                held = [lease for lease in pool.map(takes, [lock] * 6) if lease]
                assert len(held) == 1
                assert held[0].fence == (8 if left else 1)
                assert held[0].still_held()
                held[0].release()
                lock.unlink()


def test_a_process_that_died_on_this_machine_holds_nothing(path):
    with held_elsewhere(path) as process:
        assert takes(path) is None
        process.kill()
        process.wait()
        lease = takes(path)
        assert lease is not None
        lease.release()


def test_a_process_that_nobody_waits_for_is_dead_and_a_number_given_again_is_another(path):
    with held_elsewhere(path) as process:
        claim = json.loads(path.read_bytes())
        assert not locks.died(claim)
        assert locks.died(claim | {"started": claim["started"] - 1})
        process.kill()
        time.sleep(0.5)
        assert locks.died(claim)
        for other in ("host", "boot", "namespace"):
            assert not locks.died(claim | {other: "another"})


@pytest.mark.parametrize("elsewhere", NAMESPACES)
def test_a_process_that_cannot_be_seen_is_not_dead(path, elsewhere, monkeypatch, tmp_path):
    """In another container, or machine, of this host name: neither takes the other's lease until its beats are old."""
    if subprocess.run(["unshare", *NAMESPACES[elsewhere], "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make namespaces")
    before = ["unshare", *NAMESPACES[elsewhere]]
    if elsewhere == "a machine":
        (tmp_path / "boot_id").write_text("11111111-2222-3333-4444-555555555555\n")
        before += ["bash", "-c", OTHER_BOOT.format(tmp_path / "boot_id"), "bash"]
    with held_elsewhere(path, *before) as process:
        claim = json.loads(path.read_bytes())
        assert claim["host"] == this_process()["host"]
        assert takes(path) is None
        assert asked(process) == "True True"
    quick(monkeypatch, 2.0, 0.2)
    lease = takes(path, timeout=10)
    assert lease is not None
    with pytest.raises(AssertionError), held_elsewhere(path, *before, timeout=3.0):  # nor from there
        pass
    assert lease.still_held()
    lease.release()


def test_a_holder_that_stood_still_takes_it_again_if_nobody_has_and_else_has_lost_it(path, monkeypatch):
    quick(monkeypatch, 3.0, 0.5)
    with held_elsewhere(path, stale=3.0, beat=0.5) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(4.5)
        assert not is_held(path)
        process.send_signal(signal.SIGCONT)
        assert asked(process) in ("False True", "True True")
        assert is_held(path)
        process.send_signal(signal.SIGSTOP)
        lease = takes(path, timeout=20)
        assert lease is not None
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.readline() == "lost\n"
        assert asked(process) == "False False"
        assert lease.still_held()
        lease.release()


def test_what_was_answered_with_an_error_may_have_been_done(path, throttle, monkeypatch):
    """The beats go on over a claim that arrived although its answer did not."""
    quick(monkeypatch, 3.0, 0.2)
    lease = Lease(path)
    lease.acquire(timeout=0)
    throttle.done, throttle.status, throttle.code = True, 400, "Lost"  # which nobody tries again
    throttle.before = lambda method, _: setattr(throttle, "share", float(method == "PUT"))
    time.sleep(4.0)
    assert throttle.turned_away > 3
    assert lease.is_locked
    assert takes(path) is None
    lease.release()
    assert not is_held(path)


def test_nobody_waits_for_minutes_to_say_that_he_lets_go(path, throttle, monkeypatch):
    """Neither for a put of his own, nor for that of a beat."""
    monkeypatch.setattr(lease_module, "RELEASE_SECONDS", 0.5)
    lease = takes(path)
    assert lease is not None
    throttle.share = 1.0
    started = time.monotonic()
    lease.release()
    throttle.share = 0.0
    quick(monkeypatch, 0.1, 0.01)
    other = takes(path, timeout=10.0)
    assert other is not None
    throttle.share = 1.0
    while not other._writing.locked():
        time.sleep(0.01)
    other.release()
    assert time.monotonic() - started < 40
    assert not other.is_locked


def test_a_holder_that_stood_still_saves_nothing_more(bucket, monkeypatch):
    folder = location(bucket) / "sweep" / "trials" / "trial"
    config = tiny_config()
    job = TrialJob("baseline", 0, config.trial_id(), config.model_dump(mode="json"), str(folder), 1, 1e-9)
    run = TrialRun(job, torch.device("cpu"))
    run.advance(seconds=0.0)
    monkeypatch.setattr("tune.held_folder.LOCK_SECONDS", 0.1)
    with pytest.raises(BusyError, match=f"another process is training this trial .process {os.getpid()} on "):
        TrialRun(job, torch.device("cpu"))
    quick(monkeypatch, 1.0, 5.0)
    other = takes(folder / ".lock", timeout=10)
    assert other is not None
    before = {path: path.read_bytes() for path in folder.glob("*")}
    with pytest.raises(BusyError, match="held no longer: this process stood still, or the storage"):
        run.advance(seconds=0.0)
    run.close()
    quick(monkeypatch, 30.0, 5.0)
    assert other.still_held()
    assert {path: path.read_bytes() for path in folder.glob("*")} == before


@pytest.mark.parametrize("name", ["best.pt", "evals.parquet", "done.json", "latest_state.pt", "step_4.pt"])
def test_what_a_holder_sends_too_late_replaces_nothing_of_the_next(bucket, monkeypatch, name):
    """It stood still between its last look at the lease and the put, or was turned away until then."""
    folder = location(bucket) / "sweep" / "trials" / "trial"
    late = hold_trial(folder)
    late.write("best.pt", b"1")
    late.copy("best.pt", "latest_state.pt")
    quick(monkeypatch, 1.0, 5.0)
    monkeypatch.setattr("tune.held_folder.LOCK_SECONDS", 10.0)
    following = hold_trial(folder)
    quick(monkeypatch, 30.0, 5.0)
    late._lock._beaten = 0.0
    following.write(name, b"2")
    checks = iter([lambda: None])
    real = late.check_held
    monkeypatch.setattr(late, "check_held", lambda: next(checks, real)())
    with pytest.raises(BusyError, match="held no longer"):
        late.write(name, b"1, too late")
    assert (folder / name).read_bytes() == b"2"
    following.write(name, b"3")
    (folder / name).put(b"of the first, which arrived before anything of the next did")
    following.write(name, b"4")
    assert (folder / name).read_bytes() == b"4"
    following.release()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_run_that_stood_still_ends_once_another_has_its_sweep_and_leaves_it_alone(
    has_begun, bucket, tmp_path, monkeypatch, capsys
):
    quick(monkeypatch, 2.0, 1.0)
    monkeypatch.setattr(Lease, "_beat_on", lambda _: None)
    sweep = load_sweep(write_spec(tmp_path, tiny_sweep(storage=bucket)))
    told, others, theirs = threading.Event(), list[Lease](), {}

    def stand_still() -> None:
        other = takes(sweep.folder / ".run.lock", timeout=20)
        assert other is not None
        others.append(other)
        who = {"pid": 17, "host": "elsewhere", "since": "now", "nonce": "", "fence": other.fence}
        theirs.update({"run.json": json.dumps(who).encode(), "sweep.json": b"theirs", "progress.json": b"theirs"})
        for name, content in theirs.items():
            (sweep.folder / name).put(content)

    def nonce() -> SimpleNamespace:
        if not has_begun:
            stand_still()
        return SimpleNamespace(hex="a1b2")

    def run() -> None:
        with _claim(sweep) as claim:
            assert has_begun
            assert json.loads((sweep.folder / "run.json").read_bytes())["fence"] == 1
            stand_still()
            ProgressFile(Progress("tiny", {}, {}, {}, tmp_path / "log"), claim.held).write()
            claim.write_manifest(sweep)

    monkeypatch.setattr("tune.experiment.uuid", SimpleNamespace(uuid4=nonce))
    with handled((signal.SIGTERM,), lambda *_: told.set()):
        with pytest.raises(KeyboardInterrupt):
            run()
        assert told.wait(20)
    assert {path.name: path.read_bytes() for path in sweep.folder.glob("*.*") if path.name in theirs} == theirs
    printed = capsys.readouterr().out
    assert "stood still for too long; the sweep is being run by process 17 on elsewhere since now\n" in printed
    assert f"tiny: {sweep.folder}: held no longer: " in printed
    quick(monkeypatch, 30.0, 5.0)
    (other,) = others
    assert other.still_held()
    other.release()


def test_a_run_that_cannot_say_that_it_has_its_sweep_leaves_nothing(tmp_path):
    sweep = load_sweep(write_spec(tmp_path, tiny_sweep(storage=str(tmp_path / "not" / "there"))))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"), _claim(sweep):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.yaml"]
