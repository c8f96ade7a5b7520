"""Makes the PS3 classes known to transformers' AutoConfig, AutoModel, AutoImageProcessor and AutoTokenizer."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from .configuration_ps3 import PS3Config, PS3TextConfig, PS3VisionConfig
from .image_processing_ps3 import PS3ImageProcessor
from .modeling_ps3 import PS3Model, PS3TextModel, PS3VisionModel
from .tokenization_ps3 import PS3Tokenizer


def register() -> None:
    """May be called any number of times, and beside programs that register the classes themselves."""
    for config, model in ((PS3Config, PS3Model), (PS3VisionConfig, PS3VisionModel), (PS3TextConfig, PS3TextModel)):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
    for config in (PS3Config, PS3VisionConfig):
        AutoImageProcessor.register(config, slow_image_processor_class=PS3ImageProcessor, exist_ok=True)
    for config in (PS3Config, PS3TextConfig):
        AutoTokenizer.register(config, slow_tokenizer_class=PS3Tokenizer, exist_ok=True)
