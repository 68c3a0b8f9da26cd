"""Environment variables: read, refused, and documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from musiva.core.env import Env
from musiva.core.errors import InvalidInput


def test_defaults() -> None:
    env = Env.read({})
    assert env == Env(cache_dir=Path.home() / ".cache" / "musiva")


def test_values() -> None:
    env = Env.read(
        {
            "MUSIVA_CACHE_DIR": "/somewhere",
            "MUSIVA_THREADS": "3",
            "MUSIVA_LOG": "debug",
            "MUSIVA_KERNELS": "plain",
            "MUSIVA_API_KEY": "sk-1",
        }
    )
    assert env == Env(
        cache_dir=Path("/somewhere"), threads=3, log="debug", kernels="plain", api_key="sk-1"
    )
    assert "sk-1" not in repr(env)
    assert Env.read({"MUSIVA_THREADS": "", "OTHER": "1"}) == Env.read({})
    assert Env.read({"XDG_CACHE_HOME": "/x"}).cache_dir == Path("/x/musiva")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MUSIVA_THREADS", "0"),
        ("MUSIVA_THREADS", "-1"),
        ("MUSIVA_THREADS", "two"),
        ("MUSIVA_THREADS", "1025"),
        ("MUSIVA_THREADS", "1_0"),
        ("MUSIVA_THREADS", "٣"),
        ("MUSIVA_THREAD", "2"),
        ("MUSIVA_LOG", "loud"),
        ("MUSIVA_KERNELS", "magic"),
    ],
)
def test_bad_values_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{name}: got '{value}'; allowed: "):
        Env.read({name: value})


@pytest.mark.parametrize("key", ["two words", "x" * 513, "schlüssel", "a\n"])
def test_a_bad_key_is_not_shown(key: str) -> None:
    with pytest.raises(InvalidInput, match="MUSIVA_API_KEY") as caught:
        Env.read({"MUSIVA_API_KEY": key})
    assert key not in str(caught.value)


def test_the_table_lists_them_all() -> None:
    root = Path(__file__).parents[2]
    source = (root / "src" / "musiva" / "core" / "env.py").read_text(encoding="utf-8")
    table = (root / "docs" / "environment.md").read_text(encoding="utf-8")
    assert set(re.findall(r"MUSIVA_\w+", source)) == set(
        re.findall(r"^\| `(MUSIVA_\w+)`", table, re.M)
    )
