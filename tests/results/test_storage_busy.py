"""A bucket that is busy: requests are tried again for minutes, by whoever sends them; other errors are not."""

import threading
import time

import pytest

from results import patience, storage
from results.patience import StorageError, impatiently, patiently
from results.storage import S3Path, location


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (503, "ServiceUnavailable"), (500, "InternalError"), (429, "SlowDown")]
)
def test_whoever_is_turned_away_comes_again(bucket, throttle, monkeypatch, status, code):
    monkeypatch.setattr(patience, "LONGEST_PAUSE_SECONDS", 0.5)
    place = location(bucket) / "a"
    (place / "here").put(b"content")
    throttle.share, throttle.status, throttle.code = 1.0, status, code
    timer = threading.Timer(6.0, lambda: setattr(throttle, "share", 0.0))  # longer than pyarrow's own three attempts
    timer.start()
    (place / "there").put(b"x" * 100)
    assert throttle.share == 0.0
    throttle.share = 0.3
    for _ in range(2):
        assert (place / "here").read_bytes() == b"content"
        assert {path.name for path in place.glob("*")} == {"here", "there"}
        storage.copy(place / "here", place / "copy")
        (place / "copy").unlink()
        assert not (place / "copy").exists()
    assert throttle.turned_away > 3


def test_after_minutes_it_says_what_to_mend(bucket, throttle, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    throttle.share = 1.0
    with pytest.raises(StorageError, match="S3 was too busy for minutes; run fewer trials at a time"):
        (location(bucket) / "a").read_bytes()


def test_what_no_waiting_mends_is_said_at_once(bucket, throttle):
    throttle.share, throttle.status, throttle.code = 1.0, 403, "AccessDenied"
    started = time.monotonic()
    with pytest.raises(StorageError, match="S3 refuses these credentials"):
        (location(bucket) / "a").read_bytes()
    assert time.monotonic() - started < 60
    assert throttle.turned_away == 1


def test_a_store_that_is_lost_is_waited_for_once_and_no_longer_than_asked():
    place = S3Path("bucket/a")

    def lost() -> None:
        raise OSError("When getting a: AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7")

    def seconds(patience: float) -> float:
        started = time.monotonic()
        with impatiently(patience), pytest.raises(StorageError, match="S3 cannot be reached; see AWS_ENDPOINT_URL"):
            patiently(lost, place)
        return time.monotonic() - started

    assert patiently(lambda: 1, place) == 1
    assert seconds(0) < 0.2  # as a lease's beat asks, which speaks for no other
    assert 0.5 <= seconds(0.5) < 1
    assert seconds(60) < 0.2
    assert patiently(lambda: 1, place) == 1
    assert 0.5 <= seconds(0.5) < 1
