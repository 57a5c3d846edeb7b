"""On which addresses processes take TCP connections."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MAPPED = "0000000000000000FFFF0000"  # an IPv4 address as IPv6
LOOPBACK = {"0100007F", f"{_MAPPED}0100007F"}  # 127.0.0.1


def descendants(pid: int) -> Iterator[int]:
    """A process, and all that it started."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from descendants(int(child))


def listening(pids: Iterator[int]) -> set[str]:
    """The addresses on which the processes take TCP connections, as the kernel writes them."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since
                sockets.add(str(link.readlink()))
    found = set()
    for kind in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            _, address, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.add(address.partition(":")[0])
    return found
