"""Every number of the published HRM and TRM code that this core claims: forward, losses, gradients, operations."""

from typing import Any

import numpy as np
import pytest
import torch
from reference import CASES, FOLDER, INDEX, OPS, OWN, Reference

from rrm.models import products
from rrm.models.act import Batch, q_continue_target
from rrm.models.base import BaseModel
from rrm.models.layers import (
    Attention,
    SwiGLU,
    rms_norm,
    rotary_tables,
    rotate,
    swiglu_width,
    truncated_normal_from_uniform,
)
from rrm.models.losses import TOKEN_LOSSES, row_losses
from rrm.optim import EMA, OPTIMIZERS, AdamATan2, schedule, sign_sgd
from rrm.puzzles.build import published_augmentation
from rrm.puzzles.maze import DIHEDRAL
from rrm.puzzles.order import published_rows
from rrm.puzzles.sudoku import Augmentation
from rrm.rollout import Slots, act_call, empty_slots
from rrm.streams import torch_generator
from rrm.weights import our_names


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> tuple[Reference, BaseModel, Batch, dict[str, Any]]:
    entry = CASES[request.param]
    reference = Reference(entry)
    model = reference.model()
    missing, unexpected = model.load_state_dict(our_names(reference.state())[0], strict=False)
    assert not missing
    assert set(unexpected) <= {"H_init"}  # single-z files may carry an unused one
    batch = Batch(*(reference[f"batch/{name}"].long() for name in Batch._fields))
    return reference, model, batch, entry


@pytest.mark.skipif(FOLDER != OWN, reason="RRM_REFERENCE names a folder with cases of its own")
def test_cases_are_there():
    assert OPS is not None
    trm = {f"trm_{name}" for name in ("mlp", "att_prefix4", "att_prefixceil", "att_qcontinue", "singlez")}
    assert {"hrm_rope", "hrm_learned"} | trm <= set(CASES)


def test_forward_unroll_and_losses(case):
    reference, model, batch, entry = case
    model.eval()
    steps = []
    with torch.no_grad():
        latents = model.initial_latents(len(batch.inputs))
        for step in range(1, model.halt_max_steps + 1):
            latents, output = model.act_step(latents, batch)
            target = None
            if entry["q_continue_target"]:
                target = q_continue_target(model.act_step, latents, batch, is_last=step == model.halt_max_steps)
            steps.append((latents, output, target))
    for name in model.latent_names:
        reference.check(f"unroll/{name}", torch.stack([latents[name] for latents, _, _ in steps]))
    for name in ("logits", "q_halt_logits", "q_continue_logits"):
        reference.check(f"unroll/{name}", torch.stack([getattr(output, name) for _, output, _ in steps]))
    for token_loss in ("stablemax", "softmax"):
        plain = [row_losses(output, batch.labels, token_loss) for _, output, _ in steps]
        learning = [row_losses(output, batch.labels, token_loss, target) for _, output, target in steps]
        reference.check(f"unroll/{token_loss}/lm_loss", torch.stack([x.lm.double().sum() for x in plain]))
        reference.check("unroll/q_halt_loss", torch.stack([x.q_halt.sum() for x in plain]))
        reference.check(f"unroll/{token_loss}/total_loss_eval", torch.stack([x.total.sum() for x in plain]))
        reference.check(f"unroll/{token_loss}/total_loss_train", torch.stack([x.total.sum() for x in learning]))
    if entry["q_continue_target"]:
        reference.check("unroll/train/target_q_continue", torch.stack([target for _, _, target in steps]))
    labelled = (batch.labels != -100).any(-1)
    last = plain[-1]
    reference.check("unroll/metrics_last/count", labelled.sum())
    reference.check("unroll/metrics_last/accuracy", last.token_accuracy[labelled].double().sum())
    reference.check("unroll/metrics_last/exact_accuracy", last.correct[labelled].sum())


