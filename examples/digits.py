"""The data, scikit-learn's 1,797 scanned digits, and the model that learns to read them."""

from typing import Any, NamedTuple, Protocol, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets, neural_network

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

VALIDATION, TEST = 300, 400  # digits; the other 1,097 are trained on
PASSES = 6  # through each chunk


class Config(TypedDict):
    """The configuration of a run."""

    hidden: tuple[int, ...]
    learning_rate: float
    epochs: int


class Part(NamedTuple):
    """Some of the digits: 64 shades of grey each, and which digit they show."""

    images: Floats
    labels: Labels

    def share(self, number: int, of: int) -> "Part":
        """Return one of several equal shares: a chunk to train on, a shard to evaluate."""
        indices = np.array_split(np.arange(len(self.labels)), of)[number]
        return Part(self.images[indices], self.labels[indices])


class Digits(NamedTuple):
    """The digits in three parts that have none in common."""

    train: Part
    validation: Part
    test: Part


class Classifier(Protocol):
    """What is used here of scikit-learn's `MLPClassifier`."""

    learning_rate_init: float
    loss_: float

    def partial_fit(self, X: Floats, y: Labels, classes: Labels | None = None) -> Any:
        """Go once through some data."""
        ...

    def score(self, X: Floats, y: Labels) -> float:
        """Return the share of the data that is classified rightly."""
        ...

    def predict_proba(self, X: Floats) -> Floats:
        """Return the probability of each digit for each image."""
        ...


def load() -> Digits:
    """Return the digits; those to train on also moved by one pixel in all eight directions."""
    bunch = cast("Any", datasets).load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images: Floats = bunch.images[order] / 16
    labels: Labels = bunch.target[order]
    validation, test, train = np.split(np.arange(len(labels)), [VALIDATION, VALIDATION + TEST])
    padded = np.pad(images[train], ((0, 0), (1, 1), (1, 1)))
    moved = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]

    def part(images: Floats, labels: Labels) -> Part:
        return Part(images.reshape(-1, 64), labels)

    return Digits(
        part(np.stack(moved, axis=1), labels[train].repeat(9)),
        part(images[validation], labels[validation]),
        part(images[test], labels[test]),
    )


def new_model(config: Config, seed: int) -> Classifier:
    """Return a model that has learned nothing yet."""
    return cast("Any", neural_network).MLPClassifier(
        config["hidden"],
        learning_rate_init=config["learning_rate"],
        batch_size=16,
        random_state=seed,
    )


def train(model: Classifier, config: Config, chunk: Part) -> None:
    """Train a model on a chunk, whatever learning rate it has learned with before."""
    if model.learning_rate_init != config["learning_rate"]:
        model.learning_rate_init = config["learning_rate"]
        vars(model).pop("_optimizer", None)  # it keeps the old rate; the next one takes the new
    for _ in range(PASSES):
        model.partial_fit(*chunk, classes=np.arange(10))
