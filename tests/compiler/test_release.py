"""Rows that are let go behind the line that reads them last."""

from __future__ import annotations

from musiva.compiler.release import released

TEXT = '''"""A title."""

def block(s, c, at, run):
    a = s['image']
    table = a.mean()
    b = a + table
    def branch(given, pack, at=at):
        x = given + b
        y = x * 2
        z = (
            y + x
        )
        return z

    d = run.branch('site', branch, a, at)
    e = d + table
    return {'image': e}
'''
FREED = '''"""A title."""

def block(s, c, at, run):
    a = s['image']
    table = a.mean()
    b = a + table
    def branch(given, pack, at=at):
        x = given + b
        y = x * 2
        z = (
            y + x
        )
        del x, y
        return z

    d = run.branch('site', branch, a, at)
    del a, b
    e = d + table
    del d
    return {'image': e}
'''


def test_rows_are_let_go_behind_the_last_line_that_reads_them() -> None:
    assert released(TEXT, {"a", "b", "d", "e", "x", "y", "z"}) == FREED


def test_nothing_else_is_let_go() -> None:
    assert released(TEXT, ()) == TEXT
