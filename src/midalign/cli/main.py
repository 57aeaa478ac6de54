"""The ``midalign`` command: one verb per workflow. Heavy imports happen inside the verbs, so that --help is quick.

Exit codes: 0 done, 1 a fault of ours, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.logging import RichHandler
from rich.markup import escape

import midalign
from midalign.answers.format import CONSTRAINED_HELP, CONSTRAINED_TASK, STYLES, AnswerFormat
from midalign.cli import comet as cli_comet
from midalign.cli import evaluate as cli_evaluate
from midalign.cli import model as cli_model
from midalign.cli import testbed as cli_testbed
from midalign.cli.console import (
    CompletionStyle,
    Languages,
    Out,
    Task,
    choice,
    codes,
    console,
    named,
    progress_bars,
    quiet_libraries,
    say_probe,
    say_where,
    weights_of,
)
from midalign.errors import ModelError, RunError, UserError, listed
from midalign.functional.names import CANDIDATES, MERGE_METHODS
from midalign.records import BACKENDS, DTYPES

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Middle-layer representation alignment: carry a fine-tuned language model to languages without task data.\n\n"
    "Start with `midalign demo --out runs/demo`, then `midalign run RECIPE --out DIR` on your own data.",
)
app.add_typer(cli_comet.app, name="comet")
app.command()(cli_evaluate.evaluate)
app.command()(cli_model.model)
app.add_typer(cli_testbed.app, name="testbed")

RecipeFile = Annotated[Path, typer.Argument(help="The YAML recipe; see recipes/ for examples.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, such as alignment.layer=8.")]
ModelName = Annotated[str, typer.Option(help="Hub name or local folder of the model; testbed; smollm2.")]
GgufFile = Annotated[str | None, typer.Option(help="Name of a GGUF file in that folder (extra 'gguf').")]
AdapterPath = Annotated[Path | None, typer.Option(help="PEFT adapter to put on the model.")]


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what is logged, warnings of libraries too.")
    ] = False,
) -> None:
    """Settings of the whole command."""
    if version:
        typer.echo(f"midalign {midalign.__version__}")
        raise typer.Exit
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False, show_time=False)],
        force=True,
    )
    logging.getLogger("midalign").setLevel(logging.INFO if verbose else logging.WARNING)
    if not verbose:
        warnings.filterwarnings("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


@app.command()
def probe(
    model: ModelName,
    data: Annotated[
        str, typer.Option(help="Corpus that is parallel across all languages: FLORES, NTREX, folder, TSV.")
    ],
    out: Out,
    languages: Languages = None,
    format: Annotated[str, typer.Option(help="Format of the corpus; told by itself where possible.")] = "auto",  # noqa: A002
    split: Annotated[str | None, typer.Option(help="Split, where the corpus has several.")] = None,
    adapter: AdapterPath = None,
    gguf_file: GgufFile = None,
    pooling: Annotated[
        str, typer.Option(help="mean, mean_no_special, mean_no_first, mean_unit, last or weighted.")
    ] = "mean",
    margin: Annotated[str, typer.Option(help="ratio, distance, absolute or cosine.")] = "ratio",
    k: Annotated[int, typer.Option(help="Neighbours in the margin.")] = 4,
    candidates: Annotated[str, typer.Option(help=f"{listed(CANDIDATES)}, which is what LASER's xsim does.")] = "all",
    limit: Annotated[int | None, typer.Option(help="Only the first so many sentences.")] = None,
    dtype: Annotated[str, typer.Option(help=f"{listed(DTYPES)}.")] = "auto",
    compare: Annotated[
        Path | None, typer.Option(help="probe.json of another model, on the same data: what changed from it to this.")
    ] = None,
    transfer: Annotated[
        Path | None, typer.Option(help="scores.json by language: does retrieval predict the score?")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Keep sentence vectors here, so that the next probe costs only the retrieval.")
    ] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Let code from the model's repository run here.")] = False,
) -> None:
    """Translation retrieval at every layer, in all directions: where and how well a model aligns languages."""
    from midalign.data.parallel.corpus import read_parallel
    from midalign.experiment.named import model_folder
    from midalign.models.adapters import attach_adapter
    from midalign.models.loading import load_model, load_tokenizer
    from midalign.probing.comparison import write_comparison, write_transfer
    from midalign.probing.probe import probe as run_probe
    from midalign.probing.result import ProbeResult
    from midalign.runs import Run

    model = model_folder(model)
    corpus = read_parallel(data, format=format, languages=codes(languages), split=split, limit=limit)  # type: ignore[arg-type]
    corpus.multiway(limit=limit)
    earlier = ProbeResult.from_file(compare) if compare is not None else None
    inputs = {
        "model": model, "adapter": str(adapter) if adapter else None, "data": data, "languages": corpus.languages,
        "limit": limit, "pooling": pooling, "margin": margin, "k": k, "candidates": candidates, "dtype": dtype,
        "compare": compare, "transfer": transfer,
    } | ({"gguf_file": gguf_file} if gguf_file else {})  # fmt: skip
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code, gguf_file=gguf_file)
    run = Run(out, "probe", inputs, [path for path in (model, data, adapter, compare, transfer) if path])
    if _nothing_to_do(run, out / "probe.json"):
        return
    quiet_libraries()
    loaded: Any = load_model(model, dtype=dtype, trust_remote_code=trust_remote_code, gguf_file=gguf_file)
    if adapter is not None:
        loaded = attach_adapter(loaded, adapter)
    vectors = cache or out / "vectors"
    with progress_bars() as progress, run.timed("probe"):
        result = run_probe(
            loaded, tokenizer, corpus, pooling=pooling, margin=margin, k=k, candidates=candidates, cache=vectors,
            progress=progress,
        )  # fmt: skip
    result.write(out)
    if earlier is not None:
        write_comparison(earlier, result, out)
    if transfer is not None:
        write_transfer(result, transfer, out)
    run.finish()
    if cache is None:
        shutil.rmtree(vectors, ignore_errors=True)
    say_probe(result.as_dict())
    say_where(out / "probe.json")


@app.command()
def train(
    recipe: RecipeFile,
    out: Out,
    overrides: Overrides = None,
    objective: Annotated[
        str, typer.Option(help="joint, task (SFT alone) or align (an adapter for merging).")
    ] = "joint",
) -> None:
    """LoRA fine-tuning that alternates the task loss and the middle-layer alignment loss; interrupted runs go on."""
    from midalign.experiment.named import resolve_names
    from midalign.recipe.data import data_paths
    from midalign.runs import Run
    from midalign.training.train import train as run_train

    choice("objective", objective, ("joint", "task", "align"))
    quiet_libraries()
    with progress_bars() as progress:
        checked = resolve_names(_recipe(recipe, overrides), progress)
        run = Run(out, "train", {"recipe": checked.as_dict(), "objective": objective}, data_paths(checked))
        if _nothing_to_do(run, out / "adapter"):
            return
        with run.timed("train"):
            summary = run_train(checked, out, objective=objective, progress=progress, begin=run.begin)  # type: ignore[arg-type]
    run.finish(seeds=[checked.seed])
    console.print(f"{summary['updates']} updates in {summary['seconds']:.0f} s, alignment at layer {summary['layer']}")
    say_where(out / "adapter")


@app.command()
def merge(
    base: Annotated[str, typer.Option(help="The base model that both adapters were trained on.")],
    adapter: Annotated[list[str], typer.Option(help="name=PATH of an adapter; give it several times.")],
    out: Out,
    gguf_file: GgufFile = None,
    weights: Annotated[
        str | None,
        typer.Option(help="name=weight,... such as task=1.0,alignment=0.5; 0.2/0.5/0.8 is one per band of layers."),
    ] = None,
    tune: Annotated[Path | None, typer.Option(help="Recipe whose dev data the weights are tuned on.")] = None,
    method: Annotated[str, typer.Option(help=f"{listed(MERGE_METHODS)}; sum is exact.")] = "sum",
    rank: Annotated[int | None, typer.Option(help="Rank to truncate to, for svd, ties and dare.")] = None,
    dtype: Annotated[str, typer.Option(help=f"{listed(DTYPES)}.")] = "auto",
    export: Annotated[
        str, typer.Option(help="adapter, or base to write the merged model's own weights too.")
    ] = "adapter",
    trust_remote_code: Annotated[bool, typer.Option(help="Let code from the model's repository run here.")] = False,
) -> None:
    """Merge a separately trained alignment adapter into a task adapter."""
    from midalign.experiment.named import model_folder, resolve_names
    from midalign.merging.job import MERGE_FILE, MODEL, MergeJob

    choice("export", export, ("adapter", "base"))
    chosen = weights_of(weights) if weights is not None else None
    checked = resolve_names(_recipe(tune, None)) if tune is not None else None
    job = MergeJob(
        model_folder(base),
        named("adapter", adapter),
        chosen,
        checked,
        method,
        rank,
        dtype,
        export,
        trust_remote_code,
        gguf_file,
    )
    quiet_libraries()
    run = job.start(out)
    if _nothing_to_do(run, out / MERGE_FILE):
        return
    with progress_bars() as progress:
        merged = job.finish(run, progress)
    console.print(", ".join(f"{name} {weight}" for name, weight in merged.items()), f"by {method}")
    say_where(out / (MODEL if export == "base" else "adapter"))


def _held(constrained: str, task: Task, backend: str) -> Any:
    """What answers are held to, or None; refuses what does not go with the task or the backend."""
    if choice("constrained", constrained, ("none", *CONSTRAINED_TASK)) == "none":
        return None
    wanted = CONSTRAINED_TASK[cast("Any", constrained)]
    if task.value != wanted or backend == "vllm":
        raise RunError(f"--constrained {constrained} is for --task {wanted} and --backend transformers; leave it out")
    return constrained


@app.command()
def generate(
    model: ModelName,
    data: Annotated[str, typer.Option(help="Folder or file with the task data.")],
    out: Out,
    task: Annotated[Task, typer.Option(help="What to answer.")] = Task.slots,
    adapter: AdapterPath = None,
    gguf_file: GgufFile = None,
    languages: Languages = None,
    format: Annotated[str, typer.Option(help="Format of the data; told by itself where possible.")] = "auto",  # noqa: A002
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 128,
    batch_tokens: Annotated[int, typer.Option(help="Padded tokens in a batch.")] = 8192,
    system: Annotated[str | None, typer.Option(help="System text instead of midalign's own.")] = None,
    completion_style: CompletionStyle = "slots",
    constrained: Annotated[
        str,
        typer.Option(help=f"none, or what answers are held to: {CONSTRAINED_HELP}"),
    ] = "none",
    backend: Annotated[str, typer.Option(help=f"{listed(BACKENDS)}, which is an extra.")] = "transformers",
    dtype: Annotated[str, typer.Option(help=f"{listed(DTYPES)}.")] = "auto",
    trust_remote_code: Annotated[bool, typer.Option(help="Let code from the model's repository run here.")] = False,
) -> None:
    """Greedy answers to a task's prompts, into predictions.jsonl; an interrupted run goes on where it stopped."""
    from midalign.answers.predictions import PREDICTIONS, write_predictions
    from midalign.data.examples import read_examples
    from midalign.experiment.named import model_folder
    from midalign.generation.generate import check_constraint
    from midalign.generation.generate import generate as run_generate
    from midalign.models.loading import load_model, load_tokenizer
    from midalign.runs import Run

    model, style = model_folder(model), choice("completion-style", completion_style, STYLES)
    choice("backend", backend, BACKENDS)
    held = _held(constrained, task, backend)
    if gguf_file is not None and backend == "vllm":
        raise RunError(f"--gguf-file {gguf_file!r} is for --backend transformers; leave one of them out")
    answer_format = AnswerFormat(style, system, held)
    examples = read_examples(task.value, data, format=format, languages=codes(languages), split=split)
    inputs = {
        "model": model, "adapter": str(adapter) if adapter else None, "task": task.value, "data": data, "split": split,
        "languages": codes(languages), "max_new_tokens": max_new_tokens, "batch_tokens": batch_tokens,
        "system": system, "completion_style": completion_style, "dtype": dtype,
        "backend": backend,
    } | ({"constrained": held} if held else {}) | ({"gguf_file": gguf_file} if gguf_file else {})  # fmt: skip
    run = Run(out, "generate", inputs, [path for path in (model, data, adapter) if path])
    if _nothing_to_do(run, out / PREDICTIONS):
        return
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code, gguf_file=gguf_file)
    check_constraint(tokenizer, examples, answer_format)
    quiet_libraries()
    loaded: Any
    if backend == "vllm":
        from midalign.generation.vllm import VllmEngine

        used = [adapter] if adapter else []
        loaded = VllmEngine(model, tokenizer, adapters=used, dtype=dtype, trust_remote_code=trust_remote_code)
    else:
        loaded = load_model(model, dtype=dtype, trust_remote_code=trust_remote_code, gguf_file=gguf_file)
    run.begin()
    partial = out / f".{PREDICTIONS}.partial"
    with progress_bars() as progress, run.timed("generate"):
        predictions = run_generate(
            loaded,
            tokenizer,
            examples,
            answer_format,
            adapter=adapter,
            max_new_tokens=max_new_tokens,
            batch_tokens=batch_tokens,
            partial=partial,
            progress=progress,
        )
    write_predictions(predictions, out / PREDICTIONS)
    partial.unlink(missing_ok=True)
    run.finish()
    console.print(f"{len(predictions)} answers")
    say_where(out / PREDICTIONS)


