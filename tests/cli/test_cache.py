"""The flags of a cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from musiva.cli.cache import chosen_cache
from musiva.cli.parser import build_parser
from musiva.core.errors import InvalidInput
from musiva.store import Cache


def chosen(*flags: str) -> Cache.Config | None:
    return chosen_cache(build_parser().parse_args(["serve", *flags]))


def test_no_cache_unless_it_is_asked_for() -> None:
    assert chosen() is None


def test_what_flags_ask_for(tmp_path: Path) -> None:
    assert chosen("--cache-mib", "64") == Cache.Config(memory_bytes=64 << 20)
    secret = tmp_path / "secret"
    secret.write_text("known-to-all\n")
    asked = chosen(
        *("--workers", "2", "--cache-mib", "1", "--cache-shared-mib", "2"),
        *("--cache-dir", str(tmp_path), "--cache-dir-mib", "3"),
        *("--directory", "redis://host:1", "--cache-listen", "10.0.0.1"),
        *("--cache-secret-file", str(secret)),
    )
    assert asked == Cache.Config(
        memory_bytes=1 << 20,
        shared_bytes=2 << 20,
        disk=tmp_path,
        disk_bytes=3 << 20,
        directory="redis://host:1",
        secret=b"known-to-all",
        listen="10.0.0.1",
    )
    assert "known" not in repr(asked)


SOME = ("--cache-mib", "1")
REDIS = (*SOME, "--directory", "redis://h:1")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--cache-dir", "x"), "cache-dir: got 'x'; allowed: beside --cache-mib alone"),
        (("--cache-shared-mib", "1"), "cache-shared-mib: got '1'; allowed: beside --cache-mib"),
        (("--directory", "redis://h:1"), "directory: .*beside --cache-mib"),
        ((*SOME, "--cache-shared-mib", "1"), "cache-shared-mib: .*beside --workers"),
        ((*SOME, "--cache-dir-mib", "1"), "cache-dir-mib: .*beside --cache-dir"),
        ((*SOME, "--cache-listen", "h"), "cache-listen: .*beside --directory"),
        ((*SOME, "--directory", "h:1"), "directory: got 'h:1'; allowed: redis://"),
        (REDIS, "cache-secret-file: got None; allowed: a file"),
        ((*REDIS, "--cache-secret-file", "/no"), "cache-listen: got None; allowed: the address"),
        (
            (*REDIS, "--cache-listen", "h", "--cache-secret-file", "/no"),
            "cache-secret-file: got '/no'",
        ),
        (("--cache-mib", "0"), "cache-mib: got '0'"),
    ],
)
def test_flags_that_cannot_be(flags: tuple[str, ...], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        chosen(*flags)
