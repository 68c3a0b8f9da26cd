"""Programs in parts."""

from __future__ import annotations

from musiva.compiler.captured import capture
from musiva.compiler.segments import blocks_of, divide
from musiva.perf.catalog import ENTRIES, build, sized
from tests.compiler.test_captured import SEEN

ENTRY = next(entry for entry in ENTRIES if entry.name == "SD3Transformer2DModel")


def test_a_program_is_cut_at_its_blocks() -> None:
    module = build(ENTRY)
    captured = capture(module, ENTRY.arguments, [sized(ENTRY, one) for one in SEEN])
    blocks = blocks_of(module)
    parts = divide(captured.program, blocks)
    assert [part.site for part in parts] == ["", *blocks, ""]
    known = {variable for variable, _, _ in captured.program.inputs.values()}
    for part in parts:
        assert known.issuperset(part.reads), part.site
        own = {op.out for op in part.ops}
        assert set(part.kept) <= known | own
        known = set(part.kept)
        # What a part works with is its own, or was handed to it.
        for op in part.ops:
            assert {name for name in op.reads if "." not in name} <= own | set(part.reads), op
    assert all(part.main is not None for part in parts[:-1])
    assert {name for name, _, _ in captured.program.outputs} == known
