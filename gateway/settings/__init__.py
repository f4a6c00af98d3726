"""The sections of the gateway file beside its devices: pydantic models in front, what the rooms take behind."""
