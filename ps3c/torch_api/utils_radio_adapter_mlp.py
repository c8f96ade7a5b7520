"""The MLP that maps C-RADIO's features into SigLIP's space: parameters only, the engine computes it."""

from torch import nn

from .layers import ParameterHolder


class AdapterV1(ParameterHolder):
    """fc1, LayerNorm, ReLU, then `num_inner` times (Linear, LayerNorm, ReLU), fc2."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_inner: int = 0):
        super().__init__()
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        inner = []
        for _ in range(num_inner):
            inner += [nn.Linear(hidden_dim, hidden_dim), nn.LayerNorm(hidden_dim), nn.ReLU()]
        self.inner = nn.Sequential(*inner)
        self.fc2 = nn.Linear(hidden_dim, output_dim)


class AdapterV2(ParameterHolder):
    """fc1, then `num_inner` times x + Linear(GELU(LayerNorm(x))), then LayerNorm, GELU, Linear."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_inner: int = 0):
        super().__init__()
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.LayerNorm(hidden_dim), nn.GELU(), nn.Linear(hidden_dim, hidden_dim))
                for _ in range(num_inner)
            ]
        )
        self.final = nn.Sequential(nn.LayerNorm(hidden_dim), nn.GELU(), nn.Linear(hidden_dim, output_dim))


ADAPTERS = {"v1": AdapterV1, "v2": AdapterV2}


def create_mlp_from_config(
    version: str | None, input_dim: int, hidden_dim: int, output_dim: int, num_inner: int
) -> nn.Module:
    """The adapter of `version` ("v1" or "v2").

    Raises:
        ValueError: an unknown version, or a size that is not a positive integer (num_inner: 0 or more).
    """
    if version not in ADAPTERS:
        raise ValueError(f"radio_adapter_mlp_version: got {version!r}, expected 'v1' or 'v2'")
    sizes = {"input_dim": input_dim, "hidden_dim": hidden_dim, "output_dim": output_dim, "num_inner": num_inner}
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < (0 if name == "num_inner" else 1):
            raise ValueError(
                f"radio_adapter_mlp_{name}: got {size!r}, expected a positive integer"
                + (" or 0" if name == "num_inner" else "")
            )
    return ADAPTERS[version](input_dim, hidden_dim, output_dim, num_inner)
