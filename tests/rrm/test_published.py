"""Published checkpoints load as they are, and compute what they computed; what does not fit is one clear error."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from published import all_config, publish, write_all_config
from reference import CASES, FOLDER, OWN, Reference
from tiny import MULTI, tiny_config

from rrm import checkpoint
from rrm.checkpoint import CheckpointError, serialise
from rrm.config import TrialConfig
from rrm.models.act import Batch
from rrm.models.base import BaseModel
from rrm.models.published import InitFrom, check_fit, initial_state
from rrm.puzzles.formats import DataError
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer

pytestmark = pytest.mark.skipif(FOLDER != OWN, reason="RRM_REFERENCE names a folder with cases of its own")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    set_up_torch(1)


def loaded(path: Path, reference: Reference) -> BaseModel:
    model = reference.model()
    model.load_state_dict(initial_state(path, reference.model_config(), model.state_dict()))
    return model


def assert_computes_the_published_numbers(model: BaseModel, reference: Reference) -> None:
    model.eval()
    batch = Batch(*(reference[f"batch/{name}"].long() for name in Batch._fields))
    latents, logits, halting = model.initial_latents(len(batch.inputs)), [], []
    with torch.no_grad():
        for _ in range(model.halt_max_steps):
            latents, output = model.act_step(latents, batch)
            logits.append(output.logits)
            halting.append(output.q_halt_logits)
    reference.check("unroll/logits", torch.stack(logits))
    reference.check("unroll/q_halt_logits", torch.stack(halting))


def trial_of(reference: Reference, path: Path, box: int) -> TrialConfig:
    return tiny_config(
        task={"box": box, "generate": {"puzzles": 2, "blanks": 4}},
        eval={"n": 2},
        init_from={"name": str(path)},
    ).model_copy(update={"model": reference.model_config()})


def refusal(path: Path, reference: Reference, **changes: Any) -> list[str]:
    """The lines of the one error, the file's own first; `changes` are the trial's model config's."""
    config = reference.model_config().model_copy(update=changes)
    with pytest.raises(CheckpointError) as error:
        check_fit(path, config, seq_len=reference.config["seq_len"], vocab_size=reference.config["vocab_size"])
    first, *lines = str(error.value).split("\n  ")
    assert first == f"{path}: does not fit the model"
    return lines


@pytest.mark.parametrize("case", sorted(CASES))
def test_every_architecture_with_its_configuration_beside_it(case, tmp_path):
    reference = Reference(CASES[case])
    write_all_config(tmp_path, all_config(reference))
    assert_computes_the_published_numbers(loaded(publish(tmp_path, reference.state()), reference), reference)


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "",
            "inner.",
            "model.inner.",
            "_orig_mod.",
            "model._orig_mod.inner.",
            "module.",
            "module._orig_mod.model.inner.",
        ),
        *("_orig_mod.module.", "module.module.", "model.module.inner._orig_mod."),
    ],
)
def test_prefixes_in_any_order(prefix, tmp_path):
    reference = Reference(CASES["trm_att_prefix4"])
    path = publish(tmp_path, reference.state(), prefix=prefix)
    assert_computes_the_published_numbers(loaded(path, reference), reference)


def test_tables_that_the_published_code_computes_anew_are_ignored(tmp_path):
    reference = Reference(CASES["trm_att_prefix4"])
    derived = {"rotary_emb.cos_cached": 3, "rotary_emb.sin_cached": 3, "puzzle_emb.local_weights": 2}
    tables = {f"inner.{name}": torch.ones(size) for name, size in derived.items()}
    tables["inner.puzzle_emb.local_ids"] = torch.ones(2, dtype=torch.int32)
    path = publish(tmp_path, reference.state() | tables)
    assert_computes_the_published_numbers(loaded(path, reference), reference)


