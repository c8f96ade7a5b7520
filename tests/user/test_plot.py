"""ps3c.plot: positions of patches, colours of features, refused arguments, and no figure in pyplot."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import photograph
from PIL import Image

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib, the extra `plot`, is not installed")

import ps3c  # noqa: E402
from ps3c import plot  # noqa: E402
from ps3c.plot import components  # noqa: E402

WIDE = photograph(120, 80)
TALL = photograph(60, 90, seed=1)


@pytest.fixture(scope="module")
def features(encoder):
    """Two images of different shapes and texts, two looks each."""
    return encoder.embed_images([WIDE, TALL], text=["a red boat", "$x^2$ & <b>"], looks=2, maps=True, progress=False)


@pytest.fixture(scope="module")
def output(encoder):
    """The same first image through the drop-in classes."""
    pixels = encoder.processor(WIDE)["pixel_values"][0].unsqueeze(0)
    prompt = encoder.prompt("a red boat")
    return encoder.model.vision_model(pixels, prompt=prompt, num_look_close=2, output_hidden_states=True)


def picture_axes(figure):
    """The panels, without the axes of the whole figure, which hold titles and legend."""
    return figure.axes[1:]


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def drawn(figure) -> np.ndarray:
    """The figure as pixels (height, width, 3), as saved."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


def pixel_at(figure, axes, x: float, y: float) -> np.ndarray:
    """The drawn colour at a point of a panel's own coordinates."""
    pixels = drawn(figure)
    column, row = axes.transData.transform((x, y))
    return pixels[int(len(pixels) - row), int(column)]


# ---- looks -----------------------------------------------------------------------------------------------------------


def shades(figure):
    """The colour layer (h, w, 4) of each high-res panel."""
    return [axes.images[1].get_array() for axes in picture_axes(figure)[1:]]


def test_looks_colours_every_patch_by_its_look(features):
    for index in range(2):
        layers = shades(plot.looks(None, features, index))
        colours = plot.look_colours(2)
        expected = [np.tile(colours[0], (*grid, 1)) for grid in features.grids[1:]]
        for (scale, row, column), look in zip(features.positions[index].tolist(), features.look[index].tolist()):
            if scale:
                expected[scale - 1][row, column] = colours[look]
        for layer, one in zip(layers, expected):
            np.testing.assert_array_equal(layer, one)


def test_looks_draws_a_patch_where_it_stands_in_the_image():
    """One patch in a corner is drawn in that corner, and not in that of the transposed image."""
    maps = [torch.zeros(1, 4, 8)]
    maps[0][0, 0, 6] = 1
    image = Image.new("RGB", (160, 80), "white")  # patches of 20 x 20
    figure = plot.looks(image, ps3c.modeling_ps3.PS3VisionModelOutput(selection_maps=maps))
    (axes,) = picture_axes(figure)
    orange, dark = (200, 140, 60), (120, 120, 120)
    for x, y in [(121, 1), (139, 1), (121, 19), (139, 19)]:
        red, _, blue = pixel_at(figure, axes, x, y)
        assert red > orange[0] and blue < red - 60, (x, y)
    for x, y in [(118, 10), (142, 10), (130, 22), (10, 70)]:
        assert (pixel_at(figure, axes, x, y) < dark).all(), (x, y)


def test_looks_panels_have_the_images_aspect_and_each_scale(features):
    figure = plot.looks(None, features, 1)
    figure.canvas.draw()
    panels = picture_axes(figure)
    assert len(panels) == 3
    for axes in panels:
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(60 / 90, rel=0.01)
    for text in ("64 px", "128 px", "256 px", "32 of 64 patches", "128 of 256 patches", "look 1", "look 2"):
        assert text in words(figure)
    assert "“$x^2$ & <b>”" in words(figure)  # as it is, not as a formula


def test_looks_of_looks_are_those_of_features(encoder, features):
    looks = list(encoder.looks(WIDE, "a red boat", looks=2, progress=False))
    together = shades(plot.looks(None, looks))
    for one, other in zip(together, shades(plot.looks(WIDE, features))):
        np.testing.assert_array_equal(one, other)
    # One look alone has the colour it has among the others.
    alone = shades(plot.looks(None, looks[2]))
    for one, all_of_them in zip(alone, together):
        here = (all_of_them == plot.look_colours(2)[2]).all(axis=-1)
        np.testing.assert_array_equal((one == plot.look_colours(2)[2]).all(axis=-1), here)
        assert 0 < here.sum() < here.size


