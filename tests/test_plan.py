"""Plans against the reference's integers: sizes of scales, and how many patches every look takes of every scale.

The reference's own forward decides: only its trunk is replaced, by one that counts what it is given. Sizes and
arguments are random; one model's worth of weights is never made.
"""

import math
import os
import types

import pytest
import reference
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ps3c import _core

TRUNK = dict(
    width=64,
    depth=1,
    heads=1,
    mlp_hidden=64,
    norm_eps=1e-6,
    crop_positions=False,
    final_norm=True,
    tanh_gelu=False,
    separate_positions=False,
    select_layers=[0],
    highres_features=False,
    conv_width=0,
    conv_out=0,
    conv_depth=0,
    conv_kernel=0,
    adapter="none",
    adapter_hidden=0,
    adapter_out=0,
    adapter_blocks=0,
    pool_width=64,
    pool_heads=1,
    pool_hidden=64,
    pool_eps=1e-6,
)

REAL_SCALES = [
    (14, [378, 756, 1512]),
    (14, [378, 756, 1512, 3780]),
    (16, [384, 768, 1536, 3840]),
    (16, [64, 200, 300]),
    (14, [56, 112]),
]


class Unequal(Exception):
    """The images of a batch would get different numbers of patches, which no tensor can hold."""


def planner(patch: int, scales: list, quotas: list):
    """The reference's encoder with a trunk that counts. `takes` gathers [look][image][scale]."""
    encoder = reference.load().PS3VisionEncoder

    class Planner(encoder):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.config = types.SimpleNamespace(select_based_on_layer=[0], highres_selection_feature=False)
            self.ps3_scales = list(scales)
            self.trunk = types.SimpleNamespace(patch_embed=types.SimpleNamespace(patch_size=(patch, patch)))
            self.max_select_num_each_scale = list(quotas)
            self.num_hidden_layers_to_return = 1
            self.takes = []

        def forward_low_res(self, x, **_):
            tokens = (scales[0] // patch) ** 2
            return {"x": None, "hidden_states": [torch.zeros(x.shape[0], tokens, 1)], "output_kv_cache": None}

        def get_selection_probs(self, x, *_, **__):
            grids = [self.feature_size_scale_i(x, scale + 1) for scale in range(len(scales) - 1)]
            return [torch.zeros(x.shape[0], *grid) for grid in grids], None, None

        def forward_high_res(self, x, maps, **_):
            self.takes.append([[int(part.sum()) for part in image] for image in zip(*maps)])
            counts = {sum(image) for image in self.takes[-1]}
            if len(counts) > 1:
                raise Unequal(counts)
            return {"hidden_states": [torch.zeros(x.shape[0], counts.pop(), 1)]}

    return Planner()


def image(batch: int, height: int, width: int):
    """As much of an image as the reference's integers look at."""
    return types.SimpleNamespace(shape=(batch, 3, height, width))


def model(patch: int, scales: list, quotas: list):
    config = dict(TRUNK, patch=patch, grid=scales[0] // patch, scales=list(scales), max_select_num=list(quotas))
    return _core.VisionModel(config)


# ---- sizes --------------------------------------------------------------------------------------------------------


def assert_sizes(plan, encoder, x, scales):
    for index in range(len(scales)):
        assert tuple(plan.image_sizes[index]) == tuple(encoder.image_size_scale_i(x, index)), (x.shape, index)
        assert tuple(plan.grids[index]) == tuple(encoder.feature_size_scale_i(x, index)), (x.shape, index)


@pytest.mark.parametrize("patch, scales", REAL_SCALES, ids=str)
def test_sizes_of_scales(patch, scales):
    """Small sizes of every shape, then thousands of random ones."""
    quotas = [1] * (len(scales) - 1)
    encoder, core = planner(patch, scales, quotas), model(patch, scales, quotas)
    generator = torch.Generator().manual_seed(patch + len(scales))
    sizes = [(side, side) for side in range(1, 400)]
    sizes += [(height, width) for height in range(1, 30) for width in range(1, 30)]
    sizes += [tuple(pair) for pair in torch.randint(1, 3000, (1500, 2), generator=generator).tolist()]
    sizes += [(1, 100000), (100000, 1), (99999, 100000), (65537, 65536)]
    for height, width in sizes:
        plan = core.plan(1, height, width, num_look_close=0)
        assert_sizes(plan, encoder, image(1, height, width), scales)


def test_square_that_is_not():
    """378 / 49 * 49 is below 378 in floating point: a square image has 26 columns of patches at the first scale."""
    sides = [side for side in range(1, 2000) if int(378 / side * side) != 378]
    assert sides
    plan = model(14, [378, 756], [1]).plan(1, sides[0], sides[0], num_look_close=0)
    assert plan.grids == [(27, 27), (54, 52)]


# ---- looks --------------------------------------------------------------------------------------------------------


@st.composite
def requests(draw):
    patch = draw(st.sampled_from([8, 14, 16]))
    base = patch * draw(st.integers(1, 5))
    higher = draw(st.lists(st.integers(base, base * 5), min_size=1, max_size=4, unique=True))
    scales = sorted({base, *(size + 1 for size in higher)})
    if draw(st.booleans()):  # mostly whole multiples, as in every published model
        scales = sorted({base * max(scale // base, 1) for scale in scales} | {base, base * 2})
    highs = len(scales) - 1
    if draw(st.booleans()):
        quotas = draw(st.lists(st.integers(1, 120), min_size=highs, max_size=highs))
    else:
        total, pixels = draw(st.integers(highs, 300)), [scale * scale for scale in scales[1:]]
        quotas = [int(total * count / sum(pixels)) for count in pixels]
        quotas[-1] += total - sum(quotas)
    side = st.one_of(st.integers(1, 700), st.sampled_from([1, 2, base, 49, 900, 4000]))
    height = draw(side)
    width = height if draw(st.integers(0, 2)) == 0 else draw(side)
    looks = draw(st.one_of(st.none(), st.just("all"), st.integers(0, 6), st.integers(0, 400)))
    tokens = draw(st.one_of(st.none(), st.just("all"), st.integers(0, sum(quotas) * 4), st.integers(0, 5000)))
    if draw(st.integers(0, 4)):  # mostly one of the two
        looks, tokens = (looks, None) if draw(st.booleans()) else (None, tokens)
    batch = draw(st.integers(1, 3))
    first_n = None
    if draw(st.integers(0, 2)) == 0:
        first_n = draw(st.lists(st.integers(1, highs), min_size=batch, max_size=batch))
    return patch, scales, quotas, (batch, height, width), looks, tokens, first_n


@settings(max_examples=300 if "PS3C_ASAN" in os.environ else 2500, deadline=None, derandomize=True)
@given(requests())
@example((16, [64, 128, 256], [12, 52], (1, 96, 96), "all", None, None))
@example((16, [32, 64, 128, 256], [3, 13, 54], (1, 96, 96), 1, None, [1]))
@example((16, [32, 64, 128, 256], [3, 13, 54], (2, 96, 96), 3, None, [1, 3]))
@example((14, [378, 756, 1512], [512, 2048], (1, 1512, 1512), None, 3000, None))
@example((14, [378, 756, 1512], [512, 2048], (1, 1512, 1512), 2, 3000, None))
@example((16, [64, 128, 256], [12, 52], (1, 96, 96), None, None, None))
def test_takes_of_looks(request):
    patch, scales, quotas, (batch, height, width), looks, tokens, first_n = request
    encoder, x = planner(patch, scales, quotas), image(batch, height, width)
    core = model(patch, scales, quotas)

    def plan():
        return core.plan(
            batch, height, width, num_look_close=looks, num_token_look_close=tokens, first_n_scales=first_n
        )

    try:
        with torch.no_grad():
            output = encoder.forward(
                x,
                output_hidden_states=True,
                num_look_close=looks,
                num_token_look_close=tokens,
                only_select_first_n_scale=first_n,
            )
    except (UnboundLocalError, ValueError):  # both arguments and two looks; neither argument
        with pytest.raises(ValueError, match="num_look_close"):
            plan()
        return
    except Unequal:
        with pytest.raises(ValueError, match="first_n_scales"):
            plan()
        return
    except (RuntimeError, ZeroDivisionError) as error:  # a quota below 0, or no quota to share
        assert first_n is not None and ("out of range" in str(error) or isinstance(error, ZeroDivisionError)), error
        assert_sound(request, plan)
        return

    made = plan()
    assert_sizes(made, encoder, x, scales)
    takes = [[look[index] for look in encoder.takes] for index in range(batch)]
    assert made.looks == len(encoder.takes)
    assert [[list(look) for look in per_image] for per_image in made.takes] == takes
    assert made.low_res_tokens + made.selected_tokens == output.last_hidden_state.shape[1]
    assert made.selection_maps == (output.selection_maps is not None)


def assert_sound(request, plan) -> None:
    """Where the reference fails and ps3c has a meaning: looks are whole while patches last, and none is taken twice."""
    patch, scales, quotas, (batch, height, width), looks, tokens, first_n = request
    try:
        made = plan()
    except ValueError as error:
        both = looks is not None and tokens is not None and "num_look_close, num_token_look_close" in str(error)
        assert both or ("first_n_scales" in str(error) and batch > 1)
        return
    sizes = [rows * columns for rows, columns in made.grids[1:]]
    for per_image in made.takes:
        assert all(take >= 0 for look in per_image for take in look)
        taken = [sum(look[scale] for look in per_image) for scale in range(len(sizes))]
        assert all(part <= size for part, size in zip(taken, sizes))
        assert all(sum(look) <= sum(quotas) for look in per_image)


# ---- other members ---------------------------------------------------------------------------------------------------


def test_published_numbers():
    """The README's: 5849 and 3729 tokens at 4K, 88209 for all of it."""
    quotas = [85, 341, 2134]
    core = model(14, [378, 756, 1512, 3780], quotas)

    def tokens(**arguments):
        plan = core.plan(1, 3780, 3780, **arguments)
        return plan.low_res_tokens + plan.selected_tokens

    assert tokens(num_look_close=2) == 5849
    assert tokens(num_token_look_close=3000) == 3729
    assert core.plan(1, 3780, 3780, num_look_close="all").looks == math.ceil(87480 / 2560)


@pytest.mark.parametrize("mode, pooled", [("features", 0), ("pretrain", 64), ("low_res", 64)])
def test_modes(mode, pooled):
    arguments = {"num_look_close": 1} if mode == "features" else {"hidden_states": 1}
    plan = model(16, [64, 128], [10]).plan(2, 50, 60, mode=mode, **arguments)
    assert plan.pooled_width == pooled
    assert plan.looks == (0 if mode == "low_res" else 1)
    assert plan.hidden_states == (0 if mode == "pretrain" else 1)


def test_quotas_whose_products_exceed_64_bits():
    most = 2**31 - 1
    core = model(16, [64, 128, 256, 512], [most] * 3)
    plan = core.plan(1, 512, 512, num_look_close=1, num_token_look_close=3 * most)
    assert plan.takes == [[[64, 256, 1024]]]


def test_a_workspace_limit_is_kept_where_looks_can_be_split():
    core = model(16, [64, 512], [64])
    free = core.plan(4, 512, 512, num_look_close="all")
    least = core.plan(4, 512, 512, num_look_close="all", workspace_limit=1)
    tight = core.plan(
        4, 512, 512, num_look_close="all", workspace_limit=(free.workspace_bytes + least.workspace_bytes) // 2
    )
    assert least.workspace_bytes < free.workspace_bytes
    assert tight.workspace_bytes <= (free.workspace_bytes + least.workspace_bytes) // 2
