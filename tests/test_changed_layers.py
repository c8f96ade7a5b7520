"""Layers that were changed after construction: computed if only weights differ, else refused or warned of by name."""

import copy
import gc
import importlib
import pickle
import threading
import warnings
import weakref

import models
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

PIXELS = models.image(2, 64, 64)
IDS = torch.ones(1, 8, dtype=torch.int64)


@pytest.fixture
def vision():
    return models.build_ours("vision", "tiny")


def run(model, pixels=PIXELS):
    with torch.no_grad():
        return model(pixels, num_look_close=1).last_hidden_state


def plain(model, path, weight):
    """A copy of the untouched model with one weight assigned."""
    twin = models.build_ours("vision", "tiny")
    with torch.no_grad():
        twin.get_parameter(path).copy_(weight)
    return twin


# ---- reparametrised weights ------------------------------------------------------------------------------------------

REPARAMETRISED = {
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    "prune twice": lambda layer: prune.random_unstructured(
        prune.l1_unstructured(layer, "weight", amount=0.3), "weight", amount=0.3
    ),
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "parametrizations.weight_norm": nn.utils.parametrizations.weight_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", REPARAMETRISED)
def test_reparametrised_weights_are_computed(vision, name):
    layer = vision.vision_model.trunk.blocks[0].attn.proj
    run(vision)
    REPARAMETRISED[name](layer.eval())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = run(vision)
    path = "vision_model.trunk.blocks.0.attn.proj.weight"
    assert torch.equal(got, run(plain(vision, path, layer.weight)))
    assert not torch.equal(got, run(models.ours("vision", "tiny")))


def test_a_pruned_layer_follows_its_weight(vision):
    """`weight` is computed from weight_orig before each pass, as torch's hook does: edits, dtypes and removal count."""
    layer = vision.vision_model.trunk.blocks[1].mlp.fc1
    prune.l1_unstructured(layer, "weight", amount=0.5)
    with torch.no_grad():
        layer.weight_orig.mul_(2)
    doubled = run(vision)
    path = "vision_model.trunk.blocks.1.mlp.fc1.weight"
    assert torch.equal(doubled, run(plain(vision, path, layer.weight_orig * layer.weight_mask)))
    vision.to(torch.bfloat16)
    assert run(vision, PIXELS.bfloat16()).dtype == torch.bfloat16
    vision.float()
    prune.remove(layer, "weight")
    assert torch.isfinite(run(vision)).all()


def test_pruned_parameters_of_other_modules(vision):
    for module, name in [
        (vision.vision_model.trunk, "pos_embed"),
        (vision.vision_model, "prior_prompt"),
        (vision.vision_model.trunk.attn_pool, "latent"),
        (vision.vision_model.trunk.blocks[0].norm1, "bias"),
    ]:
        prune.random_unstructured(module, name, amount=0.5)
    assert torch.isfinite(run(vision)).all()
    text = models.build_ours("text", "siglip2")
    prune.l1_unstructured(text.text_model.transformer.resblocks[0].attn, "in_proj_weight", amount=0.5)
    with torch.no_grad():
        assert not torch.equal(text(IDS).prompt, models.ours("text", "siglip2")(IDS).prompt)


def test_an_attribute_that_is_no_tensor(vision):
    norm = vision.vision_model.trunk.norm
    del norm.weight
    with pytest.raises(AttributeError, match="has no parameter 'trunk.norm.weight'"):
        run(vision)
    norm.weight = 1.0
    with pytest.raises(
        TypeError, match="parameter 'trunk.norm.weight' of PS3VisionEncoder: got float, expected a tensor"
    ):
        run(vision)


# ---- replicas --------------------------------------------------------------------------------------------------------


@pytest.fixture
def replicate(monkeypatch):
    """torch.nn.parallel.replicate, on the CPU: each replica has copies of the weights."""
    module = importlib.import_module("torch.nn.parallel.replicate")
    copies = lambda tensors, devices, detach=False: [[t.clone() for t in tensors] for _ in devices]  # noqa: E731
    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", copies)
    monkeypatch.setattr(module, "_replicatable_module", lambda *args, **options: True)
    return lambda model: module.replicate(model, [0, 1], detach=True)


def test_replicas_compute_with_their_own_weights(vision, replicate):
    expected = run(vision)
    replicas = replicate(vision)
    results = {}
    work = lambda i: results.update({i: run(replicas[i], PIXELS[i : i + 1])})  # noqa: E731
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.cat([results[0], results[1]]), expected)
    replicas[0].vision_model.trunk.blocks[0].norm1.weight.zero_()
    assert not torch.equal(run(replicas[0]), expected)
    assert torch.equal(run(replicas[1]), expected) and torch.equal(run(vision), expected)


