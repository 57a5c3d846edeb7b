"""The numbers of the published code: a file for each model, its tensors and tolerances, and our model of its shape.

RRM_REFERENCE names another folder of the same format; the default is the project's own copy.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rrm.models import HRMConfig, TRMConfig, build_model
from rrm.models.base import BaseModel
from rrm.streams import torch_generator

OWN = Path(__file__).parents[1] / "data" / "reference"
FOLDER = Path(os.environ.get("RRM_REFERENCE", OWN))
INDEX = json.loads((FOLDER / "index.json").read_text())
CASES = {entry["case"]: entry for entry in INDEX["files"] if "model" in entry}
OPS = next((entry for entry in INDEX["files"] if entry["case"] == "ops"), None)


class Reference:
    """A reference file: its tensors, and a check at the tolerance that the index states for each."""

    def __init__(self, entry: dict[str, Any]):
        self.entry = entry
        self.keys = entry["keys"]
        self.config = entry["config"]
        self.tensors = load_file(FOLDER / entry["file"])

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def check(self, key: str, value: torch.Tensor | float) -> None:
        expected, facts = self.tensors[key], self.keys[key]
        value = torch.as_tensor(value).detach().reshape(expected.shape)
        if facts.get("exact"):
            assert torch.equal(value.to(expected.dtype), expected), key
        else:
            error = (value.double() - expected.double()).abs().max().item()
            assert error <= facts["atol"], f"{key}: off by {error:.3g}, allowed {facts['atol']:.3g}"

    def state(self) -> dict[str, torch.Tensor]:
        """The weights under the names of the ACT wrapper, `inner.*`."""
        return {key.removeprefix("state/"): t for key, t in self.tensors.items() if key.startswith("state/")}

    def model_config(self) -> HRMConfig | TRMConfig:
        """Our config of its model."""
        kind = HRMConfig if self.entry["model"] == "HRM" else TRMConfig
        ours = {name: self.config[name] for name in kind.model_fields if name in self.config}
        extra = {"arch": "hrm"} if kind is HRMConfig else {"arch": "trm", "single_z": "single" in self.entry["model"]}
        return kind.model_validate(ours | extra)

    def model(self) -> BaseModel:
        """Our model of its shape, with weights of its own."""
        return build_model(
            self.model_config(),
            seq_len=self.config["seq_len"],
            vocab_size=self.config["vocab_size"],
            num_puzzles=self.config["num_puzzle_identifiers"],
            generator=torch_generator(0, "init"),
        )
