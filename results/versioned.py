"""A small object in a bucket that several processes change: read with its version, written over that version alone.

By conditional puts (If-Match, If-None-Match), which AWS, MinIO, R2 and others have. pyarrow's S3 knows none: botocore
does, and asks as pyarrow is told to in results.storage.
"""

import os
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from results.patience import LOST, endpoint, patiently
from results.storage import REQUEST_SECONDS, S3Path

_OVERTAKEN = ("PreconditionFailed", "ConditionalRequestConflict")
_UNKNOWN = ("NotImplemented", "InvalidRequest", "InvalidArgument")  # what a store without conditional puts may answer


@dataclass(frozen=True)
class Versioned:
    """What an object holds, which version that is, and how many seconds ago it was written, by the server's clock."""

    content: bytes
    version: str
    age: float


def read(path: S3Path) -> Versioned | None:
    """The object, None if it is not there. Raises StorageError."""
    try:
        return patiently(lambda: _read(path), path)
    except FileNotFoundError:
        return None


def versions(folder: S3Path) -> dict[str, str]:
    """The objects below this name, one level down: their names, and which version each is. Raises StorageError."""
    found: dict[str, str] = {}
    more: dict[str, Any] = {}
    while True:
        asked = {"Prefix": f"{folder.key.partition('/')[2]}/", "Delimiter": "/"} | more
        answer = patiently(lambda asked=asked: _asked("list_objects_v2", folder, **asked), folder)
        found |= {one["Key"].rpartition("/")[2]: one["ETag"] for one in answer.get("Contents", ())}
        if not answer.get("IsTruncated"):
            return found
        more = {"ContinuationToken": answer["NextContinuationToken"]}


def version_of(path: S3Path) -> str | None:
    """Which version of the object stands, None if it is not there. Raises StorageError."""
    try:
        return patiently(lambda: _asked("head_object", path, Key=path.key.partition("/")[2])["ETag"], path)
    except FileNotFoundError:
        return None


def write(path: S3Path, content: bytes, over: str | None) -> str | None:
    """Put the object over the version `over` (None: where none is) and return its version; None if another stands.

    One that was turned away may have been written all the same, and then is told None: read it back. A store without
    conditional puts writes whatever stands there. Raises StorageError.
    """
    return patiently(lambda: _write(path, content, over), path)


def _read(path: S3Path) -> Versioned:
    answer = _asked("get_object", path, Key=path.key.partition("/")[2])
    asked = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(asked).timestamp() if asked else time.time()
    return Versioned(answer["Content"], answer["ETag"], now - answer["LastModified"].timestamp())


def _write(path: S3Path, content: bytes, over: str | None) -> str | None:
    from botocore.exceptions import ClientError

    key = path.key.partition("/")[2]
    condition = {"IfNoneMatch": "*"} if over is None else {"IfMatch": over}
    try:
        return _asked("put_object", path, Key=key, Body=content, **condition)["ETag"]
    except FileNotFoundError:  # the version that it was to replace is gone
        return None
    except OSError as error:
        cause = error.__cause__
        code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else ""
        if code in _OVERTAKEN:
            return None
        if code in _UNKNOWN:
            return _asked("put_object", path, Key=key, Body=content)["ETag"]
        raise


def _asked(operation: str, path: S3Path, **given: Any) -> dict[str, Any]:
    """What S3 answers, of the path's bucket; a body as Content. Raises OSError in pyarrow's words, as S3Path does."""
    from botocore import exceptions as known
    from botocore.exceptions import BotoCoreError, ClientError

    network = known.HTTPClientError, known.ConnectionError, known.IncompleteReadError  # time-outs are among them
    no_credentials = known.NoCredentialsError, known.PartialCredentialsError, known.CredentialRetrievalError

    try:
        client = _client(endpoint())
        answer = getattr(client, operation)(Bucket=path.key.partition("/")[0], **given)
        return answer | {"Content": answer["Body"].read()} if "Body" in answer else answer
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code in ("NoSuchKey", "404"):  # an answer to a HEAD has no words
            raise FileNotFoundError(str(path)) from error
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).upper()
        raise OSError(f"AWS Error {name} (HTTP status {status}): {error}") from error
    except BotoCoreError as error:
        name = "ACCESS_DENIED" if isinstance(error, no_credentials) else type(error).__name__
        raise OSError(f"AWS Error {LOST if isinstance(error, network) else name}: {error}") from error
    except ValueError as error:  # an endpoint that is no URL
        raise OSError(f"AWS_ENDPOINT_URL: {error}; give a URL, such as http://127.0.0.1:9000") from error


@lru_cache
def _client(endpoint: str | None) -> Any:
    from botocore.config import Config
    from botocore.session import Session

    config = Config(
        connect_timeout=10,
        read_timeout=REQUEST_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=16,
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_required",  # which other stores than AWS's may not know
        response_checksum_validation="when_required",
    )
    # The region: pyarrow reads AWS_REGION, botocore by itself AWS_DEFAULT_REGION.
    return Session().create_client("s3", os.environ.get("AWS_REGION"), endpoint_url=endpoint, config=config)
