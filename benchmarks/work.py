"""Computes the useful work of PS3's forward passes, in floating-point operations, from a model's sizes.

It counts the matrix products of the trunk's blocks, attention's two products (with the head dim without padding), the
patch embedding and the selection network. It does not count norms, activations, softmax and resampling, nor work that
the result does not need: unused outputs of the selection network, padding, an unused attention pool.
"""

from dataclasses import dataclass


@dataclass
class Work:
    width: int
    depth: int
    hidden: int  # of the blocks' MLP
    patch: int
    low_tokens: int
    select_layers: int
    look_tokens: int  # of a full look
    conv: dict[str, int]  # hidden, out, depth, kernel_size of the selection's convolution network; empty if it has none

    @classmethod
    def of(cls, encoder) -> "Work":
        """The work of a PS3VisionEncoder of ps3c."""
        config = encoder.config
        conv = {}
        if config.highres_selection_feature:
            conv = {name: getattr(config, f"highres_selection_module_{name}_dim") for name in ("hidden", "out")}
            for name in ("depth", "kernel_size"):
                conv[name] = getattr(config, f"highres_selection_module_{name}")
        return cls(
            width=encoder.width,
            depth=encoder.layers,
            hidden=encoder.trunk.blocks[0].mlp.fc1.weight.shape[0],
            patch=encoder.patch_size,
            low_tokens=encoder.low_res_token_num,
            select_layers=len(config.select_based_on_layer),
            look_tokens=sum(encoder.max_select_num_each_scale),
            conv=conv,
        )

    def block_products(self, tokens: int) -> int:
        """The matrix products of one block: qkv, projection and MLP."""
        return 2 * tokens * (4 * self.width * self.width + 2 * self.width * self.hidden)

    def attention(self, queries: int, keys: int) -> int:
        """Both products of one block's attention."""
        return 4 * queries * keys * self.width

    def _pass(self, tokens: int, keys: int) -> int:
        embedding = 2 * tokens * 3 * self.patch * self.patch * self.width
        return embedding + self.depth * (self.block_products(tokens) + self.attention(tokens, keys))

    def low_res(self) -> int:
        return self._pass(self.low_tokens, self.low_tokens)

    def look(self, tokens: int) -> int:
        """One look of `tokens` tokens, which attend to each other and to the low-res tokens."""
        return self._pass(tokens, self.low_tokens + tokens)

    def selection(self) -> int:
        """The selection network and the cosines with one prompt."""
        features = self.width * self.select_layers
        work = 2 * self.low_tokens * features * (features + self.width)
        if self.conv:
            hidden, out, kernel = self.conv["hidden"], self.conv["out"], self.conv["kernel_size"]
            side = 1512 // kernel  # the network's input has 1512 x 1512 pixels for any scales
            per_position = 3 * kernel * kernel * hidden + self.conv["depth"] * 8 * hidden * hidden
            work += 2 * side * side * (per_position + hidden * out) + 2 * self.width * out
        return work

    def looks(self, selected: int) -> list[int]:
        """Tokens of each look, for `selected` patches in total."""
        whole, rest = divmod(selected, self.look_tokens)
        return [self.look_tokens] * whole + ([rest] if rest else [])

    def forward(self, selected: int) -> int:
        """One image: low-res pass, selection, and looks at `selected` patches in total."""
        return self.low_res() + self.selection() + sum(self.look(tokens) for tokens in self.looks(selected))


def text_tower(width: int, layers: int, hidden: int, length: int, batch: int) -> int:
    """The blocks of a text tower that pools one token. The projections of that single token are not counted."""
    block = 2 * length * (4 * width * width + 2 * width * hidden) + 4 * length * length * width
    return batch * layers * block
