"""What every experiment keeps to, checked on the folders found on disk.

An experiment is a folder of the repository with a train.py. Nothing here trains: the scripts
are read, asked for their --help, or a copy of their model.py is run.
"""

import ast
import builtins
import functools
import re
import runpy
import shlex
import shutil
import subprocess
import symtable
import sys
from pathlib import Path

import pytest
from conftest import EXPERIMENTS, ROOT

from common.table import markdown, read_results, table_lines

ROOMS = ("model.py", "dataset.py", "evaluate.py", "train.py", "predict.py")
SCRIPTS = [f"{name}/{script}" for name in EXPERIMENTS for script in ("train.py", "predict.py")]
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for name in EXPERIMENTS
    for path in (ROOT / name).rglob("*.py")
)
PROJECT = {
    "common",
    "data",
    "benchmarks",
    "tests",
    *EXPERIMENTS,
    *(p.stem for p in ROOT.glob("*.py")),
}
STATUS_WORDS = {
    "reproduced",
    "same trend",
    "beaten",
    "differs",
    "not tried",
}
NO_CLAIM = "\u2013"  # A dash: the post says nothing, so there is nothing to judge.

each_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS)
each_script = pytest.mark.parametrize("script", SCRIPTS)
each_module = pytest.mark.parametrize("module", MODULES)


def test_the_experiments_are_found():
    assert len(EXPERIMENTS) >= 2


# --- The scripts ---


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def functions(path):
    """The top-level functions of a module: {name: node}."""
    nodes = ast.parse(read(path)).body
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}


@each_experiment
def test_every_experiment_has_the_same_rooms(experiment):
    for room in ROOMS:
        assert (ROOT / experiment / room).is_file(), room


@each_script
def test_parse_args_and_main_can_be_called_without_a_command_line(script):
    for name in ("parse_args", "main"):
        signature = functions(script)[name].args
        assert [argument.arg for argument in signature.args] == ["argv"]
        assert [ast.literal_eval(default) for default in signature.defaults] == [None]


def docstring(path):
    return ast.get_docstring(ast.parse(read(path)), clean=False) or ""


@each_experiment
def test_docstrings_name_the_post_and_the_commands(experiment):
    assert re.search(r"https://kexue\.fm/archives/[0-9]+", docstring(f"{experiment}/train.py"))
    for script in (f"{experiment}/train.py", f"{experiment}/predict.py"):
        assert script in [words[1] for words in commands(docstring(script))]


SIMPLE_CALLS = {
    "Path",
    "getattr",
    "range",
    "tuple",
    "list",
    "dict",
    "set",
    "frozenset",
    "sorted",
    "len",
    "zip",
}
SIMPLE_METHODS = {"split", "join", "replace", "resolve", "compile", "encode"}


def statements_that_do_something(source):
    """The line numbers of what a module does on import, other than to define."""
    for node in ast.parse(source).body:
        allowed = isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        if isinstance(node, ast.Expr):
            allowed = isinstance(node.value, ast.Constant)
        elif isinstance(node, ast.If):
            allowed = ast.unparse(node.test) == "__name__ == '__main__'" and not node.orelse
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            calls = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)]
            allowed = all(
                func.id in SIMPLE_CALLS
                if isinstance(func, ast.Name)
                else isinstance(func, ast.Attribute) and func.attr in SIMPLE_METHODS
                for func in calls
            )
        if not allowed:
            yield node.lineno


@each_module
def test_a_module_only_defines(module):
    assert not list(statements_that_do_something(read(module)))


@each_script
def test_help_names_the_shared_flags_from_anywhere(script, tmp_path):
    run = [sys.executable, ROOT / script, "--help"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flags = ["--run-dir", "--json"]
    if script.endswith("train.py"):
        flags = ["--seed", "--run-dir", "--resume", "--smoke", "--preset", "--data"]
    for flag in flags:
        assert flag in done.stdout
    assert not list(tmp_path.iterdir())


# --- Copyable functions ---


def section(experiment, heading):
    """The text under a heading of the README."""
    _, _, rest = read(f"{experiment}/README.md").partition(f"\n## {heading}\n")
    return rest.partition("\n## ")[0]


def definitions(path):
    """The top-level functions and classes of a module: {name: node}."""
    nodes = ast.parse(read(path)).body
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name: node for node in nodes if isinstance(node, kinds)}


