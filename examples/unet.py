"""U-Net: what is in a picture, pixel by pixel.

    down:  two convolutions, then half the resolution, twice: what is there
    up:    twice the resolution, joined to the features of that size on the way down: where it is

The joins carry the outlines across the bottleneck, so that masks come out sharp (Ronneberger,
Fischer & Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015).

Learns: noisy scenes of 32×32 pixels with discs and squares that overlap; three classes of pixel.  A
disc and a square differ in outline alone, so a pixel's own grey value cannot tell them apart.
Expect: a mean intersection over union of about 0.87 on new scenes; a threshold of the grey value,
which calls each thing a disc, has 0.47.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

SIZE, CLASSES = 32, 3


def make_data(scenes=256, seed=0):
    """Return float32 images (scenes, 1, 32, 32) and int64 masks: 0 ground, 1 disc, 2 square."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:SIZE, :SIZE]
    masks = np.zeros((scenes, SIZE, SIZE), "int64")
    for mask in masks:
        for kind in rng.permutation([1, 1, 2, 2]):
            r, c = rng.integers(4, SIZE - 4, 2)
            if kind == 1:
                mask[(row - r) ** 2 + (column - c) ** 2 <= 5.5**2] = 1
            else:
                mask[np.maximum(abs(row - r), abs(column - c)) <= 4.5] = 2
    grey = (masks > 0) + 0.3 * rng.normal(size=masks.shape)
    return grey[:, None].astype("float32"), masks


def block(channels_in, channels_out):
    """Return two 3×3 convolutions, each normalised and rectified."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """``forward(x)`` (batch, 1, h, w) returns logits (batch, CLASSES, h, w); h, w in fours."""

    def __init__(self, width=8):
        self.down1, self.down2 = block(1, width), block(width, 2 * width)
        self.bottom = block(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.join2 = block(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.join1 = block(2 * width, width)
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x):
        fine = self.down1(x)
        middle = self.down2(cr.max_pool2d(fine, 2))
        coarse = self.bottom(cr.max_pool2d(middle, 2))
        middle = self.join2(cr.concatenate([self.up2(coarse), middle], axis=1))
        fine = self.join1(cr.concatenate([self.up1(middle), fine], axis=1))
        return self.head(fine)


def build(width=8):
    """Return the graph of the loss and of the logits."""
    x = cr.input("x", ("batch", 1, SIZE, SIZE))
    y = cr.input("y", ("batch", SIZE, SIZE), dtype="int64")
    logits = UNet(width)(x)
    return SimpleNamespace(logits=logits, loss=losses.cross_entropy(logits, y))


def mean_iou(found, truth):
    """Return the intersection over union, averaged over the classes."""
    ratios = [
        ((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum()
        for c in range(CLASSES)
    ]
    return float(np.mean(ratios))


def train(epochs=15, verbose=1, seed=0, backend="native", scenes=256, width=8):
    """Train and measure on new scenes, beside a threshold that calls all things discs."""
    training, (x_test, y_test) = make_data(scenes, seed), make_data(64, seed + 1)
    cr.manual_seed(seed)
    net = build(width)
    schedule = cr.schedules.CosineAnnealingLR(1e-2, epochs)
    program = cr.compile_train(
        net.loss, optim.Adam(schedule), {"logits": net.logits}, backend=backend, seed=seed
    )
    program.fit(training, epochs, batch_size=16, verbose=verbose)
    found = program.predict(x_test).argmax(1)
    threshold = (x_test[:, 0] > 0.5).astype("int64")
    return {"iou": mean_iou(found, y_test), "threshold_iou": mean_iou(threshold, y_test)}


if __name__ == "__main__":
    m = train()
    print(f"intersection over union {m['iou']:.3f}, by threshold {m['threshold_iou']:.3f}")
