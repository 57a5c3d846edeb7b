"""The base of every config class: frozen, strict, and unknown keys are refused by name."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen pydantic model; a wrong type or an unknown key raises pydantic's ValidationError."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
