"""Rows that a task learns from or judges, whatever survey they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Strings = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Sample:
    """States of objects: what was known of each at some moment, and what it is.

    names    : feature names, the columns of `features`
    features : (n, k), NaN where unknown
    label, source, object, group : (n,); label '' if unknown; one object of several sources is one group
    n_points, n_nights, n_detections, age_days : (n,) of the light curve up to that moment
    """

    names: tuple[str, ...]
    features: F64
    label: Strings
    source: Strings
    object: Strings
    group: Strings
    n_points: I64
    n_nights: I64
    n_detections: I64
    age_days: F64

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: npt.NDArray[Any]) -> Sample:
        """Some of the rows.  rows : indices or boolean mask."""
        return Sample(self.names, *(getattr(self, item.name)[rows] for item in fields(self)[1:]))

    def columns(self, names: Sequence[str]) -> F64:
        """Some of the features, (n, len(names)).  Raises KeyError for a name that the sample lacks."""
        position = {name: index for index, name in enumerate(self.names)}
        return self.features[:, [position[name] for name in names]]

    def truth(self, classes: Sequence[str]) -> I64:
        """(n,) index of each row's label in `classes`, -1 where it is none of them."""
        index = {name: number for number, name in enumerate(classes)}
        return np.array([index.get(label, -1) for label in self.label.tolist()], dtype=np.int64)

    def last_rows(self) -> I64:
        """The row of each object that knows most points, of equal ones the last; in order."""
        order = np.lexsort((np.arange(len(self)), self.n_points, self.group))
        group = self.group[order]
        return np.sort(order[np.append(group[1:] != group[:-1], True)[: len(order)]])

    def weights(self) -> F64:
        """(n,) weights that count every class the same and, in it, every object the same; mean 1."""
        _, rows_of, rows = np.unique(self.group, return_inverse=True, return_counts=True)
        weight = 1.0 / rows[rows_of]
        for label in np.unique(self.label):
            weight[self.label == label] /= weight[self.label == label].sum()
        return np.asarray(weight / weight.mean())


def relabelled(sample: Sample, labels: Mapping[str, str]) -> Sample:
    """The sample with each label replaced by what it stands for, '' where `labels` lacks it."""
    return replace(
        sample, label=np.array([labels.get(name, "") for name in sample.label.tolist()], dtype=np.str_)
    )


def joined(samples: Sequence[Sample]) -> Sample:
    """The rows of several samples of the same features."""
    if len({sample.names for sample in samples}) != 1:
        raise ValueError("samples of different features cannot be joined")
    first = fields(samples[0])[1:]
    return Sample(
        samples[0].names,
        *(np.concatenate([getattr(sample, item.name) for sample in samples]) for item in first),
    )
