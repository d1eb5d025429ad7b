"""The code is written to be read: no expression that has to be worked out, and main is a story.

All checks look at the syntax tree of every Python file of the project but the tests.
"""

import ast
import subprocess

import pytest
from conftest import EXPERIMENTS, ROOT

LONGEST_MAIN = 60  # Statements.
MOST_CONDITIONAL_EXPRESSIONS = 16  # In 1,000 lines that are not blank, as in nanoGPT.
MOST_MERGED_DICTIONARIES = 3  # In 1,000 lines that are not blank.


def source_files():
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / line for line in listed.splitlines() if not line.startswith("tests/")]
    return sorted(path for path in paths if path.exists())


FILES = source_files()
each_file = pytest.mark.parametrize(
    "path", FILES, ids=[path.relative_to(ROOT).as_posix() for path in FILES]
)


def is_text(node):
    if isinstance(node, ast.JoinedStr):
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def is_condition(node):
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "bool"
    return isinstance(node, ast.Compare | ast.BoolOp)


def text_times_condition(node):
    """`"s" * (n > 1)`, or a list times a condition. Repeating a text by its width is no riddle."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult):
        return False
    for one, other in ((node.left, node.right), (node.right, node.left)):
        if is_text(one) and is_condition(other):
            return True
        if isinstance(one, ast.List | ast.Tuple) and is_condition(other):
            return True
    return False


def nested_conditional_expression(node):
    if not isinstance(node, ast.IfExp):
        return False
    parts = (node.test, node.body, node.orelse)
    return any(isinstance(inner, ast.IfExp) for part in parts for inner in ast.walk(part))


def starred_tuple_in_call(node):
    if not isinstance(node, ast.Call):
        return False
    starred = [argument.value for argument in node.args if isinstance(argument, ast.Starred)]
    return any(isinstance(value, ast.Tuple | ast.List) for value in starred)


def function_that_returns_a_class(node):
    if not isinstance(node, ast.FunctionDef):
        return False
    classes = {inner.name for inner in ast.walk(node) if isinstance(inner, ast.ClassDef)}
    returned = {
        inner.value.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Name)
    }
    return bool(classes & returned)


def proxy_module(node):
    """A class of modules, or a module-level __getattr__, that hides where a name comes from."""
    if isinstance(node, ast.ClassDef):
        return any(ast.unparse(base).endswith("ModuleType") for base in node.bases)
    return False


RIDDLES = (
    text_times_condition,
    nested_conditional_expression,
    starred_tuple_in_call,
    function_that_returns_a_class,
    proxy_module,
)


def riddles(source):
    """The lines that hold what nobody should have to work out."""
    for node in ast.walk(ast.parse(source)):
        for check in RIDDLES:
            if check(node):
                yield f"line {node.lineno}: {check.__name__.replace('_', ' ')}"


@each_file
def test_no_expression_is_a_riddle(path):
    assert list(riddles(path.read_text(encoding="utf-8"))) == []


def count_lines(sources):
    return sum(bool(line.strip()) for source in sources for line in source.splitlines())


def merged_dictionaries(tree):
    """`a | {...}` and `a |= {...}`."""
    for node in ast.walk(tree):
        operands = ()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            operands = (node.left, node.right)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitOr):
            operands = (node.value,)
        if any(isinstance(operand, ast.Dict) for operand in operands):
            yield node


def test_conditional_expressions_and_merged_dictionaries_are_rare():
    sources = [path.read_text(encoding="utf-8") for path in FILES]
    trees = [ast.parse(source) for source in sources]
    thousands = count_lines(sources) / 1000
    conditional = sum(isinstance(n, ast.IfExp) for tree in trees for n in ast.walk(tree))
    merged = sum(len(list(merged_dictionaries(tree))) for tree in trees)
    assert thousands > 1
    assert conditional / thousands <= MOST_CONDITIONAL_EXPRESSIONS
    assert merged / thousands <= MOST_MERGED_DICTIONARIES


def count_statements(function):
    return sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_main_tells_a_story(experiment):
    tree = ast.parse((ROOT / experiment / "train.py").read_text(encoding="utf-8"))
    [main] = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main"]
    assert 5 < count_statements(main) <= LONGEST_MAIN


# --- The checks themselves, on made-up code ---
@pytest.mark.parametrize(
    "source",
    [
        "x = ', smoke' * (n > 1)",
        "x = (not n) * f'{n}s'",
        "x = [1] * (n == 2)",
        "x = 1 if a else 2 if b else 3",
        "x = (1 if a else 2) if b else 3",
        "f(*(a, b, c))",
        "def f():\n    class Loss:\n        pass\n    return Loss",
        "class Lazy(types.ModuleType):\n    pass",
    ],
)
def test_each_kind_of_riddle_is_seen(source):
    assert len(list(riddles(source))) == 1


def test_plain_code_is_no_riddle():
    plain = "x = '-' * width\ny = 1 if a else 2\nf(*args)\nz = 0.5 * (n > 1)\n"
    assert list(riddles(plain)) == []
    tree = ast.parse("a = b | {'x': 1}\na |= {'y': 2}\nc = d | e\nd |= e")
    assert len(list(merged_dictionaries(tree))) == 2
