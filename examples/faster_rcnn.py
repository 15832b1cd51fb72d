"""Faster R-CNN: a small network proposes regions, a second one looks at each of them again.

    proposals = nms(decode(anchors, offsets), objectness),   features of a region = RoIAlign

The proposal network scores the anchors at every place; the best regions that overlap
little are cut out of the same features by RoIAlign, classified and moved once more (Ren, He,
Girshick & Sun, "Faster R-CNN", NeurIPS 2015; RoIAlign: He et al., "Mask R-CNN", ICCV 2017).  All
four losses train together in one compiled step, suppression and sampling included; the proposals
are taken as they are.  The rules are in `chainrule.models.FasterRCNN`.

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


def backbone(width):
    """Return a network from images to features of a quarter of their size."""
    return nn.Sequential(
        convolution(3, width, 2),
        convolution(width, 2 * width),
        convolution(2 * width, 4 * width, 2),
        convolution(4 * width, 4 * width),
    )


def build(width=8, size=32, objects=3):
    """Return the graph: losses, and what is found."""
    images = cr.input("images", ("batch", 3, size, size))
    boxes = cr.input("boxes", ("batch", objects, 4))
    labels = cr.input("labels", ("batch", objects), "int64")
    mask = cr.input("mask", ("batch", objects), "bool")
    model = models.FasterRCNN(backbone(width), 4 * width, CLASSES, sizes=(8, 14), proposals=16)
    parts = model.losses(images, boxes, labels, mask)
    loss = sum(parts.values())
    return SimpleNamespace(model=model, found=model.detect(images), parts=parts, loss=loss)


def average_precision(net, scenes, backend):
    """Return the mean average precision of the trained network on ``scenes``."""
    detect = cr.compile(list(net.found), backend=backend)
    found = detection.detections_by_image(*detect(images=scenes.images))
    return detection.mean_average_precision(found, scenes.targets())


def train(epochs=8, verbose=1, seed=0, backend="native", count=2000):
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
