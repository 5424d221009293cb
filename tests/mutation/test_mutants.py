"""Which changes are made to a module, and which are not."""

from __future__ import annotations

import ast
import textwrap

import pytest

from tests.mutation import coverage_map
from tests.mutation.core import CORE, ROOT, modules
from tests.mutation.mutants import mutants_of
from tests.mutation.run import Order


def changed(source: str) -> set[str]:
    """The line of a function after each change that is made to it."""
    return {mutant.after for mutant in mutants_of("x.py", textwrap.dedent(source).encode())}


def of_line(line: str) -> set[str]:
    return changed(f"def f(a, b, c):\n    {line}\n")


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("if a < b: g()", {"if a <= b: g()", "if a >= b: g()", "if a < b: pass"}),
        ("if a == b: g()", {"if a != b: g()", "if a == b: pass"}),
        ("if a is not None: g()", {"if a is None: g()", "if a is not None: pass"}),
        ("if a not in b: g()", {"if a in b: g()", "if a not in b: pass"}),
        ("if not a: g()", {"if a: g()", "if not a: pass"}),
        ("if a: g()", {"if (not (a)): g()", "if a: pass"}),
        ("return a and b", {"return a or b", "return True and b", "return a and True"}),
        ("return a or b", {"return a and b", "return False or b", "return a or False"}),
        ("return a or 0", {"return a and 0", "return False or 0", "return a or 1"}),
        ("return a or ''", {"return a and ''", "return False or ''", "return a or 'XX'"}),
        ("return a or b''", {"return a and b''", "return False or b''", "return a or b'XX'"}),
        ("return a or 2", {"return a and 2", "return False or 2", "return a or False", "return a or 3"}),
        ("return a or None", {"return a and None", "return False or None", "return a or False"}),
        ("return a and 0", {"return a or 0", "return True and 0", "return a and True", "return a and 1"}),
        ("return a or ()", {"return a and ()", "return False or ()", "return a or False"}),
        ("return b if a else c", {"return b if (not (a)) else c", "return None"}),
        ("return a << b", {"return a >> b", "return None"}),
        ("return ~a", {"return a", "return None"}),
        ("return a - 7", {"return a + 7", "return a - 8", "return None"}),
        ("return True", {"return False", "return None"}),
        ("return None", set()),
        ("return", set()),
        ("a += b", {"a -= b", "pass"}),
        ("a.x = b", {"pass"}),
        ("a = b", {"pass"}),
        ("new = b", set()),
        ("raise ValueError(f'{a} is 3')", {"pass"}),
        ("return any(a)", {"return all(a)", "return None"}),
        ("return g(a, x=b, y=c)", {"return g(a, y=c)", "return g(a, x=b, )", "return None"}),
        (
            "return {1: a, 2: b}",
            {"return None", "return {2: a, 2: b}", "return {1: a, 3: b}", "return { 2: b}", "return {1: a, }"},
        ),
        ("return 'word'", {"return 'XXword'", "return None"}),
        ("return 'two words'", {"return None"}),
        ("return f'{a + 1}'", {"return None"}),
        ("return '$.banner'", {"return None"}),
        ("return '$'", {"return 'XX$'", "return None"}),
        ("return zip(a, b, strict=True)", {"return None"}),
        ("assert a < 3", set()),
        ("return (\n        a < b)", {"a <= b)", "a >= b)"}),
    ],
)
def test_changes_of_a_line(line, after):
    assert of_line(line) == after


def test_loops():
    source = """
        def f(a):
            for b in a:
                if b:
                    continue
                break
    """
    assert changed(source) == {"if (not (b)):", "pass"}
    assert len(mutants_of("x.py", textwrap.dedent(source).encode())) == 3


def test_what_stands_in_a_module_or_a_class():
    source = '''
        """Words."""
        TABLE = (Row("a", x), Row("b", y))
        Kind = Callable[[int], "str | None"]
        class Facts:
            """Words."""
            one: bool = False
            """Words."""
        def f(a: int = 3, *, b: "x | y" = None) -> int:
            """Words."""
    '''
    assert changed(source) == {
        'TABLE = ( Row("b", y))',
        'TABLE = (Row("a", x), )',
        "TABLE = (Row('XXa', x), Row(\"b\", y))",
        "TABLE = (Row(\"a\", x), Row('XXb', y))",
        "one: bool = True",
        'def f(a: int = 4, *, b: "x | y" = None) -> int:',
    }


def test_types_and_imports_are_left_alone():
    source = """
        from typing import TYPE_CHECKING, Protocol
        if TYPE_CHECKING:
            x = 1
        class Reads(Protocol):
            size: int = 1
    """
    assert not changed(source)


