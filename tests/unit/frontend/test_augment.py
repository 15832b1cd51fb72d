"""Augmentation: by hand in NumPy, identity in inference, both backends, any batch size."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import augment, losses, nn, optim
from chainrule.frontend.random import Generator

RNG = np.random.default_rng(7)
IMAGES = RNG.uniform(0.1, 1.0, (6, 3, 8, 10)).astype("float32")


def run(make, images=IMAGES, backend="numpy", training=True, seed=3, times=1, **inputs):
    """Return ``make(x, generator, …)`` of a batch whose size the program does not know."""
    x = cr.input("x", ("batch", *images.shape[1:]), dtype=images.dtype)
    others = {n: cr.input(n, ("batch", *a.shape[1:]), dtype=a.dtype) for n, a in inputs.items()}
    outputs = make(x, Generator(seed), *others.values())
    function = cr.compile(outputs, backend=backend, training=training)
    for _ in range(times):
        result = function(x=images, **inputs)
    return result


AUGMENTATIONS = {
    "flip": lambda x, g: augment.random_horizontal_flip(x, 0.5, g),
    "flip vertical": lambda x, g: augment.random_vertical_flip(x, 0.5, g),
    "rotation": lambda x, g: augment.random_rotation(x, 30.0, generator=g),
    "translation": lambda x, g: augment.random_translation(x, (0.3, 0.2), generator=g),
    "scale": lambda x, g: augment.random_scale(x, (0.5, 1.5), "nearest", generator=g),
    "shear": lambda x, g: augment.random_shear(x, 20.0, padding_mode="border", generator=g),
    "affine": lambda x, g: augment.random_affine(
        x, 40.0, (0.1, 0.2), (0.7, 1.3), (-10.0, 10.0, -5.0, 5.0), p=0.7, generator=g
    ),
    "crop": lambda x, g: augment.random_crop(x, (8, 10), 2, 0.5, g),
    "brightness": lambda x, g: augment.random_brightness(x, 0.4, generator=g),
    "contrast": lambda x, g: augment.random_contrast(x, (0.5, 2.0), 0.8, g),
    "saturation": lambda x, g: augment.random_saturation(x, 0.5, generator=g),
    "grayscale": lambda x, g: augment.random_grayscale(x, 0.5, g),
    "noise": lambda x, g: augment.gaussian_noise(x, 0.2, g),
    "cutout": lambda x, g: augment.cutout(x, 4, -1.0, generator=g),
    "erasing": lambda x, g: augment.random_erasing(x, 0.9, value="random", generator=g),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation(name):
    """Identity in inference, different samples and steps, the same numbers on both backends."""
    make = AUGMENTATIONS[name]
    same = np.repeat(IMAGES[:1], 16, 0)
    inference = run(make, training=False)
    np.testing.assert_allclose(inference, IMAGES, rtol=1e-6)
    assert inference.shape == IMAGES.shape
    first = run(make, same)
    assert any((first[0] != other).any() for other in first[1:])
    assert (run(make, same, times=2) != first).any()
    np.testing.assert_array_equal(run(make, same), first)
    assert (run(make, same, seed=4) != first).any()
    for size in (1, 6):
        native = run(make, IMAGES[:size], "native", times=2)
        expected = run(make, IMAGES[:size], "numpy", times=2)
        np.testing.assert_allclose(native, expected, rtol=1e-4, atol=1e-5)


# -- geometry by hand -----------------------------------------------------------------------------


def exact(**how):
    return lambda x, g: augment.random_affine(x, generator=g, **how)


SQUARE = RNG.normal(size=(3, 2, 6, 6))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"degrees": (90.0, 90.0)}, lambda a: np.rot90(a, -1, (2, 3))),
        ({"degrees": (-90.0, -90.0)}, lambda a: np.rot90(a, 1, (2, 3))),
        ({"degrees": (180.0, 180.0)}, lambda a: a[:, :, ::-1, ::-1]),
    ],
)
def test_maps_of_a_square(how, expected):
    found = run(exact(**how), SQUARE)
    np.testing.assert_allclose(found, expected(SQUARE), atol=1e-9)


def bilinear(image, row, column):
    """Return the value at a place of an image (height, width), zero outside."""
    total = 0.0
    for r in (np.floor(row), np.floor(row) + 1):
        for c in (np.floor(column), np.floor(column) + 1):
            if 0 <= r < image.shape[0] and 0 <= c < image.shape[1]:
                weight = (1 - abs(row - r)) * (1 - abs(column - c))
                total += weight * image[int(r), int(c)]
    return total


def test_an_affine_map_by_hand():
    """Of an oblong image: turned, sheared in both directions and scaled, pixel by pixel."""
    image = RNG.normal(size=(1, 1, 5, 9))
    angle, u, v, scale = np.radians(25.0), np.radians(10.0), np.radians(-6.0), 1.3
    found = run(
        exact(
            degrees=(25.0, 25.0),
            scale=(1.3, 1.3),
            shear=(10.0, 10.0, -6.0, -6.0),
        ),
        image,
    )
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = scale * turn @ np.array([[1, np.tan(u)], [np.tan(v), 1]])
    back = np.linalg.inv(forward)
    centre = np.array([(9 - 1) / 2, (5 - 1) / 2])
    for row in range(5):
        for column in range(9):
            x, y = back @ (np.array([column, row]) - centre) + centre
            expected = bilinear(image[0, 0], y, x)
            np.testing.assert_allclose(found[0, 0, row, column], expected, atol=1e-9)


def test_shifts_stay_in_their_range():
    ramp = np.broadcast_to(np.arange(10.0), (200, 1, 8, 10)).copy()
    found = run(
        lambda x, g: augment.random_translation(x, (0.2, 0.0), padding_mode="border", generator=g),
        ramp,
    )
    shift = 5.0 - found[:, 0, 4, 5]
    assert abs(shift).max() <= 2.0 + 1e-9 and shift.std() == pytest.approx(4 / 12**0.5, rel=0.15)
    np.testing.assert_allclose(found[:, 0, 0], found[:, 0, 7])


def test_a_crop_is_a_window_of_the_padded_image():
    found = run(
        lambda x, g: augment.random_crop(x, (5, 7), (2, 1), 9.0, g), np.repeat(IMAGES, 8, 0)
    )
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (2, 2), (1, 1)), constant_values=9.0)
    places = set()
    for index, window in enumerate(found):
        source = padded[index // 8]
        matches = [
            (r, c)
            for r in range(12 - 5 + 1)
            for c in range(12 - 7 + 1)
            if (source[:, r : r + 5, c : c + 7] == window).all()
        ]
        assert len(matches) == 1
        places.update(matches)
    assert len(places) > 15 and {r for r, _ in places} == set(range(8))
    plain = run(lambda x, g: augment.random_crop(x, (5, 7), 2, 9.0, g), training=False)
    np.testing.assert_array_equal(plain, IMAGES[:, :, 1:6, 1:8])
    larger = run(lambda x, g: augment.random_crop(x, (10, 6), 2, 9.0, g), training=False)
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (1, 1), (0, 0)), constant_values=9.0)
    np.testing.assert_array_equal(larger, padded[:, :, :, 2:8])


def test_a_resized_crop_keeps_a_ramp_straight():
    field = np.stack(np.broadcast_arrays(np.arange(16.0)[:, None], np.arange(12.0)[None]))
    images = np.repeat(field[None], 50, 0)
    make = lambda x, g: augment.random_resized_crop(  # noqa: E731
        x, (6, 9), (0.2, 0.5), (0.5, 2.0), generator=g
    )
    found = run(make, images)
    assert found.shape == (50, 2, 6, 9)
    height = (found[:, 0, 4, 4] - found[:, 0, 1, 4]) / 3 * 6
    width = (found[:, 1, 2, 6] - found[:, 1, 2, 2]) / 4 * 9
    area = height * width / (16 * 12)
    assert area.min() > 0.19 and area.max() < 0.51
    ratio = width / height
    assert ratio.min() > 0.45 and ratio.max() < 2.05 and (ratio > 1.2).any() and (ratio < 0.8).any()
    assert found.min() >= 0 and found[:, 0].max() <= 15 and found[:, 1].max() <= 11
    whole = run(make, images, training=False)
    np.testing.assert_allclose(np.diff(whole[0, 0, 1:5, 4]), 16 / 6, rtol=1e-6)


# -- values by hand -------------------------------------------------------------------------------


def factors(found, neutral):
    """Return the factor by which the distance from ``neutral`` was scaled, sample by sample."""
    away, base = found - neutral, IMAGES - neutral
    solved = (away * base).sum((1, 2, 3)) / (base * base).sum((1, 2, 3))
    np.testing.assert_allclose(away, base * solved[:, None, None, None], rtol=1e-3, atol=1e-5)
    return solved


def test_values_are_scaled_about_what_they_should_be():
    grey = np.tensordot(np.array([0.299, 0.587, 0.114]), IMAGES, (0, 1))[:, None]
    cases = [
        (lambda x, g: augment.random_brightness(x, 0.4, generator=g), 0.0, 0.6, 1.4),
        (
            lambda x, g: augment.random_contrast(x, (0.5, 0.9), generator=g),
            IMAGES.mean((1, 2, 3), keepdims=True),
            0.5,
            0.9,
        ),
        (lambda x, g: augment.random_saturation(x, 3.0, generator=g), grey, 0.0, 4.0),
    ]
    for make, neutral, low, high in cases:
        found = factors(run(make), neutral)
        assert found.min() >= low - 1e-4 and found.max() <= high + 1e-4
        assert found.std() > 0.1 * (high - low)
    colourless = run(lambda x, g: augment.random_grayscale(x, 1.0, g))
    np.testing.assert_allclose(colourless, np.broadcast_to(grey, IMAGES.shape), rtol=1e-5)


def test_noise_has_its_spread():
    zeros = np.zeros((40, 1, 16, 16))
    noise = run(lambda x, g: augment.gaussian_noise(x, 0.3, g), zeros)
    assert noise.std() == pytest.approx(0.3, rel=0.02) and abs(noise.mean()) < 0.01


@pytest.mark.parametrize("training", [True, False])
def test_normalisation_by_channel(training):
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 0.5])
    found = run(lambda x, g: augment.normalize(x, mean, std), training=training)
    expected = (IMAGES - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def rectangle(hidden):
    """Return the sides of the one rectangle that is hidden."""
    rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
    if not len(rows):
        return 0, 0
    assert hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert hidden.sum() == len(rows) * len(columns)
    return len(rows), len(columns)


def test_what_is_hidden_is_a_rectangle():
    images = np.ones((300, 2, 20, 24), "float32")
    found = run(lambda x, g: augment.cutout(x, 6, -1.0, generator=g), images)
    assert set(np.unique(found)) == {-1.0, 1.0}
    sides = [rectangle(image[0] < 0) for image in found]
    assert max(sides) == (6, 6) and min(h for h, _ in sides) == 3  # half of it lies outside
    assert (found.mean(0) != 1).all()  # every pixel is hidden somewhere
    found = run(lambda x, g: augment.random_erasing(x, 0.5, (0.1, 0.2), (0.5, 2.0), 7.0, g), images)
    erased = (found[:, 0] == 7.0).mean((1, 2))
    assert (erased > 0).mean() == pytest.approx(0.5, abs=0.1)
    assert erased[erased > 0].min() > 0.08 and erased.max() < 0.23
    for image in found:
        rectangle(image[0] == 7.0)


# -- mixing ---------------------------------------------------------------------------------------

LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_mixup_mixes_samples_and_labels_alike(backend):
    make = lambda x, g, y: augment.mixup(x, y, 0.6, 3, g)  # noqa: E731
    x, y = run(make, backend=backend, y=LABELS)
    one_hot = np.eye(3)[LABELS]
    partner, labels = IMAGES[::-1], one_hot[::-1]
    share = ((x - partner) * (IMAGES - partner)).sum((1, 2, 3))
    share = share / ((IMAGES - partner) ** 2).sum((1, 2, 3))
    assert share.min() >= 0 and share.max() <= 1 and share.std() > 0.05
    wide = share[:, None, None, None]
    np.testing.assert_allclose(x, IMAGES * wide + partner * (1 - wide), atol=1e-5)
    np.testing.assert_allclose(
        y, one_hot * share[:, None] + labels * (1 - share[:, None]), atol=1e-5
    )
    x, y = run(make, backend=backend, training=False, y=LABELS)
    np.testing.assert_array_equal(x, IMAGES)
    np.testing.assert_array_equal(y, one_hot)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_cutmix_weighs_labels_by_the_area(backend):
    images = np.arange(8.0).reshape(8, 1, 1, 1) * np.ones((1, 2, 9, 7))
    targets = np.arange(8.0).reshape(8, 1)
    make = lambda x, g, y: augment.cutmix(x, y, 1.0, generator=g)  # noqa: E731
    x, y = run(make, images, backend, y=targets)
    for index in range(8):
        other = x[index, 0] != index
        assert (x[index, :, other] == 7 - index).all()
        rectangle(other)
    # the label is the mean of the pixels: each is the value of the image it is from
    np.testing.assert_allclose(y[:, 0], x.mean((1, 2, 3)), rtol=1e-6)
    assert len(np.unique(y)) > 4
    x, y = run(make, images, backend, training=False, y=targets)
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, targets)


# -- distributions --------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.05, 0.5, 1.0, 2.5, 40.0])
def test_gamma(a):
    draws = cr.compile(
        cr.random.gamma((20000,), a, 2.0, "float64", Generator(1)), backend="numpy"
    )()
    assert draws.min() >= 0
    assert draws.mean() == pytest.approx(2 * a, rel=0.12 if a < 0.1 else 0.04)
    assert draws.var() == pytest.approx(4 * a, rel=0.25 if a < 0.1 else 0.08)
    if a == 1.0:  # exponential
        assert np.median(draws) == pytest.approx(2 * np.log(2), rel=0.03)


@pytest.mark.parametrize(("a", "b"), [(0.01, 0.01), (0.2, 0.2), (1.0, 1.0), (2.0, 5.0)])
def test_beta(a, b):
    make = lambda: cr.random.beta((20000,), a, b, generator=Generator(2))  # noqa: E731
    draws = cr.compile(make(), backend="numpy")()
    assert np.isfinite(draws).all() and draws.min() >= 0 and draws.max() <= 1
    assert draws.mean() == pytest.approx(a / (a + b), abs=0.01)
    assert draws.var() == pytest.approx(a * b / (a + b) ** 2 / (a + b + 1), rel=0.05)
    native = cr.compile(make(), backend="native")()
    np.testing.assert_allclose(native, draws, rtol=1e-3, atol=1e-6)


# -- in a training --------------------------------------------------------------------------------


def test_layers_train_within_the_step():
    cr.manual_seed(0)
    x = cr.input("x", ("batch", 1, 8, 8))
    y = cr.input("y", ("batch",), dtype="int64")
    layers = nn.Sequential(
        augment.RandomRotation(10.0),
        augment.RandomCrop(8, padding=1),
        augment.GaussianNoise(std=0.05),
        augment.Normalize(0.3, 0.5),
    )
    mixed, targets = augment.mixup(layers(x), y, 0.2, num_classes=2)
    logits = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))(mixed)
    loss = losses.categorical_crossentropy(logits, targets, from_logits=True)
    train = cr.compile_train(loss, optim.Adam(0.05), {"logits": logits}, seed=0)
    labels = RNG.integers(0, 2, 64)
    images = RNG.uniform(0, 0.4, (64, 1, 8, 8)).astype("float32")
    images[labels == 1, :, 2:6, 2:6] += 0.5
    train.fit((images, labels), epochs=15, batch_size=16, verbose=0)
    assert (train.predict(images).argmax(1) == labels).mean() > 0.95
    np.testing.assert_array_equal(train.predict(images), train.predict(images))
    assert "degrees=10.0" in repr(layers)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_gradients_flow_to_the_pixels(backend):
    """A square of what is linear in the pixels: central differences are exact."""
    weights = RNG.normal(size=IMAGES.shape[1:])

    def total(x, g):
        moved = augment.random_affine(x, 30.0, (0.1, 0.1), generator=g)
        return (moved.square() * weights).sum()

    point, step = IMAGES.astype("float64"), RNG.normal(size=IMAGES.shape)
    slope = run(lambda x, g: cr.grad(total(x, g), [x])[0], point, backend)
    change = (run(total, point + step) - run(total, point - step)) / 2
    assert (slope * step).sum() == pytest.approx(change, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: augment.random_rotation(x[0], 3.0), "batch, channels"),
        (lambda x: augment.random_flip(x, 1), "axis 1"),
        (lambda x: augment.random_flip(x, p=2.0), "probability"),
        (lambda x: augment.random_rotation(x, (3.0, -3.0)), "no range"),
        (lambda x: augment.random_scale(x, (0.0, 1.0)), "positive"),
        (lambda x: augment.random_translation(x, (2.0, 0.0)), "shares"),
        (lambda x: augment.random_crop(x, 20), "no window"),
        (lambda x: augment.random_brightness(x, (-1.0, 1.0)), "from 0.0"),
        (lambda x: augment.random_saturation(x[:, :2]), "3 channels"),
        (lambda x: augment.normalize(x, [1.0, 2.0], 1.0), "3 channels"),
        (lambda x: augment.cutout(x, 0), "at least 1"),
        (lambda x: augment.random_erasing(x, value="noise"), "random"),
        (lambda x: augment.random_resized_crop(x, 4, (0.0, 1.0)), "positive"),
        (lambda x: augment.mixup(x, cr.input("y", ("batch",), dtype="int64")), "num_classes"),
        (lambda x: augment.mixup(x, x, alpha=0.0), "positive"),
        (lambda x: augment.random_affine(x, shear=(-50.0, 50.0, -50.0, 50.0)), "45 degrees"),
    ],
)
def test_what_cannot_be_augmented_is_refused(make, message):
    with pytest.raises(cr.GraphError, match=message):
        make(cr.input("x", ("batch", 3, 8, 10)))
    with pytest.raises(TypeError, match="RandomRotation"):
        augment.RandomRotation()
