"""What a bench found, on what, and whether it may be believed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

__all__ = ["Gate", "Report", "append_result", "environment", "source_tree"]

PACKAGES = ("musiva", "torch", "numpy", "diffusers", "transformers")
Row = Mapping[str, object]


@dataclass(slots=True)
class Gate:
    """Checks of correctness, by name; a bench tells no speed unless all hold."""

    checks: dict[str, object] = field(default_factory=dict)
    ok: bool = True

    def check(self, name: str, value: object, *, holds: bool) -> bool:
        """Enter one check and what was found; returns whether it holds."""
        self.checks[name] = value
        self.ok = self.ok and holds
        return holds

    def merge(self, other: Mapping[str, object]) -> bool:
        """Enter the checks of another process, `as_json` of its gate."""
        self.checks.update({name: value for name, value in other.items() if name != "ok"})
        self.ok = self.ok and other["ok"] is True
        return other["ok"] is True

    def as_json(self) -> dict[str, object]:
        return {"ok": self.ok, **self.checks}


@dataclass(frozen=True, slots=True)
class Report:
    """figures: the keys of a bench, always all of them; None where this run cannot tell."""

    bench: str
    quick: bool
    load: float
    gate: Gate
    figures: Mapping[str, float | None]
    rows: Sequence[Row]
    facts: Mapping[str, object]

    def as_json(self) -> dict[str, object]:
        return {
            "bench": self.bench,
            "commit": self.facts["commit"],
            "versions": self.facts["versions"],
            "device": self.facts["device"],
            "threads": self.facts["threads"],
            "quick": self.quick,
            "load": self.load,
            "gate": self.gate.as_json(),
            "figures": dict(self.figures) if self.gate.ok else dict.fromkeys(self.figures),
            "rows": list(self.rows) if self.gate.ok else [],
        }


def environment() -> dict[str, object]:
    """commit, versions, device and threads: what a figure was measured on."""
    import torch

    versions: dict[str, object] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "commit": _commit(),
        "versions": versions,
        "device": _processor()
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
        "threads": torch.get_num_threads(),
    }


def checkout() -> Path | None:
    """The directory of the checkout that this package runs from, or None if it is installed
    elsewhere.
    """
    root = Path(__file__).parents[3]
    return (
        root if (root / "pyproject.toml").is_file() and (root / "src" / "musiva").is_dir() else None
    )


def append_result(report: Mapping[str, object], directory: Path) -> Path:
    """Add the report as one line to `directory`/<bench>.jsonl."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{report['bench']}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(report) + "\n")
    return path


def source_tree() -> str | None:
    """Git's name of the package's files as they were committed last: commits that change others
    leave it.
    """
    return _revision("HEAD:src/musiva")


def _commit() -> str | None:
    return _revision("HEAD")


def _revision(of: str) -> str | None:
    root = checkout()
    if root is None:
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", of],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _processor() -> str:
    cores = os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {cores} cores"