def test_looks_of_a_models_output(output, features):
    layers = [axes.images[1].get_array() for axes in picture_axes(plot.looks(WIDE, output))]
    for layer, selected in zip(layers, output.selection_maps):
        np.testing.assert_array_equal((layer != plot.look_colours(1)[0]).any(axis=-1), selected[0].bool().numpy())
    assert "taken" in words(plot.looks(WIDE, output))


def test_many_looks_have_a_ramp(encoder):
    vision, quotas = encoder.model.vision_model, list(encoder.model.vision_model.max_select_num_each_scale)
    vision.max_select_num_each_scale = [8, 32]
    try:
        result = encoder.embed_images(WIDE, looks="all", progress=False)
    finally:
        vision.max_select_num_each_scale = quotas
    figure = plot.looks(None, result)
    assert {"look 1", "look 8"} <= set(words(figure)) and "look 2" not in words(figure)
    assert len(np.unique(shades(figure)[0].reshape(-1, 4), axis=0)) == 8


def test_low_resolution_alone_is_dark_and_has_no_legend(encoder):
    result = encoder.embed_images(WIDE, looks=0, progress=False)
    figure = plot.looks(None, result)
    assert all((layer == plot.look_colours(0)[0]).all() for layer in shades(figure))
    assert not any("look" in word for word in words(figure))


# ---- overlay ---------------------------------------------------------------------------------------------------------


def heat(figure, panel=0):
    return np.asarray(picture_axes(figure)[panel].images[1].get_array())


def normalised(values):
    values = np.asarray(values, np.float32)
    return (values - values.min()) / (values.max() - values.min())


def test_overlay_shows_each_probability_between_the_lowest_and_the_highest(features, output):
    for index in range(2):
        figure = plot.overlay(None, features, 2, index)
        np.testing.assert_allclose(heat(figure), normalised(features.selection_probs[1][index]), rtol=1e-6)
    low, high = features.selection_probs[1][1].min(), features.selection_probs[1][1].max()
    assert f"{low:.3g} to {high:.3g}" in words(figure) and "256 px" in words(figure)
    one = heat(plot.overlay(WIDE, output, 1))
    np.testing.assert_allclose(one, normalised(output.selection_probs[0][0]), rtol=1e-6)


def test_overlay_draws_the_likeliest_place_where_it_is():
    probs = np.full((4, 8), 0.2, np.float32)
    probs[3, 1] = 0.9
    figure = plot.overlay(Image.new("RGB", (160, 80), "grey"), probs)
    (axes,) = picture_axes(figure)
    red, _, blue = pixel_at(figure, axes, 30, 70)
    assert red > blue + 50
    red, _, blue = pixel_at(figure, axes, 130, 10)
    assert blue > red


def test_overlay_has_one_panel_where_scales_are_alike_and_one_each_otherwise(features):
    figure = plot.overlay(None, features)
    assert len(picture_axes(figure)) == 1 and "128 px and 256 px" in words(figure)
    figure = plot.overlay(WIDE, [torch.rand(1, 2, 2), torch.rand(1, 4, 4), np.random.rand(8, 8)])
    assert len(picture_axes(figure)) == 3 and {"scale 1", "scale 2", "scale 3"} <= set(words(figure))


def test_overlay_side_by_side(features):
    figure = plot.overlay(None, features, scale=1, index=[1, 0])
    assert len(picture_axes(figure)) == 2
    np.testing.assert_allclose(heat(figure, 1), normalised(features.selection_probs[0][0]), rtol=1e-6)
    assert words(figure)[0] == "“$x^2$ & <b>”\n128 px" and "“a red boat”\n128 px" in words(figure)
    figure = plot.overlay([WIDE, TALL], features, index=range(2))
    assert len(picture_axes(figure)) == 2


def test_overlay_of_a_map_without_differences():
    for value in (0.5, float("nan")):
        drawn(plot.overlay(WIDE, torch.full((4, 4), value)))


def test_overlay_of_looks(encoder):
    looks = list(encoder.looks(WIDE, looks=1, progress=False))
    expected = normalised(looks[0].probs[0])
    for result in (looks, looks[0], looks[1]):
        np.testing.assert_allclose(heat(plot.overlay(None, result, 1)), expected, rtol=1e-6)


# ---- feature maps ----------------------------------------------------------------------------------------------------


def test_components_are_numpys_svd():
    vectors = (np.random.default_rng(0).normal(size=(200, 12)) * np.arange(12, 0, -1)).astype(np.float32)
    ours = components.components(vectors)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    for column in range(3):
        expected = u[:, column] * s[column]
        sign = np.sign((expected * ours[:, column]).sum())
        np.testing.assert_allclose(ours[:, column], sign * expected, atol=1e-3 * s[column])