def test_bfloat16_becomes_float32(tmp_path):
    reference = Reference(CASES["hrm_rope"])
    rounded = {name: tensor.bfloat16() for name, tensor in reference.state().items()}
    shapes = reference.model().state_dict()
    path = publish(tmp_path, rounded)
    state = initial_state(path, reference.model_config(), shapes)
    assert state.keys() == shapes.keys()
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, rounded[f"inner.{name}"].float())
    one_row = initial_state(path, reference.model_config(), shapes | {"puzzle_emb.weights": torch.empty(1, 32)})
    assert torch.equal(one_row["puzzle_emb.weights"][0], rounded["inner.puzzle_emb.weights"].float().mean(dim=0))


def test_a_trial_starts_at_the_checkpoint_and_so_does_its_average(tmp_path):
    reference = Reference(CASES["hrm_learned"])
    write_all_config(tmp_path, all_config(reference))
    trainer = Trainer(trial_of(reference, publish(tmp_path, reference.state()), box=2), CPU)
    assert_computes_the_published_numbers(trainer.model, reference)
    weights = trainer.weights()
    assert all(torch.equal(weights[name.removeprefix("inner.")], t) for name, t in reference.state().items())
    trainer.train_until(0)
    assert trainer.history[0]["step"] == 0
    assert_computes_the_published_numbers(trainer.model, reference)


def test_a_puzzle_table_of_another_size_gives_its_mean_row(tmp_path):
    reference = Reference(CASES["trm_mlp"])
    trainer = Trainer(trial_of(reference, publish(tmp_path, reference.state()), box=3), CPU)
    table = reference["state/inner.puzzle_emb.weights"]
    assert len(table) == 4
    assert torch.equal(trainer.model.state_dict()["puzzle_emb.weights"], table.mean(dim=0, keepdim=True))
    assert torch.equal(trainer.weights()["lm_head.weight"], reference["state/inner.lm_head.weight"])
    larger = reference.model().state_dict() | {"puzzle_emb.weights": torch.empty(7, 32)}
    rows = initial_state(tmp_path / "step_50000", reference.model_config(), larger)["puzzle_emb.weights"]
    assert torch.equal(rows, table.mean(dim=0).repeat(7, 1))


def test_all_that_does_not_fit_is_in_one_error(tmp_path):
    reference = Reference(CASES["trm_mlp"])
    state = reference.state()
    del state["inner.lm_head.weight"], state["inner.L_init"]
    state |= {"inner.puzzle_emb.weights": torch.zeros(4, 16), "inner.extra": torch.zeros(1)}
    state["inner.q_head.bias"] = torch.tensor([float("nan"), 0.0])
    state["inner.q_head.weight"] = torch.zeros(2, 32, dtype=torch.int64)
    state["inner.H_init"] = "text"
    content = {f"_orig_mod.model.{name}": value for name, value in state.items()} | {"model.H_init": torch.zeros(32)}
    torch.save(content, tmp_path / "step_1")
    assert refusal(tmp_path / "step_1", reference) == [
        "missing: L_init, lm_head.weight",
        "unexpected: extra, model.H_init",
        "not a weight: H_init is str",
        "shape: puzzle_emb.weights has (4, 16), the model needs (1, 32)",
        "not a weight: q_head.weight is torch.int64",
        "not finite: q_head.bias holds NaN or infinite values",
    ]


def test_a_puzzle_table_on_one_side_only(tmp_path):
    reference = Reference(CASES["hrm_rope"])
    path = publish(tmp_path, reference.state())
    assert refusal(path, reference, puzzle_emb_ndim=0) == ["unexpected: puzzle_emb.weights"]
    without = {name: tensor for name, tensor in reference.state().items() if "puzzle_emb" not in name}
    assert refusal(publish(tmp_path, without), reference) == ["missing: puzzle_emb.weights"]


def test_two_latents_do_not_start_a_model_of_one(tmp_path):
    reference = Reference(CASES["trm_att_prefix4"])
    assert refusal(publish(tmp_path, reference.state()), reference, single_z=True) == ["unexpected: H_init"]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "of a torch before 1.6", "no state"])