def test_what_would_be_no_code_is_left_out():
    source = """
        FIRST = (one, *more)
        class Facts:
            SECOND = (one, *more)
            def f(self):
                not self
                if self:
                    third = (one, *more)
                else:
                    pass
    """
    assert changed(source) == {"FIRST = (one, )", "SECOND = (one, )", "if (not (self)):"}


def test_names_do_not_move_with_lines():
    source = b"def f(a):\n    return a + 1 if a else a + 1\n"
    later = b"# more\n\n\n" + source
    one, other = mutants_of("x.py", source), mutants_of("x.py", later)
    assert [mutant.key for mutant in one] == [mutant.key for mutant in other]
    assert len({mutant.key for mutant in one}) == len(one)
    assert [mutant.lines.start + 3 for mutant in one] == [mutant.lines.start for mutant in other]


def test_letters_of_several_bytes():
    source = 'def f(a):\n    g("\N{MICRO SIGN}s", a + 1)\n'.encode()
    assert {mutant.after for mutant in mutants_of("x.py", source)} >= {'g("\N{MICRO SIGN}s", a - 1)'}


@pytest.mark.parametrize("part", CORE, ids=lambda part: part.patterns[0])
def test_mutants_of_the_core_are_other_code_on_the_same_lines(part):
    for path in modules(part):
        source = (ROOT / path).read_bytes()
        dumped = ast.dump(ast.parse(source))
        mutants = mutants_of(path, source)
        assert len({mutant.key for mutant in mutants}) == len(mutants)
        for mutant in mutants[:: max(len(mutants) // 3, 1)]:
            text = mutant.apply(source)
            assert text.count(b"\n") == source.count(b"\n")
            tree = ast.parse(text)
            assert ast.dump(tree) != dumped, (path, mutant.key)
            compile(tree, path, "exec")


def order_of(tests, mutant_at="function", tried=None):
    """The tests that are chosen, of these by name: (seconds, whether it runs the mutant's line); after those tried."""
    path = "hibercheck/kernel/code/rescue.py"
    source = b"LIMIT = 5\n\ndef asks(a):\n    return a > LIMIT\n"
    mutant = next(one for one in mutants_of(path, source) if bool(one.function) is (mutant_at == "function"))
    known = coverage_map.Map(
        {
            name: coverage_map.Test(seconds, {path: 1 << 4} if runs else {}, [])
            for name, (seconds, runs) in tests.items()
        },
        imported={path: 1 << 1 | 1 << 3},
    )
    order = Order(known, {path: [name.partition("::")[0] for name in tests]})
    return order.tests(mutant) if tried is None else order.others(mutant, tried)


OWN, TOLD, OTHER = (
    "tests/kernel/code/test_rescue.py",
    "tests/kernel/code/test_told.py",
    "tests/kernel/code/test_idle.py",
)


def test_a_mutant_is_tried_with_quick_tests_of_its_line_and_some_that_see_all():
    tests = {f"{OWN}::test_a": (0.1, True), f"{OTHER}::test_b": (0.1, True), f"{OTHER}::test_c": (0.1, False),
             f"{TOLD}::test_d": (1.5, True), f"{TOLD}::test_e": (1.9, True)}  # fmt: skip
    assert order_of(tests) == [f"{OWN}::test_a", f"{OTHER}::test_b", f"{TOLD}::test_d"]
    many = {f"{OTHER}::test_{n}": (0.5, True) for n in range(30)} | {f"{TOLD}::test_d": (1.5, True)}
    chosen = order_of(many)
    assert f"{TOLD}::test_d" in chosen
    assert sum(many[name][0] for name in chosen) <= 8


def test_a_table_is_tried_with_the_files_that_hold_it_and_with_what_sees_all():
    tests = {f"{OTHER}::test_{n}": (0.01, True) for n in range(20)}
    tests |= {f"{OWN}::test_{n}": (0.5, False) for n in range(20)} | {
        f"{TOLD}::test_{n}": (0.5, True) for n in range(9)
    }
    chosen = order_of(tests, "table")
    files = [name.partition("::")[0] for name in chosen]
    assert list(dict.fromkeys(files)) == [OWN, TOLD, OTHER]
    assert 3 <= files.count(OWN) < 8
    assert 3 <= files.count(TOLD) < 8


@pytest.mark.parametrize("mutant_at", ["function", "table"])
def test_a_survivor_is_tried_with_what_was_left_out(mutant_at):
    tests = {f"{OTHER}::test_{n}": (1.0, True) for n in range(60)} | {f"{OWN}::test_long": (30.0, True)}
    first = order_of(tests, mutant_at)
    later = order_of(tests, mutant_at, first)
    assert set(first).isdisjoint(later)
    assert 36 < sum(tests[name][0] for name in later) <= 40
    assert not order_of(tests, mutant_at, tests)
    # one that takes longer than all the time there is, is not for survivors
    assert order_of({f"{OTHER}::test_a": (41.0, True)}, mutant_at, ()) == []