def test_components_sign_and_few_channels():
    vectors = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    np.testing.assert_allclose(components.components(vectors), components.components(vectors.copy()))
    assert (components.components(vectors)[:, 2] == 0).all()
    # More of the first channel is more of the first component, whatever LAPACK's sign.
    vectors = np.array([[-3, 0], [0, 1], [3, -1]], np.float32)
    assert components.components(vectors)[2, 0] > 0


def colours(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in picture_axes(figure)]


def test_feature_map_shows_components_and_leaves_the_rest_black(features):
    layers = colours(plot.feature_map(features, 1))
    maps = [one[1].numpy() for one in features.feature_maps()]
    there = [one.any(axis=0) for one in maps]
    assert [layer.shape for layer in layers] == [(4, 4, 3), (8, 8, 3), (16, 16, 3)]
    assert 0 < there[1].sum() < there[1].size
    vectors = np.concatenate([one[:, mask].T for one, mask in zip(maps, there)]).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    shown = np.concatenate([layer[mask] for layer, mask in zip(layers, there)])
    for component in range(3):
        expected, values = u[:, component] * s[component], shown[:, component]
        inside = (values > 0) & (values < 1)
        assert inside.mean() > 0.9  # beyond are the percentiles' tails
        assert abs(np.corrcoef(expected[inside], values[inside])[0, 1]) > 0.9999
    for layer, mask in zip(layers, there):
        assert (layer[~mask] == 0).all()