def test_a_damaged_file_is_named(damage, tmp_path):
    reference = Reference(CASES["hrm_learned"])
    path = publish(tmp_path, reference.state())
    whole = path.read_bytes()
    if damage == "of a torch before 1.6":
        torch.save(reference.state(), path, _use_new_zipfile_serialization=False)
    elif damage == "no state":
        torch.save([1, 2], path)
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"PK\x03\x04 no", "empty": b""}[damage])
    reason = "holds a list, not a state" if damage == "no state" else "not a whole state file (File is not a zip file)"
    with pytest.raises(CheckpointError) as error:
        loaded(path, reference)
    assert (
        str(error.value)
        == f"{path}: {reason}; give a whole file that torch.save wrote (torch 1.6 or newer), or safetensors"
    )


DIFFERENT = {
    "H_cycles": 7,
    "L_cycles": 7,
    "num_heads": 1,
    "expansion": 3.5,
    "pos_encodings": "none",
    "puzzle_emb_len": 16,
    "halt_max_steps": 9,
    "rope_theta": 500.0,
    "rms_norm_eps": 1e-6,
    "no_ACT_continue": False,
}


def test_each_difference_from_the_configuration_beside_it_is_named(tmp_path):
    """None of them shows in a shape, but each gives other numbers."""
    reference = Reference(CASES["trm_att_prefix4"])
    path = publish(tmp_path, reference.state())
    write_all_config(tmp_path, all_config(reference, **DIFFERENT))
    ours = reference.model_config().model_dump()
    lines = refusal(path, reference)
    assert lines.pop() == "(to change the model on purpose, put the checkpoint in a folder without all_config.yaml)"
    expected = {
        f"model.{field}: {ours[field]}, but {theirs} in all_config.yaml; set model.{field} to {theirs}"
        for field, theirs in DIFFERENT.items()
    }
    assert set(lines) == expected
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    loaded(Path(shutil.copy(path, elsewhere)), reference)


def test_what_a_published_configuration_leaves_unsaid_is_its_codes_default(tmp_path):
    reference = Reference(CASES["trm_att_prefix4"])
    path = publish(tmp_path, reference.state())
    config = all_config(reference)
    del config["arch"]["puzzle_emb_len"]
    write_all_config(tmp_path, config)
    assert refusal(path, reference, rope_theta=500.0)[:2] == [
        "model.rope_theta: 500.0, but 10000.0 in all_config.yaml; set model.rope_theta to 10000.0",
        "model.puzzle_emb_len: 4, but 16 in all_config.yaml; set model.puzzle_emb_len to 16",
    ]


