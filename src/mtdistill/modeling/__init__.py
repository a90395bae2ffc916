"""T5 models as this project uses them: configuration and loading, and a fast forward pass for training on CPUs."""

from mtdistill.modeling.t5 import load_model, t5_config, use_dropout, use_layer_drop

__all__ = ["load_model", "t5_config", "use_dropout", "use_layer_drop"]