def test_feature_map_takes_maps_of_any_kind(encoder, output, features):
    maps = encoder.model.vision_model.format_features_into_feature_maps(output.last_hidden_state, output.selection_maps)
    listed = colours(plot.feature_map(maps))
    for one, other in zip(listed, colours(plot.feature_map(features))):
        np.testing.assert_allclose(one, other, atol=1e-3)
    for single in (maps[1], maps[1][0], maps[1][0].bfloat16(), maps[1][0].numpy()):
        (layer,) = colours(plot.feature_map(single))
        assert layer.shape == (8, 8, 3) and layer.max() > 0
    assert (colours(plot.feature_map(torch.zeros(5, 4, 4)))[0] == 0).all()


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_figures_show_and_save_themselves_without_pyplot(features, tmp_path):
    figure = plot.overlay(None, features)
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.save(tmp_path / "a.png", dpi=50)
    width, height = Image.open(tmp_path / "a.png").size
    assert (width, height) == tuple(int(side * 50) for side in figure.get_size_inches())
    code = (
        "import sys, numpy as np\nfrom ps3c import plot\n"
        "assert 'matplotlib' not in sys.modules\n"
        "image, probs = np.zeros((8, 8, 3), np.uint8), np.eye(4)\n"
        "plot.overlay(image, probs)._repr_png_()\nplot.feature_map(np.ones((4, 2, 2)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_results_show_themselves(encoder, features):
    look = next(iter(encoder.looks(WIDE, looks=1, progress=False)))
    maps = encoder.embed_images(WIDE, maps=True, progress=False)
    pooled = encoder.embed_images(WIDE, progress=False)
    for result in (features, features[1], look, maps):
        assert result._repr_png_().startswith(b"\x89PNG")
    assert pooled._repr_png_() is None
    assert features._repr_png_() == plot.looks(None, features)._repr_png_()
    assert maps._repr_png_() == plot.overlay(None, maps)._repr_png_()


def test_every_shape_of_image_is_drawn():
    for size in [(1, 1), (1, 400), (400, 1), (3000, 20), (2, 3000)]:
        figure = plot.overlay(photograph(*size), torch.rand(4, 4))
        pixels = drawn(figure)
        assert 60 < pixels.shape[0] < 700 and 200 < pixels.shape[1] < 700


def test_long_texts_are_broken_into_lines(features):
    long = ps3c.ImageFeatures(**{**vars(features[0]), "texts": ["word " * 60]})
    figure = plot.overlay(None, long)
    figure.canvas.draw()
    heading = figure.axes[0].texts[0]
    box = heading.get_window_extent()
    assert box.x1 <= figure.bbox.x1 and "\n" in heading.get_text()


def test_without_matplotlib(features, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (
        lambda: plot.overlay(None, features),
        lambda: plot.looks(None, features),
        lambda: plot.feature_map(features),
    ):
        with pytest.raises(ps3c.MissingExtraError) as caught:
            call()
        assert str(caught.value).startswith(
            "matplotlib: not installed, needed for ps3c.plot; type pip install '.[plot]'"
        )
        assert "pip install 'ps3c[plot]'" in str(caught.value)
    assert features._repr_png_() is None


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, error, words_",
    [
        (lambda f: plot.overlay(None, f, 3), ValueError, "scale: got 3, expected 1 to 2"),
        (lambda f: plot.overlay(None, f, 0), ValueError, "scale: got 0, expected 1 to 2"),
        (lambda f: plot.overlay(None, f, "1"), TypeError, "scale: got '1', expected an integer"),
        (lambda f: plot.overlay(None, f, index=2), ValueError, "index: got 2, expected 0 to 1"),
        (lambda f: plot.overlay(None, f, index=[]), ValueError, "index: got an empty list"),
        (lambda f: plot.overlay([WIDE], f, index=[0, 1]), ValueError, "image: got 1 images, expected one, or"),
        (
            lambda f: plot.overlay(None, torch.rand(4, 4)),
            ValueError,
            "image: got None, expected an image, because a Tensor",
        ),
        (lambda f: plot.overlay(None, 3), ValueError, "image: got None, expected an image, because an int"),
        (
            lambda f: plot.overlay(WIDE, torch.rand(4)),
            ValueError,
            r"probabilities: got shape \(4,\), expected \(h, w\)",
        ),
        (lambda f: plot.overlay(WIDE, []), ValueError, "result: got no probability maps"),
        (lambda f: plot.overlay(WIDE, "maps"), TypeError, "probabilities: got str, expected a tensor or an array"),
        (
            lambda f: plot.overlay(WIDE, dropped(f, "selection_probs")),
            ValueError,
            "without selection_probs, .* maps=True",
        ),
        (lambda f: plot.overlay(3, f), TypeError, "image: got int"),
        (lambda f: plot.looks(None, f, 5), ValueError, "index: got 5, expected 0 to 1"),
        (lambda f: plot.looks(WIDE, []), TypeError, "result: got an empty list, expected the looks of one image"),
        (lambda f: plot.looks(WIDE, [f]), TypeError, "result: got ImageFeatures, expected the looks of one image"),
        (
            lambda f: plot.looks(None, dropped(f, "positions", "selection_maps")),
            ValueError,
            "expected one made with looks=1 or more",
        ),
        (lambda f: plot.feature_map(torch.rand(4)), ValueError, r"features: got shape \(4,\), expected \(C, h, w\)"),
        (lambda f: plot.feature_map([]), ValueError, "features: got no maps"),
        (lambda f: plot.feature_map("maps"), TypeError, "features: got str"),
        (lambda f: plot.feature_map([torch.rand(3, 2, 2), torch.rand(4, 2, 2)]), ValueError, r"got \[3, 4\] channels"),
        (lambda f: plot.feature_map(torch.rand(1, 3, 2, 2), 1), ValueError, "index: got 1, expected 0 to 0"),
    ],
)
def test_refused(features, call, error, words_):
    with pytest.raises(error, match=words_):
        call(features)


def dropped(features, *names):
    return ps3c.ImageFeatures(**{**vars(features), **dict.fromkeys(names)})


# ---- what users have -------------------------------------------------------------------------------------------------


def pasted_heat_map(image: Image.Image, probability: np.ndarray, strength: float = 0.4) -> Image.Image:
    """As in scripts that draw probabilities themselves: a NumPy map, scaled to 0..1, enlarged and blended."""
    assert isinstance(probability, np.ndarray) and probability.ndim == 2
    scaled = (probability - probability.min()) / (probability.max() - probability.min())
    enlarged = Image.fromarray((scaled * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
    tinted = matplotlib.colormaps["jet"](np.asarray(enlarged) / 255)[..., :3]
    return Image.blend(image, Image.fromarray((tinted * 255).astype(np.uint8)), strength)


def test_helper_of_users_works_on_our_outputs(output, features):
    """Probabilities as ps3-torch gives them: floating tensors (B, h, w) that .detach().cpu().numpy() takes."""
    for maps in (output.selection_probs, features.selection_probs):
        for probability in maps:
            for one in probability.detach().cpu().numpy():
                blended = pasted_heat_map(WIDE, one)
                assert blended.size == WIDE.size and np.ptp(np.asarray(blended)) > 0
            # The other way that scripts take: a batch as channels, resized by torch.
            large = torch.nn.functional.interpolate(probability[:, None], size=(80, 120), mode="bilinear")
            assert large.shape[1:] == (1, 80, 120) and large.min() >= 0 and large.max() <= 1