def test_a_prefix_given_by_length_or_by_width_is_the_same(tmp_path):
    reference = Reference(CASES["trm_att_prefixceil"])
    path = publish(tmp_path, reference.state())
    config = reference.model_config()
    for theirs, ours in ((0, 2), (2, 0), (0, 0)):
        write_all_config(tmp_path, all_config(reference, puzzle_emb_len=theirs))
        same = config.model_copy(update={"puzzle_emb_len": ours})
        check_fit(path, same, seq_len=16, vocab_size=9)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("recursive_reasoning.trm_singlez@X", "model.single_z: False, but True in"),
        ("hrm.hrm_act_v1@X", "model.arch: trm, but hrm in"),
        ("other.thing@Model", "model.arch: trm, but other.thing@Model in"),
    ],
)
def test_another_class_is_named(name, says, tmp_path):
    reference = Reference(CASES["trm_att_prefix4"])
    path = publish(tmp_path, reference.state())
    write_all_config(tmp_path, all_config(reference, name=name, puzzle_emb_len=4))
    lines = refusal(path, reference)
    assert len(lines) == 2
    assert lines[0].startswith(says)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("arch: {H_cycles: [1\nlr: 1", "expected ',' or ']', but got ':'"),
        ("arch: !!python/object:os.system {}", "could not determine a constructor for the tag"),
        ("lr: 0.1", "it has no arch"),
        ("", "it has no arch"),
        (b"\xff\xfe", "'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_configuration_is_named(text, reason, tmp_path):
    reference = Reference(CASES["trm_att_prefix4"])
    path = publish(tmp_path, reference.state())
    (tmp_path / "all_config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    (line,) = refusal(path, reference)
    assert line.startswith(f"all_config.yaml: cannot be read ({reason}")
    assert line.endswith("); mend it, or move it away")


@pytest.mark.parametrize(
    "model", [{"arch": "trm"}, {"arch": "srm"} | dict.fromkeys(("mlp_t", "num_heads", "expansion"))]
)
def test_the_drivers_check_knows_the_shapes_of_a_trial(model, tmp_path):
    if model["arch"] == "srm":
        model = model | {"pos_encodings": None}
    config = tiny_config(model=model)
    torch.save(Trainer(config, CPU).weights(), tmp_path / "best.pt")
    check_fit(tmp_path / "best.pt", config.model, seq_len=16, vocab_size=6)
    with pytest.raises(CheckpointError, match=r"shape: lm_head.weight has \(6, 8\), the model needs \(11, 8\)"):
        check_fit(tmp_path / "best.pt", config.model, seq_len=81, vocab_size=11)


def test_identity_is_the_files_content_and_not_its_place(tmp_path):
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / place).mkdir()
        torch.save(Trainer(tiny_config(seed=seed), CPU).weights(), tmp_path / place / "best.pt")
    a, b, c = (tiny_config(init_from={"root": str(tmp_path / p), "name": "best.pt"}).trial_id() for p in "abc")
    assert a == b
    assert len({a, c, tiny_config().trial_id()}) == 3
    assert a == tiny_config(init_from={"name": str(tmp_path / "b" / "best.pt")}).trial_id()
    nowhere = str(tmp_path / "d" / "best.pt")
    with pytest.raises(DataError, match=f"{nowhere}: No such file or directory; give the path of a file that exists"):
        tiny_config(init_from={"name": nowhere}).trial_id()


def test_an_absolute_name_needs_no_root_and_leaves_one_out():
    assert InitFrom(name="/a/b").path == InitFrom(root="/c", name="/a/b").path == Path("/a/b")
    assert InitFrom(root="/c", name="a/b").path == Path("/c/a/b")
    with pytest.raises(ValueError, match="root: missing for the name 'a/b'; give its folder, or an absolute name"):
        InitFrom(name="a/b")


GO_ON = """
import sys, torch
from rrm import checkpoint
from rrm.config import TrialConfig
from rrm.torch_setup import set_up_torch
from rrm.train import Trainer
set_up_torch(1)
path, config = sys.argv[1:]
trainer = Trainer(TrialConfig.model_validate_json(config), torch.device("cpu"))
trainer.load_state_dict(checkpoint.load(path))
trainer.train_until(12)
open(path, "wb").write(checkpoint.serialise(trainer.state_dict()))
"""


def test_a_resumed_trial_goes_on_from_its_state_and_not_from_the_checkpoint(tmp_path):
    torch.save(Trainer(tiny_config(seed=3), CPU).weights(), tmp_path / "start")
    config = tiny_config(**MULTI, init_from={"name": str(tmp_path / "start")})
    unbroken, broken = Trainer(config, CPU), Trainer(config, CPU)
    unbroken.train_until(12)
    broken.train_until(5)
    state = tmp_path / "latest_state.pt"
    state.write_bytes(serialise(broken.state_dict()))
    arguments = [sys.executable, "-c", GO_ON, str(state), config.model_dump_json()]
    subprocess.run(arguments, check=True, timeout=120)
    resumed, expected = checkpoint.load(state), unbroken.state_dict()
    assert resumed["step"] == 12
    assert resumed["history"] == expected["history"]
    for part in ("model", "ema"):
        assert all(torch.equal(resumed[part][name], tensor) for name, tensor in expected[part].items())
    scratch = Trainer(tiny_config(**MULTI), CPU)
    scratch.train_until(12)
    assert not torch.equal(scratch.model.lm_head.weight, unbroken.model.lm_head.weight)
