"""Makes mutants of a module: one small change to its source each, that a test ought to notice.

A change is made to the text, at a place that the syntax tree names, so that all other lines stay where they are.  What
only words, types or documentation would notice is left alone: docstrings, f-strings, strings with blanks, places in a
document that messages name, what is raised with which message, annotations, decorators, asserts.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeGuard

COMPARISONS = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.Mod: ("%", "//"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}
CALLS = {"any": "all", "all": "any", "min": "max", "max": "min"}
LEFT_ALONE = {"advice", "reason", "message", "help", "doc", "strict"}
"""Arguments that are words for a reader, or say again what always holds."""


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        path: The module, relative to the repository.
        scope: Qualified name of the function or class that it is in; empty at the level of the module.
        function: Whether the change is within the body of a function, so that exchanging its code is enough.
        lines: Those of the statement that it is in, without the statements within; from 1.
        within: The first line and the one after the last of the outermost function that it is in, from 0.
        before, after: The changed lines, blanks collapsed, before and after.
        number: Counts changes that are alike in all this, from 1.
        start, end, text: Which bytes of the source become which.
    """

    path: str
    scope: str
    function: bool
    lines: range
    within: tuple[int, int]
    before: str
    after: str
    number: int
    start: int
    end: int
    text: str

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What it is called for good: nothing in it moves when lines above do."""
        return self.scope, self.before, self.after, self.number

    def apply(self, source: bytes) -> bytes:
        """The module with this change."""
        return source[: self.start] + self.text.encode() + source[self.end :]


@dataclass(frozen=True)
class Change:
    start: int
    end: int
    text: str


class _Source:
    def __init__(self, source: bytes) -> None:
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def start(self, node: ast.AST) -> int:
        return self.at(node.lineno, node.col_offset)

    def end(self, node: ast.AST) -> int:
        return self.at(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.AST) -> str:
        return self.source[self.start(node) : self.end(node)].decode()

    def token(self, left: ast.AST, right: ast.AST, token: str) -> tuple[int, int]:
        """Where an operator stands between two operands."""
        start = self.end(left)
        between = self.source[start : self.start(right)].decode()
        pattern = r"\s+".join(re.escape(part) for part in token.split())
        if token[0].isalpha():
            pattern = rf"\b{pattern}\b"
        found = re.search(pattern, between)
        assert found, f"{token} is not in {between!r}"
        return start + len(between[: found.start()].encode()), start + len(between[: found.end()].encode())

    @cached_property
    def lines(self) -> list[str]:
        return self.source.decode().splitlines()


class _Finder(ast.NodeVisitor):
    """Finds all changes, with the function or class that each is in."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.scope: list[str] = []
        self.functions = 0
        self.names: list[set[str]] = [set()]
        self.lines = range(0)
        self.within = (0, 0)
        self.found: list[tuple[Change, str, bool, range, tuple[int, int]]] = []

    def add(self, start: int, end: int, text: str) -> None:
        change = Change(start, end, text)
        self.found.append((change, ".".join(self.scope), self.functions > 0, self.lines, self.within))

    def visit(self, node: ast.AST) -> None:
        before = self.lines
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            within = getattr(node, "body", None)
            last = max(node.lineno, within[0].lineno - 1) if within else node.end_lineno
            self.lines = range(node.lineno, last + 1)
        super().visit(node)
        self.lines = before

    def instead(self, node: ast.AST, text: str) -> None:
        """Put a text in the place of a node, with as many lines."""
        start, end = self.source.start(node), self.source.end(node)
        missing = self.source.source[start:end].count(b"\n") - text.count("\n")
        self.add(start, end, text + "\n" * missing)

    # -- where nothing is to be changed ----------------------------------------------------------------------------

    def body(self, statements: list[ast.stmt]) -> None:
        for number, statement in enumerate(statements):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a docstring, or one of an attribute
            if number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.JoinedStr):
                continue
            self.visit(statement)

    def visit_Module(self, node: ast.Module) -> None:
        self.body(node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.scope.append(node.name)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        if not self.functions:
            self.within = (node.lineno - 1, node.end_lineno)
        self.functions += 1
        every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        self.names.append({argument.arg for argument in every})
        self.body(node.body)
        self.names.pop()
        self.functions -= 1
        self.scope.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases):
            return
        self.scope.append(node.name)
        self.body(node.body)
        self.scope.pop()

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """What a message says."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """What always holds cannot be tested."""

    def visit_Import(self, node: ast.Import) -> None:
        """Nothing to change."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Nothing to change."""

    def visit_Raise(self, node: ast.Raise) -> None:
        self.instead(node, "pass")

    # -- statements ------------------------------------------------------------------------------------------------

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            self.body(node.orelse)
            return
        self.negate(node.test)
        self.visit(node.test)
        self.body(node.body)
        self.body(node.orelse)

    def visit_While(self, node: ast.While) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.negate(test)
        self.generic_visit(node)

    def negate(self, test: ast.expr) -> None:
        """Exchange what follows if it holds and if not; a lone comparison or ``not`` is negated elsewhere."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return
        if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
            self.instead(test, f"(not ({self.source.text(test)}))")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call | ast.Await):
            self.remove(node)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.remove(node)
        kind = type(node.op)
        if kind in ARITHMETIC:
            token, other = ARITHMETIC[kind]
            start, _ = self.source.token(node.target, node.value, f"{token}=")
            self.add(start, start + len(token), other)
        self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)}
        if "__all__" in names or self.is_type(node.value):
            return
        elsewhere = any(not isinstance(target, ast.Name | ast.Tuple) for target in node.targets)
        if self.functions and (elsewhere or names <= self.names[-1]):
            self.remove(node)
        self.names[-1] |= names
        if not isinstance(node.targets[0], ast.Tuple):
            self.table(node.value)
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is None:
            return
        if self.functions and not isinstance(node.target, ast.Name):
            self.remove(node)
        if isinstance(node.target, ast.Name):
            self.names[-1].add(node.target.id)
        self.table(node.value)
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self.remove(node)

    def visit_Break(self, node: ast.Break) -> None:
        self.instead(node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        self.instead(node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        self.give_back(node.value)

    def visit_Yield(self, node: ast.Yield) -> None:
        self.give_back(node.value)

    def give_back(self, value: ast.expr | None) -> None:
        if value is None:
            return
        says_no = isinstance(value, ast.Compare | ast.BoolOp) or (
            isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
        )
        if not says_no and not (isinstance(value, ast.Constant) and value.value in (None, False)):
            self.instead(value, "None")
        self.visit(value)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if isinstance(node.type, ast.Tuple):
            self.leave_out(node.type.elts)
        self.body(node.body)

    def remove(self, node: ast.stmt) -> None:
        self.instead(node, "pass")

    def table(self, value: ast.expr) -> None:
        """A table that stands in a module or a class: leave out its rows."""
        if not self.functions and isinstance(value, ast.Tuple | ast.List) and len(value.elts) > 1:
            self.leave_out(value.elts)

    def is_type(self, value: ast.expr) -> bool:
        """Whether an assignment at the level of a module declares a type."""
        if self.functions:
            return False
        if isinstance(value, ast.BinOp):
            return self.is_type(value.left)
        if isinstance(value, ast.Call):
            return isinstance(value.func, ast.Name) and value.func.id in {"TypeVar", "NewType", "ParamSpec"}
        return isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name) and value.value.id[:1].isupper()

    # -- expressions -----------------------------------------------------------------------------------------------

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = (node.left, *node.comparators)
        for number, kind in enumerate(node.ops):
            token, others = COMPARISONS[type(kind)]
            start, end = self.source.token(operands[number], operands[number + 1], token)
            for other in others:
                self.add(start, end, other)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        token, other, neutral = ("and", "or", "True") if isinstance(node.op, ast.And) else ("or", "and", "False")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.add(*self.source.token(left, right, token), other)
        for value in node.values:
            # the 0 of `x or 0` is as false as False: whether it is the right constant, another constant asks
            if not (_is_changed_as_constant(value) and bool(value.value) is (neutral == "True")):
                self.instead(value, neutral)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if not (isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)):
            length = 3 if isinstance(node.op, ast.Not) else 1
            start = self.source.start(node)
            self.add(start, start + length, "")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        kind = type(node.op)
        if kind in ARITHMETIC and not (kind is ast.Mod and isinstance(node.left, ast.Constant | ast.JoinedStr)):
            token, other = ARITHMETIC[kind]
            self.add(*self.source.token(node.left, node.right, token), other)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.instead(node, str(not value))
        elif isinstance(value, int | float):
            self.instead(node, str(value + 1))
        elif isinstance(value, str) and not _is_wording(value):
            self.instead(node, repr("XX" + value))
        elif isinstance(value, bytes):
            self.instead(node, repr(b"XX" + value))

    def visit_Set(self, node: ast.Set) -> None:
        if len(node.elts) > 1:
            self.leave_out(node.elts)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None and len(node.keys) > 1:
                self.cut(self.source.start(key), self.source.end(value))
        self.generic_visit(node)

    def leave_out(self, elements: list[ast.expr]) -> None:
        for element in elements:
            self.cut(self.source.start(element), self.source.end(element))

    def cut(self, start: int, end: int) -> None:
        """Remove an item of a list, with the comma after it."""
        comma = re.match(rb"\s*,", self.source.source[end:])
        end += comma.end() if comma else 0
        self.add(start, end, "\n" * self.source.source[start:end].count(b"\n"))

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in CALLS:
            self.instead(node.func, CALLS[node.func.id])
        self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg in LEFT_ALONE:
                continue
            if keyword.arg is not None and not isinstance(keyword.value, ast.Constant):
                self.cut(self.source.start(keyword), self.source.end(keyword))
            self.visit(keyword.value)


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """Make all mutants of a module.

    Args:
        path: Its path, relative to the repository.
        source: Its text.

    Returns:
        Those that compile, in the order of the source, each once.
    """
    text = _Source(source)
    finder = _Finder(text)
    tree = ast.parse(source)
    finder.visit(tree)
    units = _units(text, tree)
    seen: Counter[tuple[str, str, str]] = Counter()
    places: set[tuple[int, int, str]] = set()
    result = []
    for change, scope, function, lines, within in finder.found:
        place = (change.start, change.end, change.text)
        if place in places:
            continue
        places.add(place)
        line, end_line = (bisect_right(text.starts, offset) for offset in (change.start, change.end))
        mutant = Mutant(path, scope, function, lines, within, "", "", 1, *place)
        if not _parses(text, units, change):
            continue
        before = _collapse(text.lines[line - 1 : end_line])
        start, end = text.starts[line - 1], text.starts[end_line]
        after = _collapse([(source[start : change.start] + change.text.encode() + source[change.end : end]).decode()])
        if before == after:
            continue
        seen[scope, before, after] += 1
        result.append(replace(mutant, before=before, after=after, number=seen[scope, before, after]))
    return result


def _units(text: _Source, tree: ast.Module) -> list[tuple[int, int, int]]:
    """Where the statements are that stand in the module, in a class or in a function: start, end, column.

    One in which another is comes before it.
    """
    return sorted(
        (text.start(statement), -text.end(statement), statement.col_offset)
        for holder in ast.walk(tree)
        if isinstance(holder, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in holder.body
    )


def _parses(source: _Source, units: list[tuple[int, int, int]], change: Change) -> bool:
    """Whether the statement that a change is in still is one.

    Only the innermost is parsed, or a class of a thousand lines would be for each of its changes.  What stands indented
    is put behind another statement, so that it must be indented as that is.
    """
    around = reversed(units[: bisect_right(units, change.start, key=lambda unit: unit[0])])
    start, end, column = next((start, -end, column) for start, end, column in around if change.end <= -end)
    text = source.source[start : change.start] + change.text.encode() + source.source[change.end : end]
    if column:
        text = b"if 1:\n%b0\n%b%b" % (b" " * column, b" " * column, text)
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _is_wording(text: str) -> bool:
    """Whether a text is words for a reader: it has blanks, or is a place in a document, as in ``$.banner``."""
    return bool(re.search(r"\s", text)) or text.startswith("$.")


def _is_changed_as_constant(node: ast.expr) -> TypeGuard[ast.Constant]:
    """Whether another change puts another constant in its place."""
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
        return False
    return isinstance(node.value, int | float | bytes) or (isinstance(node.value, str) and not _is_wording(node.value))


def _collapse(lines: list[str]) -> str:
    return re.sub(r"\s+", " ", " ".join(lines)).strip()
