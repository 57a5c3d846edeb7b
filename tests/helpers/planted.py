"""Credentials that must not be found anywhere afterwards, and where to look for them."""

import os
from collections.abc import Iterator
from pathlib import Path

PLANTED = {
    "AWS_ACCESS_KEY_ID": "PLANTEDkeyid0000",
    "AWS_SECRET_ACCESS_KEY": "PLANTEDsecretkey00000000",
    "AWS_SESSION_TOKEN": "PLANTEDsessiontoken00000",
    "AWS_SECURITY_TOKEN": "PLANTEDsecuritytoken0000",
    "WANDB_API_KEY": "PLANTED" + "wandb" * 6 + "key",  # as long as a real one
    "HF_TOKEN": "PLANTEDhubtoken000000000",
    "DB_URL": "postgres://me:PLANTEDpassword@127.0.0.1/x",
}


def secrets_file(folder: Path) -> Path:
    """A file that holds them, as a sweep may name it."""
    file = folder / "secrets.env"
    file.touch(mode=0o600)
    file.write_text("# ours\n" + "".join(f"export {name}='{value}'\n" for name, value in PLANTED.items()))
    return file


def written(folder: Path, but: Path | None = None) -> Iterator[bytes]:
    """What every file below a folder holds, and its name."""
    for root, _, names in os.walk(folder):
        for path in (Path(root) / name for name in names):
            if path.is_file() and path != but:  # no sockets
                yield str(path).encode() + b"\0" + path.read_bytes()


def stored(url: str) -> Iterator[bytes]:
    """What every object of a bucket holds, and its key."""
    from pyarrow import fs

    s3 = fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])
    for found in s3.get_file_info(fs.FileSelector(url.removeprefix("s3://"), recursive=True)):
        if found.is_file:
            yield found.path.encode() + b"\0" + s3.open_input_file(found.path).read()


def leaks(contents: list[bytes], secret: str) -> int:
    """In how many of them it stands."""
    return sum(secret.encode() in content for content in contents)