@pytest.mark.parametrize("convolve_from", [products.CONVOLVE_FROM, 0])
@pytest.mark.parametrize("token_loss", ["stablemax", "softmax"])
def test_gradients_and_puzzle_table_update(case, token_loss, convolve_from, monkeypatch):
    monkeypatch.setattr(products, "CONVOLVES", torch.backends.mkldnn.is_available())
    monkeypatch.setattr(products, "CONVOLVE_FROM", convolve_from)
    reference, model, batch, entry = case
    model.train()
    latents, output = model.act_step(model.initial_latents(len(batch.inputs)), batch)
    target = q_continue_target(model.act_step, latents, batch, is_last=False) if entry["q_continue_target"] else None
    losses = row_losses(output, batch.labels, token_loss, target)
    losses.total.sum().backward()
    reference.check(f"grad/{token_loss}/total_loss", losses.total.sum())
    reference.check(f"grad/{token_loss}/lm_loss", losses.lm.sum())
    reference.check(f"grad/{token_loss}/q_halt_loss", losses.q_halt.sum())
    checked = set()
    for name, parameter in model.named_parameters():
        reference.check(f"grad/{token_loss}/inner.{name}", parameter.grad)
        checked.add(f"grad/{token_loss}/inner.{name}")
    if model.puzzle_emb is not None:
        key = f"grad/{token_loss}/inner.puzzle_emb.local_weights"
        gradient, times = model.puzzle_emb.take_gradients()
        of_rows, ids = reference[key], reference["grad/local_ids"].long()
        near = {"rtol": 0, "atol": len(ids) * reference.keys[key]["atol"]}
        torch.testing.assert_close(gradient, torch.zeros_like(gradient).index_add(0, ids, of_rows), **near)
        assert torch.equal(times, ids.bincount(minlength=len(times)).float())
        checked.add(key)
        if token_loss == "stablemax":
            sign_sgd(model.puzzle_emb.weights, gradient, times > 0, **INDEX["hyperparameters"]["sparse_sgd"])
            reference.check("sparse_sgd/weights_after", model.puzzle_emb.weights)
    assert {key for key in reference.keys if key.startswith(f"grad/{token_loss}/inner.")} == checked


def batch_at(reference: Reference, prefix: str, call: int) -> Batch:
    return Batch(*(reference[f"{prefix}/batch_{name}"][call].long() for name in Batch._fields))


def first_slots(model: BaseModel, batch: Batch) -> Slots:
    return empty_slots(batch, model.initial_latents(len(batch.inputs)))


def test_streaming_trace(case):
    """Halting, reloading and carrying on, call by call, in training mode without updates."""
    reference, model, batch, entry = case
    model.train()
    slots = first_slots(model, batch)
    calls = INDEX["hyperparameters"]["stream_calls"]
    trace: dict[str, list[torch.Tensor]] = {}

    def note(**values: torch.Tensor) -> None:
        for name, value in values.items():
            trace.setdefault(name, []).append(value)

    with torch.no_grad():
        for call in range(calls):
            note(reset=slots.halted)
            fresh = batch_at(reference, "stream", call)
            before = slots
            z0 = model.initial_latents(len(fresh.inputs))
            slots, output, losses = act_call(model, before, fresh, z0, "stablemax")
            softmax = act_call(model, before, fresh, z0, "softmax")[2]
            note(**{f"current_{name}": value for name, value in slots.batch._asdict().items()})
            note(halted=slots.halted, steps=slots.steps, **output._asdict())
            note(**{"stablemax/lm_loss": losses.lm.sum(), "softmax/lm_loss": softmax.lm.sum()})
            note(**{"stablemax/loss": losses.total.sum(), "softmax/loss": softmax.total.sum()})
            note(q_halt_loss=losses.q_halt.sum())
            if entry["q_continue_target"]:
                note(q_continue_loss=losses.q_continue.sum())
            ended = slots.halted & (slots.batch.labels != -100).any(-1)
            right_to_halt = (output.q_halt_logits >= 0) == losses.correct
            note(metric_count=ended.sum(), metric_exact_accuracy=losses.correct[ended].sum())
            note(metric_accuracy=losses.token_accuracy[ended].double().sum(), metric_steps=slots.steps[ended].sum())
            note(metric_q_halt_accuracy=right_to_halt[ended].sum())
    for name, values in trace.items():
        reference.check(f"stream/{name}", torch.stack(values))
    stored = {key.removeprefix("stream/") for key in reference.keys if key.startswith("stream/")}
    assert {key for key in stored if not key.startswith("batch_")} - {"target_q_continue"} == set(trace)


