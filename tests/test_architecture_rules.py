"""The rules of the house that a reader of one file cannot see: docs/architecture.md."""

import ast
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("spaces", "searchers", "cluster", "nasray")  # a room imports itself and the rooms before it
FILES = [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
each_file = pytest.mark.parametrize("path", FILES, ids=str)

# Functions of numpy.random that make or name a generator instead of using the global one.
GENERATORS = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox", "RandomState"}


# Where text, JSON and YAML from outside is read, and JSON is written; spaces/ imports none of them.
GATES = ("cluster/files.py", "cluster/reading.py", "spaces/architecture.py", "spaces/testing.py")
WRITERS = {"json.dump", "json.dumps", "yaml.dump", "yaml.safe_dump"}
READERS = {"json.load", "json.loads", "yaml.load", "yaml.safe_load", "read_text"}
# What is not moved to the gates yet: strike out what is.
UNGATED = {
    "cluster/job.py": {"json.loads", "read_text"},  # its own file, on a cluster that may have no nasray
    "cluster/board.py": {"json.loads", "read_text"},  # its own processes' files; what is torn is skipped
    "nasray/latency/setting.py": {"read_text"},  # /proc/cpuinfo
}

MAX_LINES = 400
MAX_UNTESTED_LINES = 100  # of a module without a test of its own name
# Modules that are tested by name elsewhere: where the whole is that they are a piece of.
TESTED_ELSEWHERE = {
    "cluster/board.py": "tests/cluster/test_training.py",
    "cluster/records.py": "tests/nasray/test_damaged_files.py",
    "cluster/resources.py": "tests/cluster/test_session.py",
    "nasray/cli/common.py": "tests/nasray/cli/test_results.py",
    "nasray/cli/parsing.py": "tests/test_bad_inputs.py",
    "nasray/configuration.py": "tests/nasray/test_overrides.py",
    "nasray/data/formats/coco_images.py": "tests/nasray/data/formats/test_coco.py",
    "nasray/data/formats/coco_table.py": "tests/nasray/data/formats/test_coco.py",
    "nasray/data/formats/datafile.py": "tests/nasray/data/test_source.py",
    "nasray/data/formats/huggingface_columns.py": "tests/nasray/data/formats/test_huggingface.py",
    "nasray/data/formats/readers.py": "tests/nasray/data/test_source.py",
    "nasray/data/formats/rows.py": "tests/nasray/data/formats/test_yolo.py",
    "nasray/data/formats/yolo_labels.py": "tests/nasray/data/formats/test_yolo.py",
    "nasray/data/work.py": "tests/nasray/data/test_loader.py",
    "nasray/evaluation/__init__.py": "tests/nasray/evaluation/test_predictions.py",
    "nasray/export_check.py": "tests/nasray/test_detector_export.py",
    "nasray/models/detectors/base.py": "tests/nasray/models/detectors/test_conformance.py",
    "nasray/models/supernets/base.py": "tests/nasray/models/supernets/test_testing.py",
    "nasray/recipe_options.py": "tests/nasray/test_recipe.py",
    "nasray/scores/borders.py": "tests/nasray/scores/test_entropy.py",
    "nasray/stages/base.py": "tests/nasray/stages/test_run.py",
    "nasray/tracing.py": "tests/nasray/test_detector_export.py",
    "nasray/training/recording.py": "tests/nasray/training/test_loop.py",
    "nasray/training/watch.py": "tests/nasray/training/test_loop.py",
    "searchers/newcomers.py": "tests/searchers/test_breeding.py",
    "searchers/testing.py": "tests/searchers/test_conformance.py",
    "spaces/staged_layers.py": "tests/spaces/test_staged.py",
    "spaces/testing.py": "tests/spaces/test_conformance.py",
}
# Tests of what no single module has.
CROSS_CUTTING = {
    "tests/cluster/test_nodes.py": "a node is lost during a search or a training",
    "tests/nasray/architectures/test_entry_points.py": "architectures of another package",
    "tests/nasray/models/detectors/test_conformance.py": "what holds for every detector",
    "tests/nasray/scores/test_proxies.py": "what holds for every score by a forward pass",
    "tests/nasray/test_damaged_files.py": "damaged files of runs and trainings",
    "tests/nasray/test_goldens.py": "histories from run to run",
    "tests/nasray/test_processors.py": "searches on other processors",
    "tests/nasray/training/test_data_layouts.py": "the same training from every layout of data",
    "tests/nasray/training/test_devices.py": "trainings on CPU and GPU",
    "tests/nasray/training/test_workers.py": "trainings of several workers",
    "tests/searchers/test_conformance.py": "what holds for every searcher",
    "tests/searchers/test_landscapes.py": "how good searchers are",
    "tests/spaces/test_conformance.py": "what holds for every space",
}


def tree_of(path):
    return ast.parse((ROOT / path).read_text(), filename=str(path))


def imported_modules(path):
    """Full names of all modules (and of the names imported from them), wherever in the file they are imported."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} relative import; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    """The room of a module of ours, by its imported name; None for others."""
    first, second = [*module.split("."), ""][:2]
    if first != "nasray":
        return None
    return second if second in ROOMS[:-1] else "nasray"


def dotted(node):
    """The dotted name of an expression such as `np.random.rand`, or an empty string."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def modules_of_files():
    """Full names of all modules, and their files."""
    names = {}
    for path in FILES:
        parts = path.with_suffix("").parts
        parts = parts[1:] if parts[0] == "nasray" else parts
        names[".".join(("nasray", *parts)).removesuffix(".__init__")] = path
    return names


def imports_at_run_time(path):
    """As `imported_modules`, without those for types alone."""
    tree = tree_of(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_circles_of_imports():
    """Wherever in a file they are imported: what is asked for late may be far from what asks, but is no way back up.

    Within nasray/ what is imported for types alone counts too: what is handed down says what it takes from above.
    """
    files = modules_of_files()
    graph = {name: set() for name in files}
    for name, path in files.items():
        for target in (imported_modules if path.parts[0] == "nasray" else imports_at_run_time)(path):
            module = target if target in files else target.rpartition(".")[0]
            graph[name] |= {module} & files.keys() - {name}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
    assert len(order) == len(files) > 100


def test_there_are_files():
    assert len(FILES) > 20


@each_file
def test_imports_only_go_down(path):
    allowed = ROOMS[: ROOMS.index(path.parts[0]) + 1]
    above = [module for module in imported_modules(path) if room_of(module) not in (None, *allowed)]
    assert not above, f"{path} is in {path.parts[0]}/ and imports {', '.join(above)}"


@each_file
def test_rooms_are_imported_by_their_full_names(path):
    bare = [module for module in imported_modules(path) if module.split(".")[0] in ROOMS[:-1]]
    assert not bare, f"{path} imports {', '.join(bare)}; write nasray.{bare[0]}"


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "cluster"], ids=str)
def test_cluster_names_no_detector_and_no_score(path):
    # Imports of any kind are covered above; this finds names in strings, such as those of importlib.
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for name in ("nasray.models", "nasray.scores", "nasray.evaluators", "torchvision"):
                assert name not in node.value, f"{path}:{node.lineno} names {name}"
        names = [getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "name", "")]
        assert not any("detector" in str(name).lower() for name in names), f"{path}:{node.lineno} names a detector"


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "testing.py"], ids=str)
def test_no_random_state_of_modules(path):
    assert not {"random"} & set(imported_modules(path)), f"{path} imports random; take a numpy.random.Generator"
    tree = tree_of(path)
    forked = set()  # what stands inside `with torch.random.fork_rng(...)` may seed: torch gives layers no generator
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and any(
            isinstance(item.context_expr, ast.Call) and dotted(item.context_expr.func).endswith("fork_rng")
            for item in node.items
        ):
            forked.update(ast.walk(node))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or node in forked:
            continue
        name = dotted(node.func)
        for prefix in ("np.random.", "numpy.random."):
            function = name.removeprefix(prefix)
            assert function == name or function in GENERATORS, f"{path}:{node.lineno} calls {name}"
        assert name not in ("torch.manual_seed", "torch.seed"), f"{path}:{node.lineno} calls {name}"
        if name in ("torch.rand", "torch.randn", "torch.randint", "torch.randperm"):
            keywords = {keyword.arg for keyword in node.keywords}
            assert "generator" in keywords, f"{path}:{node.lineno} calls {name} without a generator"
        assert name != "hash", f"{path}:{node.lineno} calls hash(), which differs between processes"


