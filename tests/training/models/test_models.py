"""Every network starts as the identity, compiles, learns, and depends on no more than its halo."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from common.command_line import UserError
from configs import default
from configs import nafnet as nafnet_config
from configs import repair as repair_config
from configs import srresnet as srresnet_config
from serving.savedmodel.tiling import Tiling, restore_any_size
from training import models
from training.models import head, nafnet, repair, srresnet, unet

pytestmark = pytest.mark.slow

# Small, and with more than one block in a row and more than one resolution where a model has them.
_SMALL = {
    "unet": {"features": (4, 6, 8), "blocks": (1, 1, 2)},
    "srresnet": {"features": (4,), "blocks": (2,)},
    "nafnet": {"features": (4, 6, 8), "blocks": (1, 1, 2), "window": 5},
    "repair": {"features": (4, 6, 8), "blocks": (1, 1, 2)},
}

each_model = pytest.mark.parametrize("name", models.NAMES)
# What reads a picture and nothing else, so that an export of it can be cut into tiles by `serving`.
each_blind_model = pytest.mark.parametrize("name", [name for name in models.NAMES if name != "repair"])


def _config(name, **fields):
    config = default.get_config()
    config.model.update({"name": name, **fields})
    return config


def _small(name):
    return models.build(_config(name, **_SMALL[name]))


def _source(model, count, height, width):
    """What a network sees, random: float32 [count, height, width, C]."""
    return tf.random.stateless_uniform([count, height, width, model.network.input_shape[-1]], [0, 1])


def _randomised(model):
    """Gives every weight a value, so that nothing is hidden behind a zero-initialised layer."""
    rng = np.random.default_rng(0)
    for variable in model.network.trainable_variables:
        fan_in = np.prod(variable.shape[:-1]) if variable.shape.rank == 4 else 20
        variable.assign(rng.normal(0, 1 / np.sqrt(fan_in), variable.shape))
    return model


@each_model
def test_a_name_alone_selects_a_network_that_returns_its_input_until_it_is_taught(name):
    model = models.build(_config(name))
    source = _source(model, 1, 32, 48)
    restored, logits = model.taught(source)
    np.testing.assert_array_equal(restored, source[..., :3])
    assert logits.shape == (1, 32, 48, 1)
    assert model.network.name == name


@each_model
def test_the_same_seed_gives_the_same_weights_and_another_others(name):
    config = _config(name, **_SMALL[name])
    one, again = (models.build(config).network.get_weights() for _ in range(2))
    config.seed = 1
    other = models.build(config).network.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(one, again))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other))


@each_model
def test_any_multiple_of_the_stride_is_taken(name):
    model = _randomised(_small(name))
    for height, width in ((1, 1), (1, 3), (5, 2)):
        shape = (2, height * model.stride, width * model.stride)
        restored, logits = model.taught(_source(model, *shape))
        assert restored.shape == (*shape, 3) and logits.shape == (*shape, 1)
        assert np.isfinite(restored).all()


@each_model
def test_a_picture_is_restored_as_if_it_were_alone_in_its_batch_also_in_training(name):
    model = _randomised(_small(name))
    pictures = _source(model, 3, 32, 32)
    together = model.network(pictures, training=True)
    alone = tf.concat([model.network(pictures[k : k + 1], training=True) for k in range(3)], 0)
    np.testing.assert_allclose(together, alone, atol=1e-5)


@each_model
@pytest.mark.parametrize("axis", [1, 2])
def test_an_output_pixel_depends_on_its_halo_to_the_edge_and_not_beyond(name, axis):
    model = _randomised(_small(name))
    length = 2 * model.halo + 4 * model.stride
    length += -length % model.stride
    # Long along one axis only: what lies across it is the other axis's test.
    shape = [1, 2 * model.stride, 2 * model.stride, model.network.input_shape[-1]]
    shape[axis] = length
    rng = np.random.default_rng(1)
    picture = tf.constant(rng.random(shape), tf.float32)
    reach = 0
    for shift in range(model.stride):  # where a pixel stands within the stride matters
        pixel = length // 2 + shift
        with tf.GradientTape() as tape:
            tape.watch(picture)
            output = tf.gather(model.network(picture), pixel, axis=axis)[0, model.stride, 0]
        influence = np.abs(tape.gradient(output, picture).numpy()[0]).sum((2 - axis, 2))
        touched = np.nonzero(influence)[0]
        reach = max(reach, pixel - touched.min(), touched.max() - pixel)
    assert reach == model.halo


def test_the_halo_of_srresnet_counts_its_convolutions():
    model = models.build(_config("srresnet"))
    kernels = [layer.kernel_size[0] for layer in model.network.layers if isinstance(layer, tf.keras.layers.Conv2D)]
    assert model.halo == sum(size // 2 for size in kernels) == 35


@each_blind_model
def test_tiles_leave_no_trace(name, astronaut):
    model = _randomised(_small(name))
    side = 3 * model.halo + 5
    picture = tf.constant(astronaut[None, :side, : side + 11])
    tile = 2 * model.stride
    restored = []
    for halo, limit in ((model.halo, 10**9), (model.halo, 0), (0, 0)):
        tiling = Tiling.of_network(model.stride, halo, max(tile, model.halo), limit)
        cut = tf.function(functools.partial(restore_any_size, model.network, tiling=tiling))
        restored.append(cut(picture).numpy().astype(int))
    whole, tiled, without_halo = restored
    assert np.abs(whole - picture.numpy()).mean() > 2, "the network must change the picture for this to mean anything"
    assert np.abs(whole - tiled).max() <= 1
    assert np.abs(whole - without_halo).max() > 1, "the comparison must notice a halo that is too small"


@each_model
def test_the_network_and_its_gradients_compile_under_xla(name):
    model = _randomised(_small(name))
    picture = _source(model, 1, 32, 32)

    def loss_and_gradients():
        with tf.GradientTape() as tape:
            restored, logits = model.taught(picture)
            loss = tf.reduce_mean(tf.square(restored - 0.5)) + tf.reduce_mean(tf.nn.softplus(logits))
        return loss, tape.gradient(loss, model.network.trainable_variables)

    plain, compiled = (tf.function(loss_and_gradients, jit_compile=jit)() for jit in (False, True))
    np.testing.assert_allclose(plain[0], compiled[0], rtol=1e-4)
    for one, other in zip(plain[1], compiled[1]):
        assert np.any(one), "every weight must be taught"
        np.testing.assert_allclose(one, other, atol=1e-4 * max(1.0, np.abs(one).max()))


@each_blind_model
def test_it_learns_to_undo_a_blend_and_to_tell_where_it_is(name, astronaut):
    model = _small(name)
    clean = np.stack([astronaut[k : k + 32, k : k + 32] for k in (0, 120, 240, 360)]) / 255.0
    alpha = np.zeros((4, 32, 32, 1))
    alpha[:, 8:24, 4:28] = 0.6
    source = tf.constant(clean * (1 - alpha) + alpha, tf.float32)
    optimizer = tf.keras.optimizers.Adam(1e-2)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            restored, logits = model.taught(source, training=True)
            error = tf.reduce_mean(tf.abs(restored - clean))
            covered = tf.cast(alpha > 0, tf.float32)
            presence = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(covered, logits))
            total = error + 0.3 * presence
        variables = model.network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables))
        return error, presence

    first, *_, last = [step() for _ in range(60)]
    assert last[0] < 0.5 * first[0] and last[1] < 0.6 * first[1]


@each_blind_model
def test_caution_lowers_every_logit_and_nothing_else(name):
    model = _randomised(_small(name))
    source = _source(model, 1, 32, 32)
    before, logits = model.taught(source)
    head.be_cautious(model.network, 1.5)
    after, lowered = model.taught(source)
    np.testing.assert_allclose(lowered, logits - 1.5, atol=1e-4)
    presence, less = (np.clip(1.2 / (1 + np.exp(-x.numpy())) - 0.1, 0, 1) for x in (logits, lowered))
    np.testing.assert_allclose((before - source) * less, (after - source) * presence, atol=1e-3)


@pytest.mark.parametrize(
    "recipe, name", [(srresnet_config, "srresnet"), (nafnet_config, "nafnet"), (repair_config, "repair")]
)
def test_a_model_has_a_recipe(recipe, name):
    config = recipe.get_config()
    assert config.model.name == name
    assert config.to_dict().keys() == default.get_config().to_dict().keys()


@pytest.mark.parametrize(
    "name, module", [("unet", unet), ("srresnet", srresnet), ("nafnet", nafnet), ("repair", repair)]
)
def test_what_a_recipe_leaves_empty_is_the_models_own(name, module):
    model = models.build(_config(name))
    assert 0.5e6 < model.network.count_params() < 2.5e6
    explicit = models.build(_config(name, features=module.FEATURES, blocks=module.BLOCKS))
    for one, other in zip(model.network.weights, explicit.network.weights):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "name, fields, words",
    [
        ("transformer", {}, "'transformer'.* unet, srresnet, nafnet"),
        ("unet", {"features": (4, 8)}, "unet .*equally long"),
        ("unet", {"features": (4, 0), "blocks": (1, 1)}, "features >= 1"),
        ("srresnet", {"features": (4, 8), "blocks": (1, 1)}, "srresnet has one resolution"),
        ("nafnet", {"window": 6}, "config.model.window=6: must be odd"),
        ("nafnet", {"window": -1}, "config.model.window=-1"),
    ],
)
def test_what_cannot_be_built_is_named(name, fields, words):
    with pytest.raises(UserError, match=words):
        models.build(_config(name, **fields))