@pytest.mark.parametrize("recipe", ["traj_adamw", "traj_full"])
def test_training_trajectory(case, recipe):
    """Ten updates on streaming slots: AdamW alone, and the complete published recipe."""
    reference, model, batch, entry = case
    full, plain = INDEX["hyperparameters"]["full"], INDEX["hyperparameters"]["adamw"]
    settings = full if recipe == "traj_full" else plain
    beta1, beta2 = settings["betas"]
    optimizer = OPTIMIZERS["adam_atan2" if recipe == "traj_full" else "adamw"](
        model.parameters(), lr=1e-3, beta1=beta1, beta2=beta2, weight_decay=settings["weight_decay"]
    )
    ema = EMA(model, full["ema_rate"])
    model.train()
    slots = first_slots(model, batch)
    trace: dict[str, list[torch.Tensor]] = {}
    for call in range(INDEX["hyperparameters"]["trajectory_calls"]):
        fresh = batch_at(reference, "traj", call)
        z0 = model.initial_latents(len(fresh.inputs))
        slots, output, losses = act_call(model, slots, fresh, z0, "stablemax")
        losses.total.mean().backward()
        kept = {"loss": losses.total, "lm_loss": losses.lm, "q_halt_loss": losses.q_halt}
        if entry["q_continue_target"]:
            kept["q_continue_loss"] = losses.q_continue
        values = {name: value.detach().sum() for name, value in kept.items()}
        values |= {"halted": slots.halted, "steps": slots.steps}
        values |= {name: getattr(output, name).detach() for name in ("q_halt_logits", "q_continue_logits")}

        def rate(base: float, update: int = call + 1) -> float:
            return schedule(
                base,
                update,
                warmup_steps=full["warmup_steps"],
                total_steps=full["total_steps"],
                min_lr_ratio=full["min_ratio"],
            )

        if recipe == "traj_full":
            optimizer.param_groups[0]["lr"] = rate(full["base_lr"])
            values["lr"] = torch.tensor(rate(full["base_lr"]), dtype=torch.float64)
        optimizer.step()
        optimizer.zero_grad()
        if model.puzzle_emb is not None:
            gradient, times = model.puzzle_emb.take_gradients()
            if recipe == "traj_full":
                puzzle_rate = rate(full["puzzle_base_lr"])
                decay = full["puzzle_weight_decay"]
                sign_sgd(model.puzzle_emb.weights, gradient, times > 0, lr=puzzle_rate, weight_decay=decay)
        ema.update()
        for name, value in values.items():
            trace.setdefault(name, []).append(value)
    for name, steps in trace.items():
        reference.check(f"{recipe}/{name}", torch.stack(steps))
    stored = {key.removeprefix(f"{recipe}/") for key in reference.keys if key.startswith(f"{recipe}/")}
    assert {key for key in stored if "/" not in key} == set(trace)
    state = model.state_dict()
    for key in sorted(stored - set(trace)):
        kind, _, name = key.partition("/inner.")
        tensor = (ema.shadow if kind.startswith("ema") else state)[name].double()
        value = {"final": tensor, "sum": tensor.sum(), "l2": tensor.norm()}[kind.rpartition("_")[2]]
        reference.check(f"{recipe}/{key}", value)


@pytest.fixture(scope="module")
def ops() -> Reference:
    if OPS is None:
        pytest.skip(f"{FOLDER} has no file of single operations")
    return Reference(OPS)