def ungated_calls(path):
    """What reads or writes text, JSON and YAML in a file by itself."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            name = dotted(node)
            yield from {name, node.attr} & (WRITERS | READERS)
        elif isinstance(node, ast.ImportFrom) and node.module in ("json", "yaml"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", [path for path in FILES if path.as_posix() not in GATES], ids=str)
def test_one_gate_reads_text_and_one_function_writes_json(path):
    found, allowed = set(ungated_calls(path)), UNGATED.get(path.as_posix(), set())
    assert not found - allowed, (
        f"{path} calls {', '.join(sorted(found - allowed))}; see nasray.cluster.reading, to_json"
    )
    assert not allowed - found, f"strike {path}: {', '.join(sorted(allowed - found))} from UNGATED"


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "testing.py"], ids=str)
def test_nothing_is_unpickled(path):
    """Pickles run code. Ray Tune reads its own, where `nasray.cluster.tune_folder` allows it."""
    unsafe = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib"}
    assert not {name.rpartition(".")[2] for name in imported_modules(path)} & unsafe
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and dotted(node.func) in ("torch.load", "np.load", "numpy.load"):
            values = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            assert values.get("weights_only") is True or values.get("allow_pickle") is False, f"{path}:{node.lineno}"


def test_every_package_is_installed():
    """An editable install finds what is not listed; a wheel does not."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(("nasray", *path.parent.parts)).replace("nasray.nasray", "nasray")
        for path in FILES
        if path.name == "__init__.py"
    }
    assert sorted(listed) == sorted(found)


