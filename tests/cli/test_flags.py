"""The surface of the command line is frozen: a flag comes or goes only with this table."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from musiva.cli.parser import build_parser
from musiva.perf.benches.base import BENCHES
from musiva.perf.child import child_environment
from tests.cli.conftest import Musiva

MACHINE = {"--model", "--dtype", "--device", "--compile", "--threads"}
PICTURE = {"-n", "--size", "--steps", "--seed", "--guidance", "--negative"}
CLIP = {"--frames", "--fps"}
SOURCES = {"--like", "--server"}
OUT = {"--out", "--grid", "--force"}
PATHS = {"--sampler", "--spacing", "--shift", "--policy", "--quality"}
TERMS = {"--min-quality", "--max-quality", "--deadline"}
KEY = {"--api-key-file"}
STORE = {"--store-mib"}
FROZEN = {
    "generate": {
        *("prompt", *SOURCES, *KEY, *OUT, *PICTURE, *CLIP, *PATHS, *TERMS, *STORE, *MACHINE),
    },
    "inspect": {"picture", "--out", "--policy", *STORE, *MACHINE},
    "serve": {
        *("--host", "--port", "--max-rows", "--max-waiting", "--cors-origin", "--policy"),
        *("--scheduler", "--patience", "--tenants", "--job-seconds", "--job-mib"),
        *("--workers", "--degree", "--form", "--cluster"),
        *("--cache-mib", "--cache-shared-mib", "--cache-dir", "--cache-dir-mib", "--directory"),
        *("--cache-secret-file", "--cache-listen"),
        *KEY,
        *STORE,
        *MACHINE,
    },
    "train": {"recipe", "stage", "argument"},
    "calibrate": {"--prompts", "--size", "--guidance", "--steps", "--out", *MACHINE},
    "profile": {"--seconds", "--out", "--json", *MACHINE},
    "trace": {
        *("shape", "--out", "--rate", "--count", "--seed", "--prompts", "--size", "--steps"),
        *("--deadline", "--min-quality", "--max-quality", "--tenant"),
    },
    "simulate": {
        *("trace", "--profile", "--scheduler", "--workers", "--cores", "--speed", "--deadlines"),
        *("--json", "--chart"),
        *MACHINE,
    },
    "replay": {"trace", "--server", "--speed", "--json", *KEY},
    "demo": {
        *("what", "prompt", "--out", "--workers", "--size", "--steps", "--seed", "--quality"),
        *("--json", *MACHINE),
    },
    "cluster": {"what", "worker", "--server", "--every", "--json", *KEY},
    "bench": {"name", "--json", "--quick"},
    "models": {"directory", "--json"},
    "capture": {"model", "--explain", "--text", "--json", "--fresh"},
    "doctor": {"--json"},
}
MANUAL = Path(__file__).parents[2] / "docs" / "cli.md"


def surface() -> dict[str, set[str]]:
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {
        name: {flag for a in p._actions for flag in a.option_strings or [a.dest]} - {"-h", "--help"}
        for name, p in commands.choices.items()
    }


def test_the_flags_are_frozen() -> None:
    assert surface() == FROZEN


@pytest.mark.parametrize("command", FROZEN)
def test_the_manual_names_every_flag(command: str) -> None:
    chapter = MANUAL.read_text(encoding="utf-8").split(f"## musiva {command}")[1].split("\n## ")[0]
    assert not [f for f in FROZEN[command] if f.startswith("-") and f"`{f}" not in chapter]


def test_the_manual_and_the_help_name_every_bench(musiva: Musiva) -> None:
    chapter = MANUAL.read_text(encoding="utf-8").split("## musiva bench")[1].split("\n## ")[0]
    shown = musiva("bench", "--help").out
    assert not [name for name in BENCHES if f"`{name}`" not in chapter or name not in shown]


def test_help_and_version_need_no_torch() -> None:
    script = "import sys; from musiva.cli import main\ntry: main(sys.argv[1:])\nfinally: "
    script += "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    for arguments in (["--help"], ["--version"], ["generate", "--help"], ["bench", "x", "--foo"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=child_environment(1),
        )
        assert done.returncode == (2 if "--foo" in arguments else 0), done.stderr
        assert "AssertionError" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "COMMAND"),
        (["paint"], "invalid choice: 'paint'"),
        (["generate"], "PROMPT"),
        (["generate", "fox", "--stepz", "3"], "--stepz"),
        (["generate", "fox", "--steps"], "--steps"),
        (["bench"], "NAME"),
    ],
)
def test_arguments_that_do_not_parse(musiva: Musiva, arguments: list[str], told: str) -> None:
    result = musiva(*arguments)
    assert result.code == 2
    assert "musiva: error: " in result.err
    assert told in result.err


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--size", "12y12", "WIDTHxHEIGHT"),
        ("--size", "-1x3", "WIDTHxHEIGHT"),
        ("--size", "", "WIDTHxHEIGHT"),
        ("--steps", "0", "from 1 to 1000"),
        ("--steps", "1000000000", "from 1 to 1000"),
        ("--steps", "ten", "from 1 to 1000"),
        ("--seed", "-1", "from 0 to 9223372036854775807"),
        ("--guidance", "nan", "from 0 to 100"),
        ("--guidance", "-2", "from 0 to 100"),
        ("--shift", "0", "from 0.01 to 100"),
        ("-n", "0", "from 1 to"),
        ("--threads", "0", "from 1 to"),
        ("--threads", "1025", "from 1 to 1024"),
        ("--steps", "1_0", "from 1 to 1000"),
        ("--steps", " 5", "from 1 to 1000"),
        ("--steps", "٣", "from 1 to 1000"),
        ("--seed", "9" * 25, "from 0 to"),
        ("--guidance", "1_0", "from 0 to 100"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(
    musiva: Musiva, flag: str, value: str, allowed: str
) -> None:
    result = musiva("generate", "a fox", f"{flag}={value}" if flag[1] == "-" else f"{flag}{value}")
    assert result.code == 2
    assert f"musiva: error: {flag.strip('-')}: got {value!r}; allowed: " in result.err
    assert allowed in result.err


def test_a_bad_environment_variable(musiva: Musiva, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIVA_THREADS", "many")
    result = musiva("models")
    assert result.code == 2
    assert result.err.startswith(
        "musiva: error: MUSIVA_THREADS: got 'many'; allowed: a whole number"
    )
