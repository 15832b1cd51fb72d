"""SSD: boxes of several sizes at every place of several maps, each accepted or not.

    loss = (Σ smooth_l1(offset - encode(box)) + Σ -log p(class)) / matched boxes

Default boxes lie over a fine feature map for small objects and a coarse one for large ones.  Those
that overlap an object by half, and the best of each object, must name its class and move onto it;
of all the others, which are background, only the three hardest count for each of these (Liu et
al., "SSD: single shot multibox detector", ECCV 2016).  The rules are in `chainrule.models.SSD`;
matching, mining by a sort, losses and suppression are compiled with the network.

Learns: coloured rectangles, discs and triangles on noisy images of 32×32 pixels.
Expect: a mean average precision (IoU 0.5) of about 0.99 on held-out scenes.
"""

from types import SimpleNamespace

import chainrule as cr
from chainrule import detection, models, nn, optim

CLASSES = len(cr.data.SHAPES)


def convolution(inputs, outputs, stride=1):
    """Return a 3×3 convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Pyramid(nn.Module):
    """Features of a quarter of the image's size, and coarser ones of an eighth."""

    def __init__(self, width):
        self.fine = nn.Sequential(
            convolution(3, width, 2),
            convolution(width, 2 * width),
            convolution(2 * width, 4 * width, 2),
            convolution(4 * width, 4 * width),
        )
        self.coarse = convolution(4 * width, 4 * width, 2)

    def forward(self, images):
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


def build(width=8, size=32, objects=3):
    """Return the graph: losses, and what is found."""
    images = cr.input("images", ("batch", 3, size, size))
    boxes = cr.input("boxes", ("batch", objects, 4))
    labels = cr.input("labels", ("batch", objects), "int64")
    mask = cr.input("mask", ("batch", objects), "bool")
    channels = (4 * width, 4 * width)
    scales, ratios = (0.28, 0.42, 0.6), ((2.0,), (2.0,))
    model = models.SSD(Pyramid(width), channels, CLASSES, (size, size), scales, ratios)
    parts = model.losses(images, boxes, labels, mask)
    loss = parts["class"] + parts["box"]
    return SimpleNamespace(model=model, found=model.detect(images), parts=parts, loss=loss)


def average_precision(net, scenes, backend):
    """Return the mean average precision of the trained network on ``scenes``."""
    detect = cr.compile(list(net.found), backend=backend)
    found = detection.detections_by_image(*detect(images=scenes.images))
    return detection.mean_average_precision(found, scenes.targets())


def train(epochs=6, verbose=1, seed=0, backend="native", count=2000):
    """Train on ``count`` scenes and measure on others."""
    cr.manual_seed(seed)
    net = build()
    schedule = cr.schedules.CosineAnnealingLR(4e-3, epochs)
    program = cr.compile_train(net.loss, optim.Adam(schedule), backend=backend, seed=seed)
    training = cr.data.scenes(count, seed=seed)
    program.fit(training._asdict(), epochs, batch_size=32, verbose=verbose)
    measured = average_precision(net, cr.data.scenes(200, seed=seed + 1), backend)
    return {"map": measured["map"], "recall": measured["recall"]}


if __name__ == "__main__":
    m = train()
    print(f"mean average precision {m['map']:.3f}, recall {m['recall']:.3f}")
