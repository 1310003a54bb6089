"""Targets, commands, options, paths, links, keys and defaults that the pages name exist."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import io
import json
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import pytest
import yaml

from data.config import Config
from data.graph import save_graph
from data.search import spaces
from data.synthetic.log import SyntheticConfig, write_log
from evaluation.metrics.accuracy import METRICS
from tasks.check import check_trainer
from tasks.pipeline import pipeline
from tasks.run_config import MOVED_KEYS, EvaluationConfig, load_run_config
from tests.docs.pages import BLOCK, LINK, PAGES, ROOT, SPAN, marked_block, marked_table
from tests.tasks.plain_run import PlainRun
from trainers.config import TrainingConfig

CONFIGS = sorted(ROOT.glob("configs/*.toml"))
PACKAGES = ("flows", "tasks", "registry", "trainers", "evaluation", "models", "data")
FOLDERS = (*PACKAGES, "configs", "docs", "tests", "benchmarks", "examples")
WRITTEN_BY_RUNS = ("artifacts/", "data/graph.pt")
DOCUMENTED_CLASSES = {
    "tasks.run_config:RunConfig",
    "tasks.run_config:EvaluationConfig",
    "tasks.tuning_config:TuneConfig",
    "data.events.ingest_config:IngestConfig",
    "data.synthetic.log:SyntheticConfig",
    "data.weights:WeightConfig",
    "data.split:SplitConfig",
    "models.base:ModelConfig",
    "models.gat:GATConfig",
    "models.lightgcn:LightGCNConfig",
    "trainers.config:TrainingConfig",
    "trainers.advanced:AdvancedConfig",
    "trainers.curriculum:CurriculumConfig",
    "trainers.online:OnlineConfig",
    "trainers.multitask.multitask_trainer:MultiTaskConfig",
    "trainers.meta.meta_trainer:MetaConfig",
    "trainers.adversarial.adversarial_config:AdversarialConfig",
    "trainers.federated.federated_config:FederatedConfig",
    "examples.rare_songs:RareSongsConfig",
    "songgraph_contrastive_loss:ContrastiveConfig",
    "registry.gate.gate_config:GateConfig",
    "evaluation.baselines.popular:RecentPopularity",
    "evaluation.baselines.item_knn:CosineItemKNN",
    "evaluation.baselines.item_knn:BM25ItemKNN",
    "evaluation.baselines.ials:IALS",
    "evaluation.baselines.ease:EASE",
}

TABLE = re.compile(r"^<!-- keys: (?P<what>[\w.: ]+) -->\n(?P<rows>(?:\|.*\n)+)", re.MULTILINE)
SNIPPET = re.compile(r"^<!-- runs: (?P<name>\w+) -->\n```python\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def code_lines(page: Path) -> list[str]:
    """Lines of the code blocks that are no Python, and code spans, each without the comment behind it."""
    text = page.read_text(encoding="utf-8")
    blocks = [match["text"] for match in BLOCK.finditer(text) if match["language"] != "python"]
    spans = SPAN.findall(BLOCK.sub("", text))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()] + [
        " ".join(span.split()) for span in spans
    ]
    return [line.split(" #")[0].strip() for line in lines]


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.fixture(autouse=True)
def examples_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are no part of what is installed."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.syspath_prepend(ROOT / "examples" / "contrastive_loss")


every_page = pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
every_config = pytest.mark.parametrize("path", CONFIGS, ids=ids(CONFIGS))


@pytest.fixture(scope="module")
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.fixture(scope="module")
def deployments() -> dict[str, dict[str, Any]]:
    described = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return {f"{one['entrypoint'].partition(':')[2]}/{one['name']}": one for one in described}


@every_page
def test_every_make_target_exists(page: Path, targets: set[str]) -> None:
    named = {name for line in code_lines(page) for name in re.findall(r"\bmake ([a-z-]+)", line)}
    assert named <= targets


def test_every_target_is_explained(targets: set[str]) -> None:
    _, *rows = marked_table("CONTRIBUTING.md", "targets")
    assert sorted(name for name, _ in rows) == sorted(f"`make {name}`" for name in targets)


def python_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Module and arguments of every ``python -m``, up to what a shell or a person would put behind it."""
    for line in code_lines(page):
        for command in re.findall(r"python -m ([^|;&`]+)", line):
            module, *arguments = shlex.split(command)
            yield module, arguments


