"""GPT: a transformer that reads Python's manual and writes more of it, character by character.

    x₀ = E[token] + P[place]
    x ← x + Attention(norm(x)),  x ← x + W₂ gelu(W₁ norm(x))         in every block
    p(next | so far) = softmax(norm(x) Eᵀ)
    loss = -log p(next), the mean over all places

A place sees itself and what stands before it (Radford et al., "Language models are unsupervised
multitask learners", 2019).  Writing is one compiled loop: a step reads the one new character and
remembers its keys and values, so that the next steps need not read the text again.

Learns: the texts behind Python's `help()`, half a million characters, in windows of 96.
Expect: 1.8 nats a character on topics it never saw, where the frequencies of characters alone give
3.3, and text with words, indentation and the marks of a manual.
"""

import pydoc_data.topics
from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, models, optim

WINDOW = 96
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # what is not printable ASCII becomes "?"
CODES = {letter: code for code, letter in enumerate(ALPHABET)}


def encode(text):
    """Return the codes of the letters of ``text``."""
    return np.array([CODES.get(letter, CODES["?"]) for letter in text])


def decode(codes):
    """Return the text of ``codes``."""
    return "".join(ALPHABET[code] for code in codes)


def make_data(window=WINDOW):
    """Return windows (n, window) of the manual, nine tenths of its topics and the rest."""
    topics = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    parts = []
    for chosen in ([t for i, t in enumerate(topics) if i % 10], topics[::10]):
        codes = encode("\n".join(chosen))
        parts.append(codes[: len(codes) // window * window].reshape(-1, window))
    return parts


def build(width=64, layers=2, heads=4, window=WINDOW):
    """Return the model, and the graph of its loss on ``text`` (batch, length)."""
    model = models.GPT(
        len(ALPHABET), window, width, layers, heads, dropout=0.0, initializer_range=0.06
    )
    text = cr.input("text", ("batch", "length"), dtype="int64")
    logits = model(text[:, :-1])
    loss = losses.sparse_categorical_crossentropy(logits, text[:, 1:], from_logits=True)
    return SimpleNamespace(model=model, loss=loss, logits=logits)


def write(model, beginning, length, temperature=0.7, seed=0, backend="native"):
    """Return ``beginning`` and ``length`` characters that the model writes after it."""
    prompt = cr.input("prompt", (1, "prompt_length"), dtype="int64")
    tokens = models.generate(model, prompt, length, temperature)
    write_on = cr.compile(tokens, backend=backend, seed=seed)
    return beginning + decode(write_on(prompt=encode(beginning)[None])[0])


def train(epochs=3, verbose=1, seed=0, backend="native", windows=None):
    """Train on ``windows`` of the manual (all of them); return the held-out loss and a sample."""
    training, held_out = make_data()
    cr.manual_seed(seed)
    net = build()
    steps = epochs * (len(training[:windows]) // 16)
    schedule = cr.schedules.CosineAnnealingLR(5e-3, steps, interval="step")
    program = cr.compile_train(net.loss, optim.AdamW(schedule), backend=backend, seed=seed)
    program.fit((training[:windows],), epochs, batch_size=16, drop_last=True, verbose=verbose)
    share = np.bincount(training.ravel(), minlength=len(ALPHABET)) + 1
    frequencies = -np.log(share / share.sum())[held_out].mean()
    return {
        "nats": program.evaluate((held_out,), batch_size=64)["loss"],
        "frequencies": float(frequencies),
        "text": write(net.model, 'The "for" statement', 64, seed=seed, backend=backend),
    }


if __name__ == "__main__":
    m = train()
    print(m["text"])
    print(f"held-out loss {m['nats']:.2f} nats a character (frequencies {m['frequencies']:.2f})")
