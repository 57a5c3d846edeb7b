"""What finished runs left in Ray's temporary folder: of ours, and of no other."""

from pathlib import Path

from filelock import FileLock

from tune.leftovers import KEPT, MARK, marked, remove_copies


def session(folder: Path, second: int, ours: bool = True) -> Path:
    """A session's folder, as Ray calls it, of a run that has ended."""
    made = folder / f"session_2026-01-01_00-00-{second:02}_123456_{99 - second}"
    (made / "logs").mkdir(parents=True)
    (made / "logs" / "worker.out").write_text("step 1")
    if ours:
        (made / MARK).touch()
    return made


def test_all_but_the_newest_finished_sessions_of_ours_are_removed(tmp_path):
    ours = [session(tmp_path, second) for second in range(KEPT + 4)]
    others = [session(tmp_path, second, ours=False) for second in range(20, 30)]
    lives = FileLock(ours[1] / MARK)
    (tmp_path / "session_latest").symlink_to(ours[-1])
    mine = session(tmp_path, 50, ours=False)
    with lives, marked(mine):
        left = {path for path in tmp_path.glob("session_2*") if (path / "logs" / "worker.out").exists()}
        assert left == {mine, ours[1], *ours[-KEPT:], *others}
    with marked(others[0]):  # the run before has ended, and counts as one
        assert mine.exists()
        assert not ours[-KEPT].exists()


def test_of_what_tune_copied_a_sweeps_own_is_removed(tmp_path):
    attempts, artifacts = tmp_path / "sweep" / "attempts", tmp_path / "session" / "artifacts"
    for name in ("20260101-000000-abcd", "20260101-000001-abcd"):
        (attempts / name).mkdir(parents=True)
    copies = [artifacts / at / name / "driver_artifacts" for at, name in (
        ("2026-01-01_00-00-00", "20260101-000000-abcd"),
        ("2026-01-01_00-00-00", "20260101-000000-beef"),  # of another sweep
        ("2026-01-01_00-00-01", "20260101-000001-abcd"),
    )]  # fmt: skip
    for copy in copies:
        copy.mkdir(parents=True)
        (copy / "tuner.pkl").write_bytes(b"x")
    remove_copies(tmp_path / "session", attempts)
    assert [copy.exists() for copy in copies] == [False, True, False]
    assert [path.name for path in artifacts.iterdir()] == ["2026-01-01_00-00-00"]
