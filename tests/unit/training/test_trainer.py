"""The alternating trainer: what each update trains, resume, and equalities that must hold."""

import inspect
import shutil

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from midalign.errors import DataError, ModelError
from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.objective import subspace
from midalign.training.pair_batches import PAIR_KEYS
from midalign.training.trainer import AlignmentTrainer, SFTOptions
from tests.conftest import CORPUS, build_model, build_tokenizer

PAIRS = [
    ParallelPair(f"turn on light {i}", f"licht {i} anmachen", "eng_Latn", "deu_Latn", f"de:{i}") for i in range(12)
] + [ParallelPair(f"wake me at {i}", f"разбуди в {i}", "eng_Latn", "rus_Cyrl", f"ru:{i}") for i in range(5)]
TASK = [{"prompt": text + "\n", "completion": f"datetime: {i}"} for i, text in enumerate(CORPUS * 2)]


def trainer(
    out,
    pairs=PAIRS,
    held_out=(),
    model=None,
    eval_dataset=None,
    dropout=0.1,
    alignment=None,
    tokenizer=None,
    task=None,
    **changes,
):
    options = dict(
        output_dir=str(out),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    return AlignmentTrainer(
        model or build_model("llama"),
        args=SFTConfig(**{**options, **changes}),
        train_dataset=task if task is not None else Dataset.from_list(TASK),
        processing_class=tokenizer or build_tokenizer(),
        peft_config=LoraConfig(r=2, target_modules="all-linear", lora_dropout=dropout),
        pairs=pairs,
        held_out_pairs=held_out,
        alignment=AlignmentConfig(**{"batch_size": 4, **(alignment or {})}),
        eval_dataset=eval_dataset,
    )


def adapter_of(trained, folder):
    trained.save_model(str(folder))
    return load_file(folder / "adapter_model.safetensors")


def test_eight_updates_are_task_align_task_and_an_alignment_update_leaves_upper_layers_alone(tmp_path):
    run = trainer(tmp_path)
    seen, snapshots = [], []
    compute, step = run.compute_loss, run.training_step

    def spy(model, inputs, *args, **kwargs):
        seen.append("align" if PAIR_KEYS in inputs else "task")
        return compute(model, inputs, *args, **kwargs)

    def training_step(*args, **kwargs):
        if len(seen) % 4 == 0:
            snapshots.append({n: p.detach().clone() for n, p in run.model.named_parameters() if "lora" in n})
        return step(*args, **kwargs)

    run.compute_loss, run.training_step = spy, training_step
    run.train()
    assert seen == (["task"] * 4 + ["align"] * 4) * 4
    assert run.state.global_step == 8
    snapshots.append({n: p.detach() for n, p in run.model.named_parameters() if "lora" in n})
    for update in range(8):
        changed = {n for n in snapshots[0] if not torch.equal(snapshots[update][n], snapshots[update + 1][n])}
        upper = {n for n in changed if ".layers.2." in n or ".layers.3." in n}
        assert changed, update
        assert bool(upper) == (update % 2 == 0), update


@pytest.mark.parametrize("mini_batch_size", [None, 2])
def test_the_weight_scales_the_gradient_of_alignment_and_not_the_logged_loss(tmp_path, mini_batch_size):
    found = []
    for weight in (1.0, 0.25):
        run = trainer(tmp_path, dropout=0.0, alignment={"weight": weight, "mini_batch_size": mini_batch_size})
        batch = run.collate_pairs([run.pairs[i] for i in range(4)])
        run.current_gradient_accumulation_steps = 1
        run.create_optimizer_and_scheduler(1)
        run.training_step(run.model, batch)
        logged = run._sums["alignment_loss"][0].item()
        found.append((logged, [p.grad for p in run.model.parameters() if p.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0])
    assert found[0][1]
    for whole, part in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(part, whole / 4)


def test_the_loss_in_a_subspace_is_that_of_the_projected_vectors_and_leaves_the_rest_without_gradient(tmp_path):
    run = trainer(tmp_path, dropout=0.0, alignment={"subspace": 5})
    whole = trainer(tmp_path, dropout=0.0)
    batch = run.collate_pairs([run.pairs[i] for i in range(4)])
    pooled = whole.objective.vectors(run.model, batch)[2].detach().requires_grad_()
    basis = subspace(pooled.shape[1], 5, pooled.device)
    torch.testing.assert_close(basis.T @ basis, torch.eye(5))
    loss = run.objective.loss_of({2: pooled @ basis}, batch[PAIR_KEYS])
    assert loss.item() == pytest.approx(run.objective.loss(run.model, batch).item(), rel=1e-5)
    loss.backward()
    outside = pooled.grad - pooled.grad @ basis @ basis.T
    assert pooled.grad.abs().max() > 1e-4
    assert outside.abs().max() < 1e-6 * max(1.0, pooled.grad.abs().max().item())


def test_vectors_in_a_subspace_are_exact_under_autocast(tmp_path):
    run = trainer(tmp_path, dropout=0.0, alignment={"subspace": 5})
    whole = trainer(tmp_path, dropout=0.0)
    batch = run.collate_pairs([run.pairs[i] for i in range(4)])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pooled, found = whole.objective.vectors(run.model, batch)[2], run.objective.vectors(run.model, batch)[2]
    assert found.dtype == torch.float32
    assert torch.equal(found, pooled @ subspace(pooled.shape[1], 5, pooled.device))


def test_a_subspace_larger_than_the_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="subspace is 9999"):
        trainer(tmp_path, alignment={"subspace": 9999}).train()


def test_losses_are_logged_apart(tmp_path):
    run = trainer(tmp_path)
    run.train()
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    assert ["task_loss" in entry for entry in logs] == [True, False] * 4
    assert ["alignment_loss" in entry for entry in logs] == [False, True] * 4
    for entry in logs:
        assert entry["loss"] == pytest.approx(entry.get("task_loss", entry.get("alignment_loss")), rel=1e-3)


def test_stopping_and_resuming_gives_the_same_adapter_to_the_bit(tmp_path):
    whole = trainer(tmp_path / "whole", save_strategy="steps", save_steps=3)
    whole.train()
    expected = adapter_of(whole, tmp_path / "a")
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "cut" / "checkpoint-3")
    resumed = trainer(tmp_path / "cut", save_strategy="steps", save_steps=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    got = adapter_of(resumed, tmp_path / "b")
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("schedule", ["task", "align"])
def test_batch_one_times_accumulation_eight_equals_batch_eight(tmp_path, schedule):
    """For alignment the negatives stay inside a micro-batch, so only its accumulation can vary: 2 x 4 against 4 + 4."""
    results = []
    for size, accumulation in ((1, 8), (8, 1)):
        run = trainer(
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation if schedule == "task" else 2,
            max_steps=2,
            dropout=0.0,
            alignment={"schedule": schedule},
            lr_scheduler_type="constant",
        )
        run.train()
        results.append(adapter_of(run, tmp_path / str(size)))
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-5) for name in results[0])


