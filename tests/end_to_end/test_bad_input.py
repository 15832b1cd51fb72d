"""What users pass by mistake: refused by name with nothing changed, or taken as it was meant."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.compiler.errors import (
    ChainruleError,
    CheckpointError,
    FormulaError,
    GraphError,
    GraphTypeError,
    IndexRangeError,
    InputError,
    InputTypeError,
)
from chainrule.runtime.checkpoint import load_arrays, save_arrays

FEATURES, CLASSES = 6, 4
RNG = np.random.default_rng(5)
X = RNG.normal(size=(9, FEATURES)).astype(np.float32)
Y = np.arange(9) % CLASSES


def classifier(backend="native", hidden=8, optimizer=None):
    cr.manual_seed(1)
    x = cr.input("x", ("batch", FEATURES))  # input x
    y = cr.input("y", ("batch",), dtype="int64")  # input y
    model = nn.Sequential(nn.Linear(FEATURES, hidden), nn.Tanh(), nn.Linear(hidden, CLASSES))
    logits = model(x)
    loss = losses.sparse_categorical_crossentropy(logits, y, from_logits=True)  # the loss
    return cr.compile_train(
        loss, optimizer or optim.Adam(0.01), {"logits": logits}, backend=backend, seed=1
    )


@pytest.fixture(scope="module", params=["native", "numpy"])
def shared(request):
    """One program for the refusals, which leave it as it was."""
    return classifier(request.param)


def contents(train):
    return [v.value.tobytes() for v in train.states], train.epoch, train.steps


def line_of(marker):
    with open(__file__, encoding="utf-8") as file:
        (number,) = [n for n, text in enumerate(file, 1) if text.rstrip().endswith(f"# {marker}")]
    return f"test_bad_input.py:{number}: "


def refused(train, error, **arrays):
    """The message with which a step refuses; nothing has changed, and the next step works."""
    before = contents(train)
    with pytest.raises(error) as caught:
        train.step(**arrays)
    assert type(caught.value) is error and isinstance(caught.value, ChainruleError)
    assert contents(train) == before
    return str(caught.value)


# -- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "marker", "words"),
    [
        ({"x": X[:, :5]}, "input x", ["'x'", "(batch, 6)", "(9, 5)", "axis 1 is 5, not 6"]),
        ({"x": X[0]}, "input x", ["'x'", "(batch, 6)", "(6,)", "1 axes instead of 2"]),
        ({"x": X.reshape(9, 6, 1)}, "input x", ["(9, 6, 1)", "3 axes instead of 2"]),
        ({"x": X[0, 0]}, "input x", ["'x'", "()", "0 axes instead of 2"]),
        ({"y": Y[:5]}, "input x", ["axis 0 is 9, not batch = 5", "axis 0 of 'y'"]),
        ({"y": Y[:, None]}, "input y", ["'y'", "(9, 1)", "2 axes instead of 1"]),
        ({"x": [[1.0, 2.0], [3.0]]}, "input x", ["'x'", "nested lists differ in length"]),
        ({"x": X.astype("f8") * 1e300}, "input x", ["'x'", "beyond the range of float32"]),
        ({"y": np.full(9, 2**63, "u8")}, "input y", ["'y'", str(2**63), "int64"]),
    ],
    ids=["columns", "vector", "cube", "scalar", "batches", "column", "ragged", "huge", "unsigned"],
)
def test_a_shape_or_value_that_does_not_fit(shared, given, marker, words):
    message = refused(shared, InputError, **{"x": X, "y": Y, **given})
    assert line_of(marker) in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "given",
    [
        {"x": X.astype(complex)},
        {"x": X.astype(object)},
        {"x": X.astype(str)},
        {"x": "some text"},
        {"x": None},
        {"x": {"a": 1}},
        {"x": np.full(X.shape, np.datetime64("2020-01-01"))},
        {"x": np.zeros(X.shape, [("field", "f4")])},
        {"x": np.ma.masked_array(X)},
        {"x": lambda: X},
        {"y": Y.astype(float)},
        {"y": Y.astype(complex)},
        {"y": [str(label) for label in Y]},
        {"y": [None] * 9},
    ],
    ids=lambda given: f"{next(iter(given))}-{type(next(iter(given.values()))).__name__}",
)
def test_elements_that_are_no_such_numbers(shared, given):
    (name,) = given
    message = refused(shared, InputTypeError, **{"x": X, "y": Y, **given})
    assert line_of(f"input {name}") in message and f"input {name!r}" in message


def test_names(shared):
    message = refused(shared, InputError, x=X)
    assert line_of("input y") in message and "input 'y', int64(batch,), is missing" in message
    message = refused(shared, InputError, x=X, y=Y, Y=Y)
    assert "no input is called 'Y'" in message and "inputs:" in message
    message = refused(shared, InputError, x=X, labels=Y)
    assert "no input is called 'labels'" in message
    assert "is missing" in refused(shared, InputError)


@pytest.mark.parametrize("label", [CLASSES, -1, 2**62])
def test_a_label_without_a_class(shared, label):
    labels = Y.copy()
    labels[4] = label
    message = refused(shared, IndexRangeError, x=X, y=labels)
    assert line_of("the loss") in message
    assert f"class label {label} at position (4,) of 'y' is outside 0 to 3" in message


def test_the_program_still_works_after_all_that():
    for backend in ("native", "numpy"):
        train = classifier(backend)
        refused(train, InputError, x=X[:, :2], y=Y)
        refused(train, IndexRangeError, x=X, y=Y + 1)
        first = train.step(x=X, y=Y)["loss"]
        assert train.steps == 1
        assert classifier(backend).step(x=X, y=Y)["loss"] == first


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_graphs_that_do_not_fit_name_their_line(backend):
    x, w = cr.input("x", ("batch", 6)), cr.parameter(np.ones((5, 3), np.float32), "w")
    with pytest.raises(GraphError) as caught:
        x @ w  # the product
    message = str(caught.value)
    assert line_of("the product") in message
    assert "matmul" in message and "(batch, 6)" in message and "(5, 3)" in message
    labels = cr.input("labels", ("batch",))
    with pytest.raises(GraphTypeError) as caught:
        losses.sparse_categorical_crossentropy(x, labels)  # float labels
    assert line_of("float labels") in str(caught.value)


# -- taken as meant -------------------------------------------------------------------------------

WIDE = np.zeros((9, 2 * FEATURES), np.float32)
WIDE[:, ::2] = X
READ_ONLY = X.copy()
READ_ONLY.setflags(write=False)
UNALIGNED = np.frombuffer(b"\0" + X.tobytes(), np.float32, offset=1).reshape(X.shape)


class Wrapped:
    """Something of another library that gives its array on request."""

    def __array__(self, dtype=None, copy=None):
        return X


FORMS = {
    "strided": (WIDE[:, ::2], Y),
    "reversed": (X[::-1, ::-1].copy()[::-1, ::-1], Y[::-1].copy()[::-1]),
    "fortran": (np.asfortranarray(X), Y),
    "read-only": (READ_ONLY, Y),
    "unaligned": (UNALIGNED, Y),
    "big-endian": (X.astype(">f4"), Y.astype(">i8")),
    "float64": (X.astype("f8"), Y),
    "big-endian-float64": (X.astype(">f8"), Y),
    "narrow-labels": (X, Y.astype("u1")),
    "narrower-labels": (X, Y.astype(">i2")),
    "lists": (X.tolist(), Y.tolist()),
    "tuples": (tuple(map(tuple, X.tolist())), tuple(Y.tolist())),
    "array-protocol": (Wrapped(), Y),
    "subclass": (X.view(np.recarray), Y),
}


@pytest.fixture(scope="module", params=["native", "numpy"])
def clean(request):
    """Parameters and results after two steps with clean arrays."""
    train = classifier(request.param)
    results = [train.step(x=X, y=Y) for _ in range(2)]
    return request.param, results, contents(train)


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_the_same_numbers_trains_the_same(clean, form):
    backend, results, after = clean
    x, y = FORMS[form]
    kept = X.copy(), Y.copy()
    train = classifier(backend)
    for expected in results:
        found = train.step(x=x, y=y)
        assert found["loss"] == expected["loss"]
        assert found["logits"].tobytes() == expected["logits"].tobytes()
    assert contents(train) == after
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(Y, kept[1])


# -- formulas -------------------------------------------------------------------------------------

HOSTILE = [
    "__import__('os').system('touch {path}')",
    "open('{path}', 'w')",
    "().__class__.__base__.__subclasses__()",
    "exec(\"open('{path}','w')\")",
    "x.__init__.__globals__",
    "(lambda: x)()",
    "[open('{path}', 'w') for x in [1]]",
    "x if open('{path}', 'w') else x",
    'f\'{{open("{path}", "w")}}\'',
    "x; import os",
    "x\n__import__('os')",
    "Integer(1).__class__",
    "sympify(x)",
    "S('x')",
    "x := 3",
    "9**9**9**9**9",
    "(" * 5000 + "x" + ")" * 5000,
    "x" * 100_000,
    "\x00",
    "",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_formula_runs_nothing(tmp_path, text):
    target = tmp_path / "made"
    with pytest.raises(FormulaError):
        cr.formula(text.format(path=target) if "{path}" in text else text)
    assert not target.exists()


# -- checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def trained():
    train = classifier()
    train.step(x=X, y=Y)
    return train


def unloadable(train, path, *words, error=CheckpointError):
    """Loading fails with a message of the file and the words, and changes nothing."""
    before = contents(train)
    with pytest.raises(error) as caught:
        train.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert all(word in message for word in words), message
    assert contents(train) == before
    train.step(x=X, y=Y)


def test_another_models_checkpoint(tmp_path, trained):
    classifier(hidden=7).save(tmp_path / "narrow")
    unloadable(trained, tmp_path / "narrow", "does not fit", "float32(7, 6)", "not float32(8, 6)")
    classifier(optimizer=optim.SGD(0.1)).save(tmp_path / "sgd")
    unloadable(trained, tmp_path / "sgd", "SGD", "Adam")
    x = cr.input("x", ("batch", 3))
    other = cr.compile_train((nn.Linear(3, 1)(x)).sum(), optim.Adam(0.1), backend="numpy")
    other.save(tmp_path / "other")
    unloadable(trained, tmp_path / "other", "does not fit", "missing")
    save_arrays(tmp_path / "weights", {"w": X})
    unloadable(trained, tmp_path / "weights", "not a checkpoint of a training")


def test_damaged_checkpoints(tmp_path, trained):
    good, bad = tmp_path / "good", tmp_path / "bad"
    classifier().save(good)
    raw = good.read_bytes()
    for length in (0, 3, 8, 100, len(raw) // 2, len(raw) - 1):
        bad.write_bytes(raw[:length])
        unloadable(trained, bad)
    for place in (len(raw) - 1, len(raw) // 2, raw.index(b"optimizer") + 1):
        bad.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        unloadable(trained, bad)
    for text in (b"no checkpoint at all", b"\x80\x04\x95pickled", b"\xff" * 64, b"PK\x03\x04" * 9):
        bad.write_bytes(text)
        unloadable(trained, bad)
    unloadable(trained, tmp_path / "absent", error=FileNotFoundError)
    unloadable(trained, tmp_path, error=OSError)


def test_a_checkpoint_of_a_newer_layout(tmp_path, trained):
    path = tmp_path / "newer"
    trained.save(path)
    arrays, metadata = load_arrays(path)
    save_arrays(path, arrays, metadata | {"format": "chainrule.training/2"})
    unloadable(trained, path, "chainrule.training/2")


def test_a_checkpoint_that_lies_about_its_position(tmp_path, trained):
    path = tmp_path / "lies"
    trained.save(path)
    arrays, metadata = load_arrays(path)
    for position in ("{}", "[]", "null", "{", '{"epoch": "7"}', "[" * 100_000):
        save_arrays(path, arrays, metadata | {"training": position})
        unloadable(trained, path, "position")


def test_loading_during_training_goes_on_from_there(tmp_path):
    train = classifier()
    losses_seen = []
    for number in range(6):
        if number == 3:
            train.save(tmp_path / "third")
        losses_seen.append(train.step(x=X, y=Y)["loss"])
    train.load(tmp_path / "third")
    assert train.steps == 3
    again = [train.step(x=X, y=Y)["loss"] for _ in range(3)]
    assert again == losses_seen[3:]


def test_a_load_that_fails_in_a_callback_does_not_disturb_the_training(tmp_path):
    train = classifier()
    path = tmp_path / "start"
    train.save(path)

    class LoadDamaged(cr.callbacks.Callback):
        def __init__(self):
            self.seen = []

        def on_batch_end(self, program, batch, logs):
            self.seen.append(logs["loss"])
            if len(self.seen) == 2:
                with pytest.raises(CheckpointError):
                    program.load(tmp_path / "bad")

    (tmp_path / "bad").write_bytes(path.read_bytes()[:-5])
    callback = LoadDamaged()
    plain = classifier()
    expected = plain.fit((X, Y), epochs=3, batch_size=4, verbose=0)
    history = train.fit((X, Y), epochs=3, batch_size=4, callbacks=[callback], verbose=0)
    assert len(callback.seen) == 9 and all(map(np.isfinite, callback.seen))
    assert history["loss"] == expected["loss"]
    assert contents(train) == contents(plain)
