"""MODELS: every model that a study file can name. To add one: a file here, and a line below."""

from trainables.config import TrainConfig
from trainables.models.gan import GanConfig

MODELS: dict[str, type[TrainConfig]] = {"gan": GanConfig}