def test_replicas_are_not_kept(vision, replicate):
    """DataParallel makes new ones at each call: the cache of a model must not hold their weights."""
    alive = []
    for _ in range(3):
        replicas = replicate(vision)
        run(replicas[0])
        alive.append(weakref.ref(replicas[0].vision_model))
        del replicas
    gc.collect()
    assert [one() for one in alive] == [None, None, None]


def test_replicas_of_a_text_model(replicate):
    text = models.build_ours("text", "siglip2")
    with torch.no_grad():
        assert torch.equal(replicate(text)[1](IDS).prompt, text(IDS).prompt)


# ---- changes that the engine does not compute ------------------------------------------------------------------------


def block(model, index=0):
    return model.vision_model.trunk.blocks[index]


def delete(blocks, index):
    del blocks[index]


TRUNK = "trunk.blocks.0"
CHANGES = {
    "eps": (lambda m: setattr(block(m).norm1, "eps", 0.1), rf"{TRUNK}.norm1.eps: got 0.1, expected 1e-06"),
    "another norm": (
        lambda m: setattr(block(m), "norm2", nn.LayerNorm(192, eps=0.1)),
        rf"{TRUNK}.norm2.eps: got 0.1, expected 1e-06",
    ),
    "activation": (lambda m: setattr(block(m).mlp, "act", nn.ReLU()), rf"{TRUNK}.mlp: got .* new part 'act'"),
    "activation function": (lambda m: setattr(block(m).mlp, "act", torch.relu), rf"{TRUNK}.mlp.act: got .*relu"),
    "attention scale": (lambda m: setattr(block(m).attn, "scale", 1.0), rf"{TRUNK}.attn.scale: got 1.0, expected none"),
    "heads": (lambda m: setattr(block(m).attn, "num_heads", 1), rf"{TRUNK}.attn.num_heads: got 1, expected"),
    "stride": (
        lambda m: setattr(m.vision_model.trunk.patch_embed.proj, "stride", (1, 1)),
        r"trunk.patch_embed.proj.stride: got \(1, 1\), expected",
    ),
    "padding": (
        lambda m: setattr(m.vision_model.highres_selection_feature_module.blocks[0].conv_dw, "padding", (0, 0)),
        r"highres_selection_feature_module.blocks.0.conv_dw.padding: got \(0, 0\), expected \(3, 3\)",
    ),
    "forward of a layer": (
        lambda m: setattr(block(m).mlp.fc1, "forward", lambda x: x),
        rf"{TRUNK}.mlp.fc1.forward: got a function of its own",
    ),
    "forward of a block": (
        lambda m: setattr(block(m), "forward", lambda x: x),
        rf"{TRUNK}.forward: got a function of its own",
    ),
    "appended": (
        lambda m: m.vision_model.trunk.blocks.append(copy.deepcopy(block(m))),
        "trunk.blocks: got .* new part",
    ),
    "removed": (lambda m: delete(m.vision_model.trunk.blocks, 1), "trunk.blocks: got a layer without part"),
    "another type": (
        lambda m: setattr(block(m), "norm1", nn.RMSNorm(192)),
        rf"{TRUNK}.norm1: got a torch.nn.modules.normalization.RMSNorm in place of",
    ),
    "identity": (lambda m: setattr(m.vision_model.trunk, "norm", nn.Identity()), "trunk.norm: got a .*Identity"),
}