def test_padding_and_order_within_a_batch_change_nothing(tmp_path):
    run = trainer(tmp_path, dropout=0.0)
    run.model.eval()
    batch = run.collate_pairs([run.pairs[i] for i in (0, 3, 13, 14)])
    loss = run.objective.loss(run.model, batch)
    other = run.collate_pairs([run.pairs[i] for i in (13, 0, 14, 3)])
    padded = {
        name: tensor if name == PAIR_KEYS else torch.nn.functional.pad(tensor, (0, 7)) for name, tensor in batch.items()
    }
    assert torch.allclose(run.objective.loss(run.model, other), loss, atol=1e-6)
    assert torch.allclose(run.objective.loss(run.model, padded), loss, atol=1e-6)


def test_alignment_raises_the_retrieval_of_the_pairs_it_trains_on(tmp_path):
    words = "abcdefghijklmnop"
    pairs = [ParallelPair(f"say {w * 3}", f"скажи {i * 7}", "eng_Latn", "rus_Cyrl", w) for i, w in enumerate(words)]
    run = trainer(
        tmp_path,
        pairs=pairs,
        held_out=pairs,
        max_steps=40,
        gradient_accumulation_steps=1,
        dropout=0.0,
        alignment={"schedule": "align", "batch_size": 16},
    )
    before = run.alignment_metrics()
    run.train()
    after = run.alignment_metrics()
    assert after["retrieval"] > before["retrieval"] + 0.3
    assert after["alignment_loss"] < before["alignment_loss"] - 0.5


