"""Examples with attention reach what their docstrings state, and their parts are what they say."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_bert(example):
    m = example("bert").train(verbose=0)
    assert m["verbs"] >= 0.97
    assert m["determiners"] >= 0.97


def test_sentences_agree_in_number(example):
    """The generator's own grammar: verb with subject, determiner with the noun that follows."""
    bert = example("bert")
    rng = np.random.default_rng(0)
    for _ in range(100):
        words = list(bert.sentence(rng))
        number = [bert.NUMBER[bert.CODE[word]] for word in words]
        verb = next(i for i, word in enumerate(words) if word in bert.VERBS)
        assert number[verb] == number[0]
        for i, word in enumerate(words):
            if word in bert.DETERMINERS:
                noun = next(j for j in range(i, len(words)) if words[j] in bert.NOUNS)
                assert number[noun] == number[i]
        assert len(words) <= bert.LONGEST


def test_transformer(example):
    m = example("transformer").train(epochs=6, verbose=0)
    assert m["accuracy"] >= 0.9
    assert m["loss"] <= 0.05


def test_numbers_are_spelt(example):
    spell = example("transformer").spell
    assert " ".join(spell(342)) == "three hundred forty two"
    assert " ".join(spell(90_015)) == "ninety thousand fifteen"
    assert " ".join(spell(0)) == "zero"


def test_distillation(example):
    m = example("distillation").train(epochs=8, verbose=0)
    assert m["teacher"] >= 0.88
    assert m["distilled"] >= 0.88
    assert m["alone"] <= m["distilled"] - 0.1


def test_lora(example):
    m = example("lora").train(epochs=10, verbose=0)
    assert m["upright"] >= 0.93
    assert m["turned_before"] <= 0.4
    assert m["turned"] >= 0.85
    assert m["share"] <= 0.25
    assert m["unchanged"] == 1
    assert m["merging_error"] <= 1e-4


def test_gpt(example):
    m = example("gpt").train(epochs=1, windows=1600, verbose=0)
    assert m["nats"] <= 2.75
    assert m["frequencies"] >= 3.0
    assert m["text"].startswith('The "for" statement') and len(m["text"]) == 19 + 64


def test_gpt_reads_no_character_ahead(example):
    """What follows a place changes nothing there."""
    cr.manual_seed(0)
    net = example("gpt").build()
    read = cr.compile(net.logits)
    text = np.random.default_rng(0).integers(0, 90, (2, 12))
    other = text.copy()
    other[:, 6:] = (other[:, 6:] + 1) % 90
    np.testing.assert_array_equal(read(text=text)[:, :6], read(text=other)[:, :6])