@pytest.mark.parametrize("first", [False, True], ids=["after a call", "before any call"])
@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_refused(vision, name, first):
    change, message = CHANGES[name]
    if not first:
        run(vision)
    change(vision)
    for _ in range(2):  # at every call
        with pytest.raises(TypeError, match=message):
            run(vision)
    with pytest.raises(TypeError, match=message):
        vision.vision_model.forward_low_res(PIXELS)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_is_held_against_what_was_constructed(vision, copied):
    block(vision).norm1.eps = 0.1
    with pytest.raises(TypeError, match=rf"{TRUNK}.norm1.eps"):
        run(copied(vision))


def test_a_change_that_is_undone(vision):
    expected = run(vision)
    saved = block(vision).norm1.eps
    block(vision).norm1.eps = 0.1
    with pytest.raises(TypeError):
        run(vision)
    block(vision).norm1.eps = saved
    assert torch.equal(run(vision), expected)


def test_changes_of_a_text_model():
    for change, message in [
        (lambda b: setattr(b.ln_1, "eps", 0.1), "transformer.resblocks.0.ln_1.eps: got 0.1"),
        (lambda b: setattr(b.mlp, "gelu", nn.ReLU()), "transformer.resblocks.0.mlp.gelu: got a .*ReLU in place"),
        (lambda b: setattr(b.attn, "num_heads", 1), "transformer.resblocks.0.attn.num_heads: got 1"),
        (lambda b: setattr(b.attn, "forward", None), "transformer.resblocks.0.attn.forward: got a function"),
    ]:
        model = models.build_ours("text", "siglip2")
        change(model.text_model.transformer.resblocks[0])
        with torch.no_grad(), pytest.raises(TypeError, match=message):
            model(IDS)


def test_equal_layers_in_place_of_others(vision):
    """Only weights differ: computed."""
    blocks = vision.vision_model.trunk.blocks
    blocks[0] = copy.deepcopy(blocks[1])
    blocks[1].mlp.fc1 = nn.Linear(blocks[1].mlp.fc1.in_features, blocks[1].mlp.fc1.out_features)
    blocks[1].norm1 = nn.LayerNorm(192, eps=blocks[1].norm2.eps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.isfinite(run(vision)).all()


# ---- hooks -----------------------------------------------------------------------------------------------------------


def hooked(model):
    """What each of two passes warns of."""
    found = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(model)
        found.append([str(one.message) for one in caught])
    return found


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_inside_are_warned_of_once(vision, register):
    expected = run(vision)
    handles = [getattr(layer, register)(lambda *args: None) for layer in vision.vision_model.trunk.blocks]
    first, second = hooked(vision)
    assert len(first) == 1 and second == []
    assert first[0].startswith("trunk.blocks.0: got a forward hook; trunk.blocks.1: got a forward hook")
    for handle in handles:
        handle.remove()
    assert torch.equal(run(vision), expected)


def test_global_hooks_and_patched_classes(vision, monkeypatch):
    run(vision)
    handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        first, second = hooked(vision)
    finally:
        handle.remove()
    assert len(first) == 1 and first[0].startswith("every layer: got a global forward hook") and second == []
    monkeypatch.setattr(nn.LayerNorm, "forward", lambda self, x: x)
    with pytest.warns(UserWarning, match="trunk.blocks.0.norm1: got LayerNorm.forward from"):
        run(vision)


def test_hooks_of_the_whole_model_are_called(vision):
    calls = []
    for module in (vision, vision.vision_model):
        module.register_forward_hook(lambda *args: calls.append(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(vision)
    assert len(calls) == 2


def test_parametrised_layers_are_no_change(vision):
    class Same(nn.Module):
        def forward(self, weight):
            return weight

    expected = run(vision)
    parametrize.register_parametrization(block(vision).mlp.fc1, "weight", Same())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(run(vision), expected)