def test_evaluation_reports_alignment_and_the_sum_of_the_losses(tmp_path):
    run = trainer(tmp_path, held_out=PAIRS[:4] + PAIRS[-4:], max_steps=1)
    metrics = run.evaluate(eval_dataset=Dataset.from_list(TASK[:4]))
    assert metrics["eval_total_loss"] == pytest.approx(metrics["eval_loss"] + metrics["eval_alignment_loss"])
    assert 0 <= metrics["eval_retrieval"] <= 1


def test_a_layer_beyond_the_depth_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"alignment\.layer is 9, but this model has 4 blocks"):
        trainer(tmp_path, alignment={"layer": 9})


def test_a_schedule_with_alignment_needs_pairs(tmp_path):
    with pytest.raises(DataError, match="needs parallel pairs"):
        trainer(tmp_path, pairs=())


def test_a_pair_longer_than_the_models_window_is_left_out_whatever_the_arguments_say(tmp_path, caplog):
    long = ParallelPair("light " * 60, "licht", "eng_Latn", "deu_Latn", "x")
    run = trainer(
        tmp_path,
        model=build_model("gpt2", n_positions=32, max_position_embeddings=32),
        pairs=[*PAIRS, long],
        max_length=None,
    )
    assert len(run.pairs) == len(PAIRS)
    assert "left out 1 of 18 pairs with a side of more than 32 tokens" in caplog.text


def test_cached_gradients_train_to_the_adapter_of_the_plain_loss(tmp_path):
    results = []
    for size in (None, 3):
        run = trainer(
            tmp_path / str(size),
            max_steps=2,
            gradient_accumulation_steps=2,
            dropout=0.0,
            alignment={"batch_size": 8, "mini_batch_size": size},
        )
        run.train()
        results.append(adapter_of(run, tmp_path / f"a{size}"))
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-5) for name in results[0])


def test_cached_gradients_put_an_optimizer_with_two_modes_back_into_training(tmp_path):
    class TwoModes(torch.optim.AdamW):
        training = False

        def train(self):
            self.training = True

        def eval(self):
            self.training = False

        def step(self, closure=None):
            assert self.training, "a step of an optimizer in evaluation mode"
            return super().step(closure)

    run = trainer(
        tmp_path, alignment={"mini_batch_size": 2}, eval_strategy="steps", eval_steps=1,
        eval_dataset=Dataset.from_list(TASK[:2]),
    )  # fmt: skip
    run.optimizer = TwoModes([p for p in run.model.parameters() if p.requires_grad], lr=1e-3)
    run.train()
    assert run.state.global_step == 8


def test_the_arguments_of_the_caller_are_left_as_they_are(tmp_path):
    arguments = SFTConfig(
        str(tmp_path), max_steps=3, eval_delay=1, save_strategy="epoch", report_to="none", use_cpu=True
    )
    for _ in range(2):
        made = AlignmentTrainer(
            build_model("llama"), args=arguments, train_dataset=Dataset.from_list(TASK), pairs=PAIRS,
            processing_class=build_tokenizer(), alignment=AlignmentConfig(batch_size=4),
        )  # fmt: skip
        assert made.args.max_steps == 6
    assert (arguments.max_steps, arguments.save_strategy) == (3, "epoch")


@pytest.mark.parametrize("mini_batch_size", [None, 2])
def test_the_gradient_of_alignment_is_the_same_with_a_loss_function_of_ones_own(tmp_path, mini_batch_size):
    def task_loss(outputs, labels, num_items_in_batch=None):
        return outputs.logits.sum() * 0

    gradients = []
    for given in ({}, {"compute_loss_func": task_loss}):
        made = trainer(tmp_path, dropout=0.0, alignment={"mini_batch_size": mini_batch_size}, loss_type="nll")
        made.compute_loss_func = given.get("compute_loss_func")
        made.current_gradient_accumulation_steps = 4
        rows = [made.pairs[index] for index in range(4)]
        made.training_step(made.model, made.collate_pairs(rows))
        gradients.append([p.grad.clone() for p in made.model.parameters() if p.grad is not None])
    assert gradients[0]
    assert all(torch.allclose(one, other, atol=1e-7) for one, other in zip(*gradients, strict=True))