@app.command()
def report(runs: Annotated[list[Path], typer.Argument(help="Run folders.")], out: Out) -> None:
    """One page that shows per language what was gained, and why."""
    from midalign.report.page import write_report
    from midalign.runs import Run

    run = Run(out, "report", {"runs": [str(path) for path in runs]})
    page = write_report(runs, out)
    run.finish()
    say_where(page)


@app.command()
def run(recipe: RecipeFile, out: Out, overrides: Overrides = None) -> None:
    """The whole job of a recipe: probe, train, merge, evaluate, report; an interrupted run goes on where it stopped."""
    _run_recipe(_recipe(recipe, overrides), out)


@app.command()
def demo(
    out: Out,
    seeds: Annotated[int, typer.Option(min=1, help="Train with so many seeds.")] = 1,
) -> None:
    """The whole job on the embedded default: a small world in several languages; no download, no GPU."""
    import importlib.resources

    from midalign.recipe.file import load_recipe

    with importlib.resources.as_file(importlib.resources.files("midalign") / "recipes" / "demo.yaml") as path:
        for seed in range(seeds):
            folder = out if seeds == 1 else out / f"seed-{seed}"
            _run_recipe(load_recipe(path, [f"seed={seed}"]), folder)
    if seeds > 1:
        from midalign.report.page import write_report

        say_where(write_report([out / f"seed-{seed}" for seed in range(seeds)], out))
    else:
        console.print(
            "One seed of one small model is a sample, and its differences may have the other sign by chance: --seeds 5 "
            "shows how far they spread, docs/evidence.md what six runs on three models say."
        )


