"""Knowledge distillation: a small transformer learns from the answers of a large one.

    p_T(x) = softmax(z / T)                               answers, softened by a temperature
    loss = T² KL(teacher_T ‖ student_T)                   imitate all probabilities, not the best
         + cross-entropy(student, label)                  where there are labels
         + 1 - cos(student's hidden state, teacher's)     look in the same direction inside

Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015; the three terms, and a
student that starts as every second layer of its teacher, are those of Sanh et al., "DistilBERT",
2019.  T² keeps the gradient of the first term as large as that of the others.

Learns: digits, read as eight rows of eight pixels.  The teacher saw all labels; the student gets
sixty, and the teacher's answers on all images.
Expect: teacher and taught student 0.97, half of the layers notwithstanding; the same student gets
0.6 to 0.7 from the sixty labels alone.
"""

from types import SimpleNamespace

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

WIDTH, LABELLED, TEMPERATURE = 32, 60, 3.0


class Reader(nn.Module):
    """``forward(images)`` (batch, 64) returns logits (batch, 10) and the last hidden state."""

    def __init__(self, layers):
        self.rows = nn.Linear(8, WIDTH)
        self.places = nn.LearnedPositionalEmbedding(8, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(WIDTH))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images):
        x = self.places(self.rows(images.reshape((images.shape[0], 8, 8))))
        hidden = self.encoder(x).mean(1)
        return self.head(hidden), hidden


def start_as_half_of(student, teacher):
    """Copy what student and teacher share, and every second layer."""
    state = {}
    for name, value in teacher.state_dict().items():
        parts = name.split(".")
        if parts[:2] == ["encoder", "layers"]:
            if int(parts[2]) % 2:
                continue
            parts[2] = str(int(parts[2]) // 2)
        state[".".join(parts)] = value
    student.load_state_dict(state)


def build(layers=4):
    """Return teacher and student, and the graphs of their losses.

    ``label`` -1: there is none.
    """
    image = cr.input("image", ("batch", 64))
    label = cr.input("label", ("batch",), dtype="int64")
    teacher, student = Reader(layers), Reader(layers // 2)
    logits, hidden = teacher(image)
    guess, inside = student(image)
    known = (label >= 0).sum().astype("float32")
    surprise = {
        name: losses.sparse_categorical_crossentropy(
            answer, label, from_logits=True, ignore_index=-1, reduction="sum"
        )
        / cr.maximum(known, 1.0)
        for name, answer in (("teacher", logits), ("student", guess))
    }
    soft = cr.stop_gradient(cr.F.softmax(logits, temperature=TEMPERATURE))
    imitation = TEMPERATURE**2 * losses.kl_divergence(
        cr.F.log_softmax(guess, temperature=TEMPERATURE), soft, "batchmean"
    )
    direction = 1.0 - cr.cosine_similarity(inside, cr.stop_gradient(hidden)).mean()
    return SimpleNamespace(
        teacher=teacher,
        student=student,
        logits=logits,
        guess=guess,
        teacher_loss=surprise["teacher"],
        alone_loss=surprise["student"],
        distilled_loss=imitation + surprise["student"] + direction,
    )


def fit(loss, model, data, epochs, verbose, seed, backend):
    """Train the parameters of ``model`` alone."""
    steps = epochs * -(-len(data[0]) // 50)
    schedule = cr.schedules.CosineAnnealingLR(3e-3, steps, interval="step")
    optimizer = optim.AdamW(schedule)
    program = cr.compile_train(
        loss, optimizer, params=model.parameters(), backend=backend, seed=seed
    )
    program.fit(data, epochs, batch_size=50, verbose=verbose)


def train(epochs=15, verbose=1, seed=0, backend="native"):
    """Train the teacher, then a student alone and one that is taught; return accuracies."""
    (x, y), (x_test, y_test) = cr.data.load_digits(seed=seed)
    sparse = np.where(np.arange(len(y)) < LABELLED, y, -1)
    cr.manual_seed(seed)
    net = build()
    answer = cr.compile({"teacher": net.logits, "student": net.guess}, backend=backend)

    def accuracy(who):
        return float((answer(image=x_test)[who].argmax(1) == y_test).mean())

    m = {}
    fit(net.teacher_loss, net.teacher, (x, y), epochs, verbose, seed, backend)
    m["teacher"] = accuracy("teacher")
    labelled = (x[:LABELLED], y[:LABELLED])
    fit(net.alone_loss, net.student, labelled, 10 * epochs, 0, seed, backend)
    m["alone"] = accuracy("student")
    start_as_half_of(net.student, net.teacher)
    fit(net.distilled_loss, net.student, (x, sparse), epochs, verbose, seed, backend)
    m["distilled"] = accuracy("student")
    return m


if __name__ == "__main__":
    m = train()
    print("accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in m.items()))