def test_rms_norm(ops):
    ops.check("norm/y", rms_norm(ops["norm/x"], 1e-5))
    ops.check("norm/y_small", rms_norm(ops["norm/x_small"], 1e-5))


def test_rotary(ops):
    cos, sin = rotary_tables(30, 12, 10000.0)
    ops.check("rope/cos", cos)
    ops.check("rope/sin", sin)
    for name in ("q", "k"):
        ops.check(f"rope/{name}_rot", rotate(ops[f"rope/{name}"].transpose(1, 2), cos, sin).transpose(1, 2))


def test_attention(ops):
    attention = Attention(24, 3, torch_generator(0, "init"))
    attention.load_state_dict({f"{n}.weight": ops[f"attn/{n}.weight"] for n in ("qkv_proj", "o_proj")})
    ops.check("attn/y_norope", attention(ops["attn/x"], None))
    ops.check("attn/y_rope", attention(ops["attn/x"], rotary_tables(11, 8, 10000.0)))


def test_swiglu(ops):
    swiglu = SwiGLU(10, 4.0, torch_generator(0, "init"))
    swiglu.load_state_dict({f"{n}.weight": ops[f"swiglu/{n}.weight"] for n in ("gate_up_proj", "down_proj")})
    ops.check("swiglu/y", swiglu(ops["swiglu/x"]))
    for hidden, expansion, width in ops.config["swiglu_inter"]:
        assert swiglu_width(hidden, expansion) == width


def test_initialiser(ops):
    for i, std in enumerate(ops.config["init"]["stds"]):
        ops.check(f"init/{i}/value", truncated_normal_from_uniform(ops[f"init/{i}/u"], std))


@pytest.mark.parametrize("name", ["stablemax", "softmax"])
def test_token_losses(ops, name):
    logits = ops["loss/logits"].clone().requires_grad_()
    losses = TOKEN_LOSSES[name](logits, ops["loss/labels"].long())
    losses.sum().backward()
    ops.check(f"loss/{name}/per_position", losses)
    ops.check(f"loss/{name}/grad", logits.grad)


@pytest.mark.parametrize("variant", ["adam_atan2", "adam_atan2_sched"])
def test_adam_atan2_and_ema(ops, variant):
    settings = ops.config["opt"]
    model = torch.nn.ParameterDict({name: ops[f"opt/p0/{name}"].clone() for name in ("w", "b")})
    beta1, beta2 = settings["betas"]
    optimizer = AdamATan2(
        model.parameters(), lr=settings["lr"], beta1=beta1, beta2=beta2, weight_decay=settings["weight_decay"]
    )
    ema = EMA(model, settings["ema_rate"])
    after = {name: [] for name in model}
    shadows = {name: [] for name in model}
    for step in range(settings["steps"]):
        if variant == "adam_atan2_sched":
            s = settings["schedule_variant"]
            optimizer.param_groups[0]["lr"] = schedule(
                s["base_lr"],
                step + 1,
                warmup_steps=s["warmup_steps"],
                total_steps=s["total_steps"],
                min_lr_ratio=s["min_ratio"],
            )
        for name in model:
            model[name].grad = ops[f"opt/grads/{name}"][step].clone()
        optimizer.step()
        ema.update()
        for name in model:
            after[name].append(model[name].detach().clone())
            shadows[name].append(ema.shadow[name].clone())
    for name in model:
        ops.check(f"opt/{variant}/p_after/{name}", torch.stack(after[name]))
        if variant == "adam_atan2":
            ops.check(f"opt/ema/shadow_after/{name}", torch.stack(shadows[name]))
            ops.check(f"opt/adam_atan2/m_final/{name}", optimizer.state[model[name]]["m"])
            ops.check(f"opt/adam_atan2/v_final/{name}", optimizer.state[model[name]]["v"])