def source_of(path, name):
    """The text of a function or class, with its decorators."""
    node = definitions(path)[name]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(read(path).splitlines()[first - 1 : node.end_lineno])


def offered(experiment):
    """The names that the README offers to copy."""
    text = section(experiment, "Use it in your code")
    return re.findall(r"^\s*(?:[-*]|\|) *`(\w+)[(`]", text, re.MULTILINE)


def global_names(source):
    """The names that a pasted function takes from the file around it."""

    def visit(table):
        for symbol in table.get_symbols():
            module = table.get_type() == "module"
            outside = not symbol.is_assigned() if module else symbol.is_global()
            if outside and symbol.is_referenced():
                yield symbol.get_name()
        for child in table.get_children():
            yield from visit(child)

    return set(visit(symtable.symtable(source, "pasted", "exec"))) - set(dir(builtins))


def example_of(experiment):
    """The Python of the README's section, as one script."""
    text = section(experiment, "Use it in your code")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def copied_files(experiment):
    """The files of the folder that the example imports: model.py, and perhaps more."""
    modules = {name.split(".")[0] for name, _ in imports(example_of(experiment))}
    return sorted(name for name in modules if (ROOT / experiment / f"{name}.py").exists())


@each_experiment
def test_files_to_copy_import_keras_numpy_and_the_standard_library(experiment):
    assert "model" in copied_files(experiment)
    for name in copied_files(experiment):
        roots = {root.split(".")[0] for root, _ in imports(read(f"{experiment}/{name}.py"))}
        allowed = {"keras", "numpy", *sys.stdlib_module_names}
        if name == "augment":  # Rotating and resizing an image is Pillow's work.
            allowed.add("PIL")
        assert roots <= allowed, name


@each_experiment
def test_the_readme_offers_every_builder(experiment):
    names = {name for name in definitions(f"{experiment}/model.py") if name.startswith("build_")}
    assert names and names <= set(offered(experiment))


# Run before the example: it can import the copy of model.py, but nothing of this repository.
ALONE = """if True:
    import runpy, sys

    class Refused:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in %r:
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Refused())
    sys.path.insert(0, ".")
    runpy.run_path("example.py")
"""


@each_experiment
def test_the_example_of_the_readme_runs_beside_copies_of_these_files(experiment, tmp_path):
    example = example_of(experiment)
    called = {node.id for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Name)}
    assert set(offered(experiment)) <= called
    for name in copied_files(experiment):
        shutil.copy(ROOT / experiment / f"{name}.py", tmp_path)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    refused = sorted(PROJECT - set(copied_files(experiment)))
    run = [sys.executable, "-c", ALONE % refused]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_index_names_every_copyable_function_and_what_it_needs():
    row = r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| \[\w+\]\(([\w/]+\.py)\) \| \[\d+\]"
    rows = re.findall(row, read("SNIPPETS.md"), re.MULTILINE)
    assert len(rows) == read("SNIPPETS.md").count("\n| `")
    for name, needs, path in rows:
        expected = global_names(source_of(path, name)) - {name}
        assert set(re.findall(r"`(\w+)", needs)) == expected, (path, name)
    listed = {(path, name) for name, _, path in rows}
    assert len(listed) == len(rows)
    for experiment in EXPERIMENTS:
        paths = [f"{experiment}/{name}.py" for name in copied_files(experiment)]
        for name in offered(experiment):
            assert any((path, name) in listed for path in paths), name


# --- Commands ---


