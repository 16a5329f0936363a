"""An index of prototypes: what the pipelines of the demo retrieve from, as RAG does from documents.

For each digit it holds some centres of the training images. Where a model is not sure of an image,
the digit of the nearest prototype is taken instead.
"""

from typing import Any, NamedTuple, TypedDict, cast

import numpy as np
from sklearn import cluster

from examples.digits import Classifier, Floats, Labels, Part


class Index(TypedDict):
    """Prototypes, and which digit each of them shows."""

    images: Floats
    labels: Labels


class Reading(NamedTuple):
    """What came out of reading some digits."""

    samples: int
    correct: int
    looked_up: int


def build(data: Part, per_digit: int) -> Index:
    """Find so many prototypes of each digit."""
    images: list[Floats] = []
    for digit in range(10):
        means = cast("Any", cluster).KMeans(per_digit, n_init=1, random_state=0)
        images.append(means.fit(data.images[data.labels == digit]).cluster_centers_)
    return Index(images=np.concatenate(images), labels=np.arange(10).repeat(per_digit))


def read(data: Part, model: Classifier, index: Index | None, confidence: float) -> Reading:
    """Read digits with a model and, where it is less sure than `confidence`, with an index."""
    probabilities = model.predict_proba(data.images)
    labels = probabilities.argmax(axis=1)
    unsure = probabilities.max(axis=1) < confidence
    if index is not None and unsure.any():
        steps = data.images[unsure, np.newaxis] - index["images"]
        labels[unsure] = index["labels"][np.square(steps).sum(axis=2).argmin(axis=1)]
    return Reading(len(labels), int((labels == data.labels).sum()), int(unsure.sum()))
