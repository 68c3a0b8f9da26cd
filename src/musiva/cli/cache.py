"""What the flags of a cache ask for."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from musiva.cli.key import read_key
from musiva.core.errors import InvalidInput

if TYPE_CHECKING:
    from musiva.store import Cache

__all__ = ["chosen_cache"]

SHARED_MIB, DISK_MIB = 1024, 16384
BESIDE = (
    "cache_shared_mib",
    "cache_dir",
    "cache_dir_mib",
    "directory",
    "cache_secret_file",
    "cache_listen",
)
# Of a directory that others have too.
NEEDED = {
    "cache_secret_file": "a file with what all servers of the directory know",
    "cache_listen": "the address of this machine that the others reach",
}


def chosen_cache(arguments: Namespace) -> Cache.Config | None:
    """None for no cache. Raises InvalidInput, also for a flag that would have no effect."""
    if arguments.cache_mib is None:
        for flag in BESIDE:
            _require(arguments, flag, present=False, beside="--cache-mib")
        return None
    if arguments.workers is None and arguments.cluster is None and arguments.degree == 1:
        _require(arguments, "cache_shared_mib", present=False, beside="--workers")
    if arguments.cache_dir is None:
        _require(arguments, "cache_dir_mib", present=False, beside="--cache-dir")
    options: dict[str, Any] = {}
    if arguments.directory is None:
        for flag in ("cache_secret_file", "cache_listen"):
            _require(arguments, flag, present=False, beside="--directory")
    else:
        if "://" not in arguments.directory:
            allowed = "redis://HOST:PORT, rediss://HOST:PORT or unix://PATH"
            raise InvalidInput("directory", arguments.directory, allowed)
        for flag, what in NEEDED.items():
            _require(arguments, flag, present=True, beside=what)
        secret = read_key(arguments.cache_secret_file, "cache-secret-file").encode()
        options = {"secret": secret, "listen": arguments.cache_listen}
    from musiva.store import Cache

    return Cache.Config(
        memory_bytes=arguments.cache_mib << 20,
        shared_bytes=(arguments.cache_shared_mib or SHARED_MIB) << 20,
        disk=arguments.cache_dir,
        disk_bytes=(arguments.cache_dir_mib or DISK_MIB) << 20,
        directory=arguments.directory,
        **options,
    )


def _require(arguments: Namespace, flag: str, *, present: bool, beside: str) -> None:
    """Raises InvalidInput. beside: the flag that it goes with, or what it has to be."""
    value = getattr(arguments, flag)
    if (value is not None) != present:
        allowed = beside if present else f"beside {beside} alone"
        raise InvalidInput(flag.replace("_", "-"), None if value is None else str(value), allowed)