@functools.cache
def help_text(module: str, *subcommand: str) -> str:
    """What ``python -m module subcommand --help`` prints, found without a process of its own."""
    printed = io.StringIO()
    arguments = mock.patch.object(sys, "argv", [module, *subcommand, "--help"])
    wide = mock.patch.dict("os.environ", {"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    with arguments, wide, redirect_stdout(printed), redirect_stderr(printed), pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code in (0, None), printed.getvalue()
    return printed.getvalue()


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@every_page
def test_every_command_and_its_options_exist(page: Path) -> None:
    for module, arguments in python_commands(page):
        assert importlib.util.find_spec(module), module
        if module.split(".")[0] in PACKAGES:
            subcommand = arguments[:1] if module == "registry" else []
            known = set(re.findall(r"--[a-z][a-z-]*", help_text(module, *subcommand)))
            assert {word for word in arguments if word.startswith("--")} <= known, (module, arguments)


@every_page
def test_every_key_that_is_set_exists(page: Path) -> None:
    documented = {key for written, _ in key_tables().values() for key in written} | {"KEY"}
    documented |= keys_of_examples(page)
    for module, arguments in python_commands(page):
        for setting in (word for flag, word in pairwise(arguments) if flag == "--set"):
            table, _, key = setting.partition("=")[0].rpartition(".")
            assert key in documented, (module, setting)
            if table:
                kind = class_of("tasks.run_config:RunConfig").model_fields[table].annotation
                typed = isinstance(kind, type) and issubclass(kind, Config)
                assert not typed or key in {*kind.model_fields, "KEY"}, (module, setting)


def keys_of_examples(page: Path) -> set[str]:
    """The keys that config classes in a page's own Python blocks declare."""
    blocks = [match["text"] for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]
    return {key for block in blocks for key in re.findall(r"^    (\w+): \w+ = ", block, re.MULTILINE)}


@every_page
def test_every_deployment_and_its_parameters_exist(page: Path, deployments: dict[str, Any]) -> None:
    from flows.train import train

    for line in code_lines(page):
        for name in re.findall(r"prefect deployment run (\S+)", line):
            assert name in deployments
            given = {word.partition("=")[0] for flag, word in pairwise(shlex.split(line)) if flag == "-p"}
            assert given <= set(inspect.signature(train.fn).parameters)


def named_paths(page: Path) -> Iterator[str]:
    """Code spans and words of commands that look like a path of this repository, without a place behind a colon."""
    for line in code_lines(page):
        for word in line.split():
            path = word.strip("'\"(),").partition(":")[0].partition("<")[0]
            inside = path.partition("/")[0] in FOLDERS and "/" in path
            at_root = re.fullmatch(r"[\w-]+\.(toml|yaml|md)", path) and len(line.split()) == 1
            if (inside or at_root or path.startswith(WRITTEN_BY_RUNS)) and "=" not in path:
                yield path


@every_page
def test_every_path_exists_or_is_written_by_a_run(page: Path) -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert set(WRITTEN_BY_RUNS) <= set(ignored)
    found = [path for path in named_paths(page) if not path.startswith((*WRITTEN_BY_RUNS, "configs/example"))]
    assert [path for path in found if not (ROOT / path).exists()] == []


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The names under which headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def key_tables() -> dict[str, tuple[dict[str, str], str]]:
    """Class to key and default as written, and the class whose keys stand in another table."""
    tables = {}
    for page in PAGES:
        for match in TABLE.finditer(page.read_text(encoding="utf-8")):
            documented, _, base = match["what"].partition(" beyond ")
            rows = [[cell.strip() for cell in row.split("|")] for row in match["rows"].splitlines()[2:]]
            tables[documented] = {row[1].strip("`"): row[2].strip("`") for row in rows}, base
    return tables


def test_the_page_about_the_search_names_every_key_that_is_searched() -> None:
    page = (ROOT / "docs/tuning.md").read_text(encoding="utf-8")
    named = {table: set(SPAN.findall(keys)) for table, keys in re.findall(r"^\| `\[(\w+)\]` \| (.*) \|$", page, re.M)}
    searched: dict[str, set[str]] = {"model": set(), "training": set()}
    for path in DOCUMENTED_CLASSES:
        table = {"models": "model", "trainers": "training"}.get(path.partition(".")[0])
        if table:
            searched[table] |= set(spaces(class_of(path)))
    choosable = {"advanced", "gat", "lightgcn", "curriculum", "mf"}
    assert {table: keys - choosable for table, keys in named.items()} == searched


def class_of(path: str) -> type[Config]:
    module, _, name = path.partition(":")
    found: type[Config] = getattr(importlib.import_module(module), name)
    return found


def test_every_config_class_has_a_table() -> None:
    assert set(key_tables()) == DOCUMENTED_CLASSES


@pytest.mark.parametrize("documented", sorted(DOCUMENTED_CLASSES))
def test_a_table_of_keys_equals_the_class(documented: str) -> None:
    written, base = key_tables()[documented]
    elsewhere = set(class_of(base).model_fields) if base else set()
    fields = {key: field for key, field in class_of(documented).model_fields.items() if key not in elsewhere}
    assert sorted(written) == sorted(fields)
    for key, field in fields.items():
        assert_default(written[key], field, key)


def assert_default(written: str, field: Any, key: str) -> None:
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        assert written == "required", key
    elif default is None:
        assert written == "none", key
    elif isinstance(default, Config):
        assert type(default).model_validate(json.loads(written)) == default, key
    else:
        assert json.loads(written) == json.loads(json.dumps(default)), key


@every_config
def test_a_config_is_valid_in_every_table(path: Path) -> None:
    run = load_run_config(path)
    check_trainer(run)


@every_config
def test_a_config_says_in_its_first_line_how_to_run_it(
    path: Path, targets: set[str], deployments: dict[str, dict[str, Any]]
) -> None:
    line = path.read_text(encoding="utf-8").splitlines()[0]
    name = str(path.relative_to(ROOT))
    assert line.startswith("# ")
    if found := re.search(r"prefect deployment run (\S+)", line):
        assert deployments[found[1]]["parameters"]["config"] == name
    elif line == "# make train":
        assert f"CONFIG ?= {name}" in (ROOT / "Makefile").read_text(encoding="utf-8")
    else:
        assert f"python -m flows.train --config {name}" in line


def test_the_page_names_every_key_that_has_moved() -> None:
    _, *rows = marked_table("docs/configuration.md", "moved keys")
    tables = {"evaluation": EvaluationConfig, "training": TrainingConfig}
    renamed = {
        (f"{table}.{old}", f"{table}.{new}") for table, kind in tables.items() for old, new in kind.renamed_keys.items()
    }
    assert {(old.strip("`"), new.strip("`")) for old, new in rows} == {*MOVED_KEYS.items(), *renamed}


def test_every_environment_variable_of_ours_is_explained() -> None:
    folders = [ROOT / name for name in (*PACKAGES, "configs", "benchmarks")]
    sources = [path for folder in folders for suffix in ("py", "toml") for path in folder.rglob(f"*.{suffix}")]
    used = {name for path in sources for name in re.findall(r"\bSONGGRAPH_[A-Z_]+", path.read_text(encoding="utf-8"))}
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert {name for name in used if f"| `{name}` |" not in page} == set()
    assert {"SONGGRAPH_HOME", "SONGGRAPH_EVENTS"} <= used


def test_the_page_about_metrics_names_every_metric() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert {name for name in METRICS if f"| `{name}@k` |" not in page} == set()


def test_the_example_of_a_config_is_valid(tmp_path: Path) -> None:
    blocks = BLOCK.finditer((ROOT / "docs/configuration.md").read_text(encoding="utf-8"))
    (example,) = [match["text"] for match in blocks if match["language"] == "toml"]
    assert tomllib.loads(example)
    path = tmp_path / "example.toml"
    path.write_text(example, encoding="utf-8")
    check_trainer(load_run_config(path))


@pytest.fixture
def snippets() -> dict[str, str]:
    text = (ROOT / "docs/trainers.md").read_text(encoding="utf-8")
    return {match["name"]: match["text"] for match in SNIPPET.finditer(text)}


def test_the_guide_trains_from_python(snippets, tiny_graph, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "data").mkdir()
    save_graph(tiny_graph, tmp_path / "data" / "graph.pt")
    monkeypatch.chdir(tmp_path)
    exec(snippets["create"], {"__name__": "__main__"})
    assert "recall@10" in capsys.readouterr().out
    assert (tmp_path / "artifacts/by-hand/model.safetensors").exists()


def test_the_guides_custom_trainer_trains(snippets, tiny_training_graph, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("trainers.names._registered", {})
    from trainers.factory import create_trainer

    exec(snippets["custom"], {"__name__": "__main__"})
    counts = {f"num_{kind}s": tiny_training_graph[kind].num_nodes for kind in ("user", "song", "artist")}
    trainer = create_trainer("warmup", counts, {}, output_dir=tmp_path)
    results = trainer.train(tiny_training_graph, num_epochs=2)
    assert {"loss", "recall@10"} <= set(results["history"][-1])


@pytest.mark.slow
def test_a_registered_model_recommends_as_the_page_shows(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    list(pipeline(PlainRun(load_run_config(None, {"synthetic": {"preset": "tiny"}, "baselines": "none"}))))
    small = pq.read_table(write_log(SyntheticConfig(preset="small"), tmp_path / "small")[0])
    assert "user-0000" in small["user_id"].to_pylist()
    page: dict[str, Any] = {}
    exec(marked_block("docs/running.md", "runs: recommend").replace("user-0000", "user-00"), page)
    assert len(page["best"]) == 10
    assert {"track_id", "score"} <= page["best"][0].keys()