def plain_task_loss(model, batch):
    """Mean cross-entropy over the answer tokens of one micro-batch, as transformers 4.43 computes it."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())


def plain_alignment_loss(model, batch, temperature=0.1):
    """The reference's: mean over real tokens of the middle layer, cosine, one direction, one pair after the other."""
    states = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
    ).hidden_states[2]
    means = [row[mask.bool()].mean(0) for row, mask in zip(states, batch["attention_mask"], strict=True)]
    sources, targets = means[: len(means) // 2], means[len(means) // 2 :]
    losses = []
    for i, source in enumerate(sources):
        scores = torch.stack([torch.cosine_similarity(source, target, dim=0) for target in targets]) / temperature
        losses.append(torch.logsumexp(scores, 0) - scores[i])
    return torch.stack(losses).mean()


def test_micro_batch_schedule_reproduces_the_losses_of_the_references_formula(tmp_path):
    pairs = [ParallelPair(f"say {w * 3}", f"скажи {w}", "eng_Latn", "rus_Cyrl", w) for w in "abcdefghijkl"]
    run = trainer(
        tmp_path, pairs=pairs, alignment={"schedule": "micro_batch", "direction": "forward"}, max_steps=2, dropout=0.0
    )
    batches = list(run.get_train_dataloader())
    got, step = [], run.training_step

    def spy(model, inputs, *args, **kwargs):
        got.append(step(model, inputs, *args, **kwargs))
        return got[-1]

    run.training_step = spy
    model = run.model.eval()
    expected = []
    with torch.no_grad():
        for batch in batches[:4]:  # the first window: no update has changed the weights yet
            plain = plain_alignment_loss if PAIR_KEYS in batch else plain_task_loss
            expected.append(plain(model, batch).item() / 4)
    run.train()
    assert ["align" if PAIR_KEYS in b else "task" for b in batches[:4]] == ["task", "align", "task", "align"]
    assert [loss.item() for loss in got[:4]] == pytest.approx(expected, rel=1e-4)


def test_micro_batch_schedule_trains_both_objectives_in_one_update(tmp_path):
    run = trainer(tmp_path, alignment={"schedule": "micro_batch", "direction": "forward"}, max_steps=2, dropout=0.0)
    run.train()
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    assert len(logs) == 4
    assert all({"task_loss", "alignment_loss"} <= entry.keys() for entry in logs)


def test_a_loss_that_is_not_finite_stops_training_with_a_clear_message(tmp_path):
    run = trainer(tmp_path)
    for name, parameter in run.model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="loss is nan at update 1"):
        run.train()


def own_four_bit_model(folder):
    """A four-bit model that the user has loaded, of a size that bitsandbytes packs for inference on some CPUs."""
    pytest.importorskip("bitsandbytes", reason="four bits need bitsandbytes, which is not installed here")
    build_model("llama", hidden_size=64, intermediate_size=128, head_dim=16).save_pretrained(folder)
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=four_bits)


def test_the_checks_before_training_change_no_gradient_of_four_bit_weights_of_the_users_own(tmp_path):
    gradients = {}
    for schedule in ("task", "update"):  # the first update is one of the task in both
        model = own_four_bit_model(tmp_path / "model")
        run = trainer(tmp_path / "out", model=model, alignment={"schedule": schedule}, max_steps=1, dropout=0.0)
        with torch.random.fork_rng():
            torch.manual_seed(0)  # of the adapter's start
            for name, parameter in run.model.named_parameters():
                if "lora_A" in name:
                    torch.nn.init.normal_(parameter)
        step = run.training_step

        def spy(model, *args, step=step, schedule=schedule):
            loss = step(model, *args)
            found = {
                name: p.grad.clone() for name, p in model.named_parameters() if "lora_B" in name and p.grad is not None
            }
            gradients.setdefault(schedule, found)
            return loss

        run.training_step = spy
        run.train()
    assert all(gradient.abs().max() > 0 for gradient in gradients["task"].values())
    assert all(torch.equal(gradients["task"][name], gradient) for name, gradient in gradients["update"].items())


def test_four_bit_weights_that_are_packed_already_are_refused(tmp_path):
    model = own_four_bit_model(tmp_path / "model")
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ModelError, match=r"packed.*Load the model again"):
        trainer(tmp_path / "out", model=model)


def test_the_typed_options_are_those_of_trls_trainer():
    assert set(SFTOptions.__annotations__) == set(inspect.signature(SFTTrainer).parameters) - {"model", "args"}
