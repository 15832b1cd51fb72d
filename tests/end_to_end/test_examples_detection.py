"""Detectors trained on fewer scenes than the examples draw come near what these state."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(("name", "epochs"), [("yolo", 6), ("ssd", 3), ("faster_rcnn", 4)])
def test_detectors(name, epochs, example):
    m = example(name).train(epochs=epochs, verbose=0, count=1200)
    assert m["map"] >= 0.8
    assert m["recall"] >= 0.9