def place_of_test(path):
    """Where the test of a module stands: at its path under tests/, a package's under the name of the package."""
    name = path.parent.name if path.name == "__init__.py" else path.stem
    return Path("tests", path.parent, f"test_{name}.py")


@each_file
def test_files_can_be_read_in_a_sitting(path):
    num_lines = len((ROOT / path).read_text().splitlines())
    assert num_lines <= MAX_LINES, f"{path} has {num_lines} lines; divide it"


@each_file
def test_the_formatter_lays_out_every_line(path):
    by_hand = [number for number, line in enumerate((ROOT / path).read_text().splitlines(), 1) if "# fmt: " in line]
    assert not by_hand, f"{path}:{by_hand[0]} is laid out by hand"


@each_file
def test_every_module_has_a_test_at_its_path(path):
    own, elsewhere = place_of_test(path), TESTED_ELSEWHERE.get(path.as_posix())
    if (ROOT / own).exists():
        assert elsewhere is None, f"{path} has a test of its own, {own}; strike it from TESTED_ELSEWHERE"
    elif elsewhere is not None:
        assert (ROOT / elsewhere).exists(), f"there is no {elsewhere}"
    else:
        num_lines = len((ROOT / path).read_text().splitlines())
        assert num_lines <= MAX_UNTESTED_LINES, f"write {own}, or name in TESTED_ELSEWHERE what tests {path}"


def test_every_test_is_that_of_a_module():
    """Those directly under tests/ are of the whole: examples, README, rules."""
    mirrored = {place_of_test(path) for path in FILES}
    found = {path.relative_to(ROOT) for room in ROOMS for path in (ROOT / "tests" / room).rglob("test_*.py")}
    strange = sorted(path.as_posix() for path in found - mirrored if path.as_posix() not in CROSS_CUTTING)
    assert not strange, f"{', '.join(strange)}: of which module? Move it to the module's path, or to CROSS_CUTTING"
    gone = sorted(CROSS_CUTTING.keys() - {path.as_posix() for path in found - mirrored})
    assert not gone, f"strike {', '.join(gone)} from CROSS_CUTTING"
