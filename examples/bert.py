"""BERT: an encoder that learns the grammar of a language by filling in masked words.

    a quarter of the words is chosen; 80 % of these become <mask>, 10 % any other word, 10 % stay
    p = softmax(W gelu(norm(Encoder(masked sentence))))
    loss = -log p(the word that stood there), the mean over the chosen

Each place sees the sentence on both sides (Devlin et al., "BERT: pre-training of deep bidirectional
transformers", 2019).  The masks are drawn in the compiled step: each epoch asks for other words.

Learns: sentences such as "these old dogs near the river see a tree".  Which noun stands there is
chance, but "these" must be plural for the noun on its right is, and "see" for the same noun, on its
left beyond another noun of either number.
Expect: masked verbs and determiners come back in the right number 99 times in 100; chance is 50.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, models, optim

#: Singular, plural, singular, ...
NOUNS = ["dog", "dogs", "bird", "birds", "friend", "friends", "tree", "trees", "river", "rivers"]
VERBS = ["sees", "see", "likes", "like", "finds", "find", "knows", "know"]
DETERMINERS = ["this", "these", "that", "those", "a", "many"]
ADJECTIVES = ["old", "young", "small", "green", "quiet"]
PLACES = ["near", "behind", "under"]
WORDS = ["<pad>", "<mask>", "the", *NOUNS, *VERBS, *DETERMINERS, *ADJECTIVES, *PLACES]
CODE = {word: code for code, word in enumerate(WORDS)}
PAD, MASK, LONGEST = CODE["<pad>"], CODE["<mask>"], 11
#: The number of each word: 0 singular, 1 plural, -1 neither.
NUMBER = np.full(len(WORDS), -1)
for pairs in (NOUNS, VERBS, DETERMINERS):
    NUMBER[[CODE[word] for word in pairs]] = np.arange(len(pairs)) % 2


def sentence(rng):
    """Return the words of a random sentence."""

    def pick(words, number=None):
        return rng.choice(words if number is None else words[number::2])

    def noun_phrase(number):
        adjective = [pick(ADJECTIVES)] if rng.random() < 0.5 else []
        return [pick(DETERMINERS, number), *adjective, pick(NOUNS, number)]

    subject, other, seen = rng.integers(0, 2, 3)
    where = [pick(PLACES), "the", pick(NOUNS, other)] if rng.random() < 0.7 else []
    return [*noun_phrase(subject), *where, pick(VERBS, subject), *noun_phrase(seen)]


def make_data(size, seed=0):
    """Return ``size`` sentences as codes (size, LONGEST), padded with zeros."""
    rng = np.random.default_rng(seed)
    text = np.full((size, LONGEST), PAD)
    for row in text:
        words = sentence(rng)
        row[: len(words)] = [CODE[word] for word in words]
    return text


def build(width=48, layers=2, heads=4):
    """Return the model, the graph of its loss on ``text``, and its logits for it as it is."""
    model = models.BertForMaskedLM(
        len(WORDS),
        width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=LONGEST,
        dropout=0.0,
        initializer_range=0.1,
    )
    text = cr.input("text", ("batch", "length"), dtype="int64")
    chosen = cr.random.bernoulli(0.25, text.shape) & (text != PAD)
    fate = cr.random.uniform(text.shape)
    other = cr.random.randint(MASK + 1, len(WORDS), text.shape)
    changed = cr.where(fate < 0.8, MASK, cr.where(fate < 0.9, other, text))
    masked = cr.where(chosen, changed, text)
    surprise = losses.sparse_categorical_crossentropy(
        model(masked, attention_mask=text != PAD), text, from_logits=True, reduction="none"
    )
    loss = cr.where(chosen, surprise, 0.0).sum() / cr.maximum(chosen.sum(), 1)
    return SimpleNamespace(model=model, loss=loss, logits=model(text, attention_mask=text != PAD))


def agreement(predict, text, words):
    """Return how often one of ``words`` that is masked comes back in the number that it had."""
    rows, columns = np.nonzero(np.isin(text, [CODE[word] for word in words]))
    masked = text[rows]
    masked[np.arange(len(rows)), columns] = MASK
    guessed = predict(text=masked)[np.arange(len(rows)), columns].argmax(-1)
    return float((NUMBER[guessed] == NUMBER[text[rows, columns]]).mean())


def train(epochs=6, size=4000, verbose=1, seed=0, backend="native"):
    """Train on ``size`` sentences; return the agreement in 300 others."""
    cr.manual_seed(seed)
    net = build()
    steps = epochs * -(-size // 32)
    schedule = cr.schedules.CosineAnnealingLR(3e-3, steps, interval="step")
    program = cr.compile_train(net.loss, optim.AdamW(schedule), backend=backend, seed=seed)
    program.fit((make_data(size, seed),), epochs, batch_size=32, verbose=verbose)
    predict = cr.compile(net.logits, backend=backend)
    text = make_data(300, seed + 1)
    gap = text[:1].copy()
    gap[0, 0] = MASK
    guess = WORDS[predict(text=gap)[0, 0].argmax()]
    return {
        "verbs": agreement(predict, text, VERBS),
        "determiners": agreement(predict, text, DETERMINERS),
        "filled": " ".join([f"[{guess}]", *(WORDS[code] for code in gap[0, 1:] if code != PAD)]),
    }


if __name__ == "__main__":
    m = train()
    print(m["filled"])
    print(f"right number: verbs {m['verbs']:.3f}, determiners {m['determiners']:.3f}")
