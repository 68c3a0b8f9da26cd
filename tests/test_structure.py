"""The rules of the repository that a program can check."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "musiva"
# Packages of one row may not import each other; of a lower row, only what stands above.
ROWS = (
    ("core",),
    ("telemetry",),
    ("client",),
    ("ops",),
    ("comm", "cost"),
    ("compiler",),
    ("models",),
    ("samplers",),
    ("policy",),
    ("store",),
    ("parallel",),
    ("memory",),
    ("engine",),
    ("train",),
    ("perf", "fuzz"),
    ("studio",),
    ("server",),
    ("cli",),
)
ROW_OF = {name: i for i, names in enumerate(ROWS) for name in names}
ONLY_CORE = {"client"}
# Benches compare with diffusers, in processes of their own; what is captured is built by it.
MAY_IMPORT_DIFFUSERS = ("perf/", "models/captured/")
MAX_LINES = 500
MAX_WEIGHTS = 15_000_000
MAX_TREE = 36 * 1024 * 1024


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SRC.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_imports_point_to_rows_above() -> None:
    wrong = []
    for path, tree in modules():
        package = path.relative_to(SRC).parts[0]
        if path.parent == SRC:
            continue
        assert package in ROW_OF, f"{package} has no row"
        for name in imported(tree):
            parts = name.split(".")
            if parts[0] != "musiva" or len(parts) < 2 or parts[1] not in ROW_OF:
                continue
            other = parts[1]
            allowed = other == package or ROW_OF[other] < ROW_OF[package]
            if package in ONLY_CORE:
                allowed = other in (package, "core")
            if not allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_running_code_never_imports_diffusers() -> None:
    wrong = [
        f"{path.relative_to(SRC)} imports {name}"
        for path, tree in modules()
        for name in imported(tree)
        if name.split(".")[0] in ("diffusers", "transformers")
        and not str(path.relative_to(SRC)).startswith(MAY_IMPORT_DIFFUSERS)
    ]
    assert not wrong


@pytest.mark.parametrize("code", ["import musiva", "import musiva.cli", "import musiva.core.types"])
def test_light_imports_leave_torch_alone(code: str) -> None:
    heavy = ("torch", "numpy", "diffusers", "transformers", "fastapi")
    script = f"import sys; {code}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_help_is_quick() -> None:
    command = [sys.executable, "-c", "from musiva.cli import main; main(['--help'])"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout
    # A smoke limit for busy machines; `musiva bench generate` has the figure.
    assert time.perf_counter() - start < 3


def test_packages_say_what_is_public() -> None:
    for path, tree in modules():
        if path.name != "__init__.py":
            continue
        names = [
            [element.value for element in node.value.elts]
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            and any(
                isinstance(t, ast.Name) and t.id == "__all__"
                for t in (node.targets if isinstance(node, ast.Assign) else [node.target])
            )
        ]
        where = path.relative_to(ROOT)
        assert len(names) == 1, f"{where} has no __all__"
        # As ruff sorts it: constants, classes, the rest.
        assert len(set(names[0])) == len(names[0]), f"{where} names something twice"


def test_files_are_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("src", "tests", "recipes")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > MAX_LINES
    }
    assert not long


def test_the_map_is_true() -> None:
    text = (ROOT / "docs" / "structure.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| \d+ \| `(\w+)`", text, flags=re.MULTILINE))
    there = {path.name for path in SRC.iterdir() if (path / "__init__.py").exists()}
    assert named == there


def test_links_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_the_tree_stays_small() -> None:
    skipped = {".git", ".venv", "data", "runs", ".hypothesis", ".pytest_cache", ".ruff_cache"}
    sizes = {}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if f not in skipped and f != "__pycache__"]
        sizes |= {
            path: path.stat().st_size for name in names if (path := Path(folder, name)).is_file()
        }
    assert sum(sizes.values()) < MAX_TREE
    assert not [p for p, n in sizes.items() if p.suffix == ".safetensors" and n > MAX_WEIGHTS]
