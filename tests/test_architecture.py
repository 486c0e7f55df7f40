"""The rules of the house: imports point one way, only storage writes, importing is light, names are exported."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import circles, import_graph

import featurebank

ROOT = Path(featurebank.__file__).parent
FILES = sorted(file for file in ROOT.rglob("*.py") if file.name != "__main__.py")  # which is the command line's door
ORDER = ["errors", "storage", "images", "bank", "backbones", "topmodels", "extraction", "predictor", "fitting"]
ORDER += ["finetuning", "explore", "report"]
WITHOUT_TORCH = {"bank.bank", "topmodels.search", "fitting.fit", "fitting.tasks", "images.scanning", "images.views"}
WITHOUT_TORCH |= {"backbones.request", "bank.request"}
WITHOUT_TORCH |= {"bank.samples", "bank.features", "bank.segment", "bank.formats.exporting", "bank.formats.importing"}
WITHOUT_TORCH |= {f"extraction.{name}" for name in ("tracker", "pipeline", "drift", "extract", "reader", "preparing")}
WITHOUT_TORCH |= {"extraction.planning", "extraction.ray.driver", "extraction.ray.jobs"}
WITHOUT_TORCH |= {"fitting.adaptation.adapt", "explore.advice.advice", "explore.advice.ranking"}
WITHOUT_TORCH |= {"explore"} | {f"explore.{file.stem}" for file in (ROOT / "explore").glob("[a-z]*.py")}


def module_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file: Path, nested: bool = True) -> set[str]:
    """Return the modules that a file imports, as dotted names; only those at the top with nested=False."""
    tree = ast.parse(file.read_text())
    if not nested:
        tree = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "featurebank":
            found |= {f"featurebank.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file):
    own = module_of(file)
    if own == "__init__":
        return
    used = {name.split(".")[1] for name in imports(file) if name.startswith("featurebank.")} - {"__version__", "lazy"}
    assert {name for name in used if ORDER.index(name) > ORDER.index(own)} == set()


def test_every_module_has_its_place():
    assert {module_of(file) for file in FILES} - {"__init__"} == set(ORDER)


def test_no_modules_import_each_other():
    assert circles(import_graph(ROOT)) == []


def test_the_circle_finder_finds():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(graph) == [{"b", "c"}]


def test_the_table_of_rooms_is_true():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    rooms = text[text.index("| room |") : text.index("## Where something new goes")]
    assert re.findall(r"^\| `(\w+)` \|", rooms, re.MULTILINE) == ORDER


def test_the_library_never_imports_click_or_its_command_line():
    for file in FILES:
        assert not {name for name in imports(file) if name.split(".")[0] in ("click", "featurebank_cli", "cli")}, file


def test_these_modules_load_without_torch():
    code = "import sys, importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(f'featurebank.{name}')\n"
    code += "    assert 'torch' not in sys.modules, f'{name} imports torch'"
    subprocess.run([sys.executable, "-c", code, *sorted(WITHOUT_TORCH)], check=True)


def test_importing_featurebank_is_light():
    code = "import sys, featurebank; assert not {'torch', 'sklearn', 'pandas', 'numpy', 'h5py'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


WRITERS = {"write_text", "write_bytes", "touch", "mkdir", "unlink", "rmdir", "to_parquet", "savefig"}
WRITERS |= {"pipe_file", "put_file", "rm_file", "mv", "cp_file"}  # of fsspec


def writes(node: ast.AST) -> bool:
    """Say whether a call opens, makes, renames or removes a file."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = getattr(getattr(node.func, "value", None), "id", "")
    if name in ("open", "File", "ZipFile"):
        modes = [arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)]
        modes += [word.value.value for word in node.keywords if word.arg == "mode"]
        in_memory = getattr(next(iter(node.args), None), "id", "") == "buffer" or owner == "archive"  # a zip's member
        return not in_memory and any(set("wax+") & set(str(mode)) for mode in modes)
    if name == "replace":  # text, dataclasses and DataFrames have a replace of their own
        return owner == "os"
    if name == "rename":
        return owner == "os"
    return name in WRITERS


def test_the_writing_detector_detects():
    code = "open('a', 'w'); Path('a').write_text(''); os.replace('a', 'b'); h5py.File('a', 'r+'); open('a', mode='xb')"
    assert [writes(statement.value) for statement in ast.parse(code).body] == [True] * 5
    assert not writes(ast.parse("open('a')").body[0].value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_but_storage_writes(file):
    if file.relative_to(ROOT).parts[0] == "storage":
        return
    calls = [ast.unparse(node) for node in ast.walk(ast.parse(file.read_text())) if writes(node)]
    assert calls == []


def test_nothing_loads_a_pickle():
    banned = ("pickle.load", "joblib.load", "weights_only=False", "torch.hub.load(", "eval(", "exec(")
    for file in [*FILES, *Path(__file__).parents[1].glob("cli/*.py")]:
        text = file.read_text().replace(".eval()", "").replace("model.eval(", "")
        assert not [word for word in banned if word in text], file


def test_public_names_exist_and_are_listed():
    assert set(featurebank.__all__) == set(dir(featurebank))
    for name in featurebank.__all__:
        assert getattr(featurebank, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = featurebank.nothing