def test_adamw(ops):
    settings = ops.config["opt"]
    beta1, beta2 = settings["betas"]
    params = {name: torch.nn.Parameter(ops[f"opt/p0/{name}"].clone()) for name in ("w", "b")}
    optimizer = OPTIMIZERS["adamw"](
        params.values(), lr=settings["lr"], beta1=beta1, beta2=beta2, weight_decay=settings["weight_decay"]
    )
    for step in range(settings["steps"]):
        for name, parameter in params.items():
            parameter.grad = ops[f"opt/grads/{name}"][step].clone()
        optimizer.step()
        for name, parameter in params.items():
            error = (parameter - ops[f"opt/adamw/p_after/{name}"][step]).abs().max().item()
            assert error <= ops.keys[f"opt/adamw/p_after/{name}"]["atol"]


def test_sign_sgd(ops):
    weights = ops["signsgd/weights_before"].clone()
    ids = ops["signsgd/ids"].long()
    gradient = torch.zeros_like(weights).index_add(0, ids, ops["signsgd/grads"])
    sign_sgd(weights, gradient, ids.bincount(minlength=len(weights)) > 0, **ops.config["signsgd"])
    ops.check("signsgd/weights_after", weights)


def test_schedule(ops):
    for i, s in enumerate(ops.config["lr"]):
        rates = [
            schedule(
                s["base_lr"],
                step,
                warmup_steps=s["warmup_steps"],
                total_steps=s["total_steps"],
                min_lr_ratio=s["min_ratio"],
            )
            for step in s["steps"]
        ]
        ops.check(f"lr/{i}/values", torch.tensor(rates, dtype=torch.float64))


def test_sudoku_augmentation(ops):
    for i in range(4):
        drawn = {name: ops[f"data/sudoku/aug{i}/{name}"].numpy() for name in ("row_perm", "col_perm", "digit_map")}
        transpose = ops[f"data/sudoku/aug{i}/transpose"].numpy().astype(bool)
        augmentation = Augmentation(transpose=transpose, **{name: value[None] for name, value in drawn.items()})
        for grid in ("board", "solution"):
            moved = augmentation.apply(ops[f"data/sudoku/{grid}"].numpy()[None])
            assert np.array_equal(moved[0], ops[f"data/sudoku/aug{i}/{grid}"].numpy())


def test_dihedral_images(ops):
    inverse = ops.config["dihedral_inverse"]
    for identifier, turn in enumerate(DIHEDRAL):
        for x, y in (("x", "y"), ("x_rect", "y_rect")):
            original = ops[f"data/dihedral/{x}"].numpy()
            assert np.array_equal(turn(original), ops[f"data/dihedral/{y}{identifier}"].numpy())
            assert np.array_equal(DIHEDRAL[inverse[identifier]](turn(original)), original)


def test_sudoku_augmentation_is_drawn_as_published(ops):
    for i, seed in enumerate(ops.config["sudoku_aug_numpy_legacy_seeds"]):
        drawn = published_augmentation(3, np.random.RandomState(seed))
        for name in ("row_perm", "col_perm", "digit_map", "transpose"):
            assert np.array_equal(getattr(drawn, name).ravel(), ops[f"data/sudoku/aug{i}/{name}"].numpy())


def test_published_order(ops):
    """The published loader's two training passes over a toy set of groups, and where it drops the rest."""
    settings = ops.config["toy_loader"]
    groups = ops["data/toy/group_indices"].long().numpy()
    step = 0
    for iteration in range(2):
        inputs = ops[f"data/toy/train_iter{iteration}/inputs"]
        identifiers = ops[f"data/toy/train_iter{iteration}/puzzle_identifiers"]
        for batch in range(len(inputs)):
            rows = published_rows(
                groups, settings["seed"], step, settings["global_batch_size"], settings["epochs_per_iter"]
            )
            assert np.array_equal(ops["data/toy/inputs"][rows], inputs[batch])
            assert np.array_equal(ops["data/toy/puzzle_identifiers"][rows], identifiers[batch])
            step += 1