def commands(text):
    """The commands of a text, each a list of words: lines of their own and `inline code`."""
    text = text.replace("\\\n", " ")
    fenced = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(fenced).splitlines() + re.findall(r"^(?:    |python ).*", text, re.MULTILINE)
    lines += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    for line in dict.fromkeys(line.strip().removeprefix("$ ") for line in lines):
        if not re.match(r"(\w+=\S* )*(\S*/)?(python3? \S+\.py|make )", line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&<>()"):
                while words and re.match(r"\w+=", words[0]):
                    del words[0]
                if words and Path(words[0]).name in ("python", "python3", "make"):
                    yield words
                words = []
            else:
                words.append(word)


def documented_commands():
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md")]):
        for words in commands(path.read_text(encoding="utf-8")):
            yield path.relative_to(ROOT).as_posix(), words
    for path in sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.py")) + MODULES:
        for words in commands(docstring(path)):
            yield path, words


@functools.cache
def parser_of(script):
    return runpy.run_path(str(ROOT / script))["parse_args"]


def check_command(words):
    program, *words = words
    if program == "make":
        targets = re.findall(r"^([\w-]+) *:(?!=)", read("Makefile"), re.MULTILINE)
        wanted = [word for word in words if "=" not in word and not word.startswith("-")]
        assert wanted and set(wanted) <= set(targets)
        passed = [word[len("ARGS=") :] for word in words if word.startswith("ARGS=")]
        if "reproduce" in wanted and passed and passed != ["..."]:
            check_command(["python", "reproduce.py", *shlex.split(passed[0])])
        return
    script, *argv = words
    scripts = [script]
    if re.match("[A-Z]+/", script):  # EXPERIMENT/train.py stands for all of them.
        scripts = [f"{name}/{Path(script).name}" for name in EXPERIMENTS]
    for script in scripts:
        assert (ROOT / script).is_file(), f"there is no {script}"
        if script in (*SCRIPTS, "reproduce.py"):
            try:
                parser_of(script)(argv)
            except SystemExit as stop:
                assert stop.code in (0, None), f"{script} does not take {shlex.join(argv)}"


@pytest.mark.parametrize(
    ("document", "words"),
    [pytest.param(d, w, id=f"{d}: {shlex.join(w)}") for d, w in documented_commands()],
)
def test_every_documented_command_parses(document, words):
    check_command(words)


@pytest.mark.parametrize("script", [*SCRIPTS, "reproduce.py"])
def test_every_script_has_a_documented_command(script):
    assert any(words[1:2] == [script] for _, words in documented_commands())


# --- Results ---


@each_experiment
def test_the_readme_shows_the_records(experiment):
    table = markdown(table_lines(*read_results(experiment)))
    marked = re.findall(
        "<!-- results -->\n(.*?)\n<!-- /results -->", section(experiment, "Result"), re.DOTALL
    )
    assert marked == [table], f"run python -m common.table {experiment}"


@each_experiment
def test_the_records_are_whole_and_every_one_is_shown(experiment):
    records, claims = read_results(experiment)
    files = {path.name for path in (ROOT / experiment / "results").glob("*.json")}
    assert records and len(files) == len(records) + 1, "a file that is read as no record"
    shown = {(claim["row"], claim["metric"]) for claim in claims}
    for record in records:
        assert any((record["row"], metric) in shown for metric in record["metrics"])
        assert record["experiment"] == experiment
        assert re.fullmatch("[0-9a-f]{12}", record["commit"]) and not record["dirty"]
        assert not record["arguments"]["smoke"]
        assert record["command"].split()[:2] == ["python", f"{experiment}/train.py"]
        assert record["device"].strip() and record["seconds"] > 0
        assert {"keras", "numpy", record["backend"]} <= set(record["versions"])
        data = record["data"]
        assert data["name"]
        assert any(
            "sha256" in key or (isinstance(value, int) and value > 0) for key, value in data.items()
        )
        for metric in record["metrics"].values():
            assert metric["low"] <= metric["value"] <= metric["high"]


@each_experiment
def test_the_claims_use_the_fixed_status_words(experiment):
    _, claims = read_results(experiment)
    words = [claim["status"] for claim in claims if claim["post"] != NO_CLAIM]
    assert claims and set(words) <= STATUS_WORDS
    assert {claim["status"] for claim in claims if claim["post"] == NO_CLAIM} <= {NO_CLAIM}


@each_experiment
def test_the_seeds_of_one_row_differ_in_nothing_else(experiment):
    rows = {}
    for record in read_results(experiment)[0]:
        rows.setdefault(record["row"], []).append(record)
    for row, records in rows.items():
        assert len({record["seed"] for record in records}) == len(records), row
        for record in records:
            one, two = records[0]["arguments"], record["arguments"]
            # The table names each device and backend; the data are compared below.
            for name in (one.keys() & two.keys()) - {"seed", "backend"}:
                assert one[name] == two[name], (row, name)
            # Older records do not know the newest flags: those must be off.
            for name in (one.keys() ^ two.keys()) - {"backend", "data_sha256"}:
                assert not one.get(name) and not two.get(name), (row, name)
            one, two = (dict(x["data"]) for x in (records[0], record))
            if isinstance(one.get("left_out"), dict):  # {reason: count}; older ones know less.
                first, second = one.pop("left_out"), two.pop("left_out")
                assert all(first[x] == second[x] for x in first.keys() & second.keys()), row
            assert one == two, row


# --- Who imports whom ---


def imports(source, package=""):
    """(dotted name, whether at module level) of every import, those in functions too."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = [package if node.level else "", node.module or ""]
            origin = ".".join(part for part in parts if part)
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node in tree.body


def project_imports(path):
    names = [name for name, _ in imports(read(path), Path(path).parent.name)]
    return {name for name in names if name.split(".")[0] in PROJECT}


def is_in(name, *modules):
    return any(name == module or name.startswith(module + ".") for module in modules)


@each_module
def test_an_experiment_imports_itself_common_and_data(module):
    own = module.split("/")[0]
    for name in project_imports(module):
        assert is_in(name, own, "common", "data"), name
        assert not is_in(name, f"{own}.predict", f"{own}.train"), name


@each_experiment
def test_imports_go_one_way(experiment):
    """model <- dataset <- evaluate <- train, predict."""
    order = ("model", "dataset", "evaluate")
    for i, room in enumerate(order):
        later = [f"{experiment}.{name}" for name in order[i + 1 :]]
        for name in project_imports(f"{experiment}/{room}.py"):
            assert not is_in(name, *later), (room, name)
    assert not project_imports(f"{experiment}/model.py")


@each_experiment
def test_no_module_imports_a_backend_when_it_is_imported(experiment):
    for module in MODULES:
        top = [name for name, at_module_level in imports(read(module)) if at_module_level]
        assert not [name for name in top if is_in(name, "tensorflow", "jax", "torch")], module


@pytest.mark.parametrize(
    "path", sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("common/*.py"))
)
def test_common_knows_no_experiment_and_no_model(path):
    assert all(is_in(name, "common") for name in project_imports(path))
    source = read(path)
    names = {name for name, _ in imports(source)}
    names |= {ast.unparse(x) for x in ast.walk(ast.parse(source)) if isinstance(x, ast.Attribute)}
    taught = [f"keras.{part}" for part in ("layers", "losses", "metrics", "models", "Model")]
    assert not [name for name in names if is_in(name, "layers", *taught)]


@pytest.mark.parametrize(
    "path", sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("data/*.py"))
)
def test_data_knows_no_experiment_and_no_keras(path):
    names = {name for name, _ in imports(read(path))}
    modules = ("keras", "tensorflow", "common.run", "common.batches", "common.checkpoint")
    assert not [name for name in names if is_in(name, *modules)]
    assert all(is_in(name, "common", "data") for name in project_imports(path))


@pytest.mark.parametrize("path", sorted(p.name for p in ROOT.glob("*.py")))
def test_the_main_job_runs_experiments_and_imports_none(path):
    assert not [name for name in project_imports(path) if is_in(name, *EXPERIMENTS)]


# --- What is nowhere in the project ---


@functools.cache
def project_files():
    """The files that git tracks or would track: {path: text}; pictures are left out."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for path in filter(None, listed.split("\0")):
        try:
            texts[path] = read(path)
        except (UnicodeDecodeError, FileNotFoundError):  # A picture; a file just deleted.
            continue
    return texts


def unsafe_code(source):
    """What would run code out of a file: pickle, Lambda layers, safe_mode off."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Lambda":
            yield f"line {node.lineno}: Lambda"
        if isinstance(node, ast.keyword):
            word = f"{node.arg}={ast.unparse(node.value)}"
            unsafe_pickle = node.arg == "allow_pickle" and word != "allow_pickle=False"
            if unsafe_pickle or word == "safe_mode=False":
                yield f"line {node.value.lineno}: {word}"
    for name, _ in imports(source):
        if is_in(name, "pickle", "dill", "joblib", "shelve"):
            yield f"imports {name}"


def test_no_file_can_run_code_when_it_is_loaded():
    sources = {path: text for path, text in project_files().items() if path.endswith(".py")}
    assert "common/run.py" in sources
    del sources["tests/test_hostile.py"]  # Which makes such files, to have them refused.
    found = {path: list(unsafe_code(text)) for path, text in sources.items()}
    assert not {path: places for path, places in found.items() if places}


MACHINE_PATH = re.compile(r"(?<![\w.}\])*~$-])/(?:home|root|Users|Volumes|mnt|work)/\w+")


def test_no_file_names_a_folder_of_one_machine():
    found = {path: MACHINE_PATH.findall(text) for path, text in project_files().items()}
    assert found and not {path: places for path, places in found.items() if places}


# --- The checks themselves, on made-up code ---


def test_the_check_of_module_level_sees_what_is_done_on_import():
    source = (
        '"""Text."""\nimport os\nA: int = 2\nB = Path(A).parent / "x"\n'
        'if __name__ == "__main__":\n    f()\n'
    )
    assert not list(statements_that_do_something(source))
    bad = "print()\nX = load()\nfor i in A:\n    pass\nif A:\n    pass\nmodel = keras.Model()\n"
    assert list(statements_that_do_something(bad)) == [1, 2, 3, 5, 7]


def test_the_check_of_copied_functions_sees_every_foreign_name():
    source = (
        "@decorated\ndef f(x, size=SIZE):\n    y = [UNITS * ops.abs(i) for i in x]\n"
        "    def g():\n        return helper(y, len(x))\n    return g, keras\n"
    )
    assert global_names(source) == {"decorated", "SIZE", "UNITS", "ops", "helper", "keras"}


def test_the_check_of_commands_sees_them_wherever_they_stand():
    text = (
        "Text that says make or python toy/train.py is no command; `make test` is one.\n"
        "make no command of this, either.\npython toy/predict.py 'a b.png'\n\n"
        "    $ python toy/train.py --seed 1   # don't wait\n\n"
        "```sh\nKERAS_BACKEND=jax .venv/bin/python toy/train.py \\\n  --smoke > log\n"
        "make reproduce ARGS='--only toy' && make bench\nls\n```\n"
    )
    assert sorted(commands(text)) == [
        [".venv/bin/python", "toy/train.py", "--smoke"],
        ["make", "bench"],
        ["make", "reproduce", "ARGS=--only toy"],
        ["make", "test"],
        ["python", "toy/predict.py", "a b.png"],
        ["python", "toy/train.py", "--seed", "1"],
    ]


@pytest.mark.parametrize(
    "words", [["make", "nothing"], ["python", "toy/train.py"], ["python", "reproduce.py", "--typo"]]
)
def test_the_check_of_commands_refuses_what_does_not_run(words):
    with pytest.raises(AssertionError):
        check_command(words)


def test_the_check_of_unsafe_code_sees_each_kind():
    source = (
        "import pickle\nlayers.Lambda(f)\nload(x, safe_mode=False)\nnp.load(x, allow_pickle=True)"
    )
    assert len(list(unsafe_code(source))) == 4
    assert not list(unsafe_code("LambdaCallback(f)\nnp.load(x, allow_pickle=False)"))