@app.command()
def validate(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Check a recipe and the data it names without running anything: all faults at once."""
    from midalign.recipe.data import read_pair_data, read_probe_corpus, read_task_data

    checked = _recipe(recipe, overrides)
    faults = []
    lines = []
    for place, path, read in (
        ("task", checked.task.data, read_task_data),
        ("parallel", checked.parallel.data, read_pair_data),
        ("probe", checked.probe.data, read_probe_corpus),
    ):
        if path.partition(":")[0] == "testbed":
            continue
        try:
            found: Any = read(checked)
        except UserError as fault:
            faults.append(f"{place}: {fault}")
            continue
        if place == "probe":
            lines.append(f"probe: {len(found.rows)} sentences in {len(found.languages)} languages")
        else:
            lines.append(f"{place}: " + ", ".join(f"{len(part)} {name}" for name, part in found._asdict().items()))
    from midalign.experiment.named import ready_model
    from midalign.models.loading import check_model_path, load_config

    try:
        model = ready_model(checked.model.path)
        if model is not None and Path(check_model_path(model, checked.model.gguf_file)).exists():
            text = load_config(**checked.model.source | {"name": model}).get_text_config()
            checked.alignment.check_model(text.num_hidden_layers, text.hidden_size)
    except UserError as fault:
        faults.append(f"model: {fault}")
    if checked.generation.constrained is not None:
        from midalign.generation.constraint import load_llguidance

        try:
            load_llguidance()
        except UserError as fault:
            faults.append(f"generation: {fault}")
    if faults:
        raise ModelError("\n".join([f"{recipe}: the recipe is well formed, but what it names is not:", *faults]))
    for line in lines:
        console.print(line)
    console.print(f"[green]{recipe} is valid[/green]")


def _run_recipe(recipe: Any, out: Path) -> None:
    from midalign.experiment.experiment import Experiment
    from midalign.experiment.named import resolve_names
    from midalign.report.summary_table import summary_table

    quiet_libraries()
    with progress_bars() as progress:
        checked = resolve_names(recipe, progress)
        summary = Experiment(checked, out, progress, announce=lambda text: console.print(f"[bold]{text}[/bold]")).run()
    console.print(summary_table(summary, _scores_of(out, summary)))
    say_where(out / "report.html")


def _scores_of(out: Path, summary: dict[str, Any]) -> dict[str, Any]:
    from midalign.files import read_json

    return {s: read_json(out / "evaluation" / s / "scores.json")["scores"] for s in summary["systems"]}


def _recipe(path: Path, overrides: list[str] | None) -> Any:
    from midalign.recipe.arguments import check_arguments
    from midalign.recipe.file import load_recipe

    recipe = load_recipe(path, overrides or [])
    check_arguments(recipe, str(path))
    return recipe


def _nothing_to_do(run: Any, result: Path) -> bool:
    """Whether an earlier call with the same inputs has finished; says so."""
    done = bool(run.was_done and result.exists())
    if done:
        console.print("done by an earlier call with the same inputs; delete the folder to do it anew")
        say_where(result)
    return done


def main() -> None:
    """Run the command line; user mistakes become one message and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except UserError as fault:
        console.print(f"[red]error:[/red] {escape(str(fault))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        sys.exit(130)


if __name__ == "__main__":
    main()
