"""Personal forests: the library's own answer from plain arrays, what marks change, and arrays that lie."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from coniferest.isoforest import IsolationForest

from broker.scores.aad import grow, personal_forest, weighed
from broker.scores.personal import (
    MAX_BYTES,
    PersonalForest,
    Trees,
    pack_forest,
    pack_trees,
    unpack_forest,
    unpack_trees,
)

NAMES = [f"f{number}" for number in range(12)]
KINDS = {"spike": (0, 1), "drift": (5, 6), "wobble": (9, 10, 11)}


def made(seed: int, ordinary: int = 2500, strange: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Ordinary rows, and outliers of three kinds: (n, 12) and (n,) names."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(ordinary + strange * len(KINDS), len(NAMES)))
    kind = np.array(["ordinary"] * len(rows), dtype="U8")
    for number, (name, columns) in enumerate(KINDS.items()):
        place = slice(number * strange, (number + 1) * strange)
        rows[place, list(columns)] += 4.5
        kind[place] = name
    return rows, kind


def with_gaps(rows: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(7).random(rows.shape) < 0.1, np.nan, rows)


@pytest.fixture(scope="module")
def trees() -> Trees:
    return grow(with_gaps(made(1)[0]), NAMES, seed=3)


def some_marks(verdicts: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    rows, kind = made(1)
    interesting = rows[kind == "wobble"][: sum(verdicts)]
    boring = rows[kind != "wobble"][: len(verdicts) - sum(verdicts)]
    return np.concatenate([interesting, boring]), np.array(sorted(verdicts, reverse=True), dtype=bool)


@pytest.mark.parametrize(
    "verdicts", [[], [True] * 5, [False] * 5, [True] * 4 + [False] * 9], ids=["none", "good", "bad", "both"]
)
def test_plain_arrays_give_the_librarys_own_scores(trees: Trees, verdicts: list[bool]) -> None:
    recent, others = with_gaps(made(1)[0]), with_gaps(made(2)[0])
    others[0], others[1], others[2, 0] = np.nan, np.inf, -1e300
    marked, interesting = some_marks(verdicts)
    forest = personal_forest(trees, marked.reshape(-1, len(NAMES)), interesting, recent)
    library = weighed(trees, marked.reshape(-1, len(NAMES)), interesting, recent)
    own = -library.score_samples(trees.filled(others))
    assert np.allclose(forest.strangeness(trees.leaves(others)), own, rtol=0, atol=1e-4 * own.std())
    assert np.array_equal(trees.leaves(others), _leaves_of_the_library(library, trees, others))


def _leaves_of_the_library(library: object, trees: Trees, rows: np.ndarray) -> np.ndarray:
    return np.asarray(library.apply(trees.filled(rows)))  # type: ignore[attr-defined]


def test_values_on_a_threshold_go_the_librarys_way(trees: Trees) -> None:
    """Rows made of the trees' own limits: <= and < would differ on every one."""
    inner = trees.left > 0
    limits = np.zeros((int(inner.sum()), len(NAMES)))
    limits[np.arange(len(limits)), trees.feature[inner]] = trees.value[inner]
    library = weighed(trees, limits[:0], np.zeros(0, dtype=bool), limits)
    assert np.array_equal(trees.leaves(limits), _leaves_of_the_library(library, trees, limits))


def test_without_marks_it_orders_as_an_isolation_forest_does(trees: Trees) -> None:
    rows, kind = made(2)
    plain = personal_forest(trees, rows[:0], np.zeros(0, dtype=bool), rows)
    known = IsolationForest(n_trees=100, n_subsamples=256, n_jobs=1, random_seed=3).fit(made(1)[0])
    for name in KINDS:
        ours = _area(kind == name, plain.strangeness(trees.leaves(rows)))
        assert ours > _area(kind == name, -known.score_samples(rows)) - 0.05


def _area(wanted: np.ndarray, score: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(score)) + 1
    count = wanted.sum()
    return float((ranks[wanted].sum() - count * (count + 1) / 2) / (count * (len(score) - count)))


@pytest.mark.parametrize("wanted", list(KINDS))
def test_one_kind_of_outlier_rises_when_it_is_marked_interesting(wanted: str) -> None:
    """Of the 50 strangest rows never seen before, a fifth more are of the kind asked for, after 30 marks."""
    rows, kind = made(1)
    fresh, kind_of_fresh = made(2)
    trees = grow(rows, NAMES, seed=3)
    plain = forest = personal_forest(trees, rows[:0], np.zeros(0, dtype=bool), rows)
    marked: list[int] = []
    for _ in range(6):
        strangeness = forest.strangeness(trees.leaves(rows))
        strangeness[marked] = -np.inf
        marked += np.argsort(-strangeness)[:5].tolist()
        forest = personal_forest(trees, rows[marked], kind[marked] == wanted, rows)

    def share(of: PersonalForest) -> float:
        top = np.argsort(-of.strangeness(trees.leaves(fresh)))[:50]
        return float((kind_of_fresh[top] == wanted).mean())

    assert share(forest) > share(plain) + 0.2


def test_a_verdict_moves_what_it_is_about_and_its_opposite_moves_it_back(trees: Trees) -> None:
    rows, kind = made(1)
    leaves = trees.leaves(rows)
    one = rows[kind == "spike"][:3]
    plain = personal_forest(trees, one[:0], np.zeros(0, dtype=bool), rows)
    liked = personal_forest(trees, one, np.ones(3, dtype=bool), rows)
    disliked = personal_forest(trees, one, np.zeros(3, dtype=bool), rows)
    rank = {name: it.rank(leaves)[kind == "spike"].mean() for name, it in
            (("plain", plain), ("liked", liked), ("disliked", disliked))}  # fmt: skip
    assert rank["disliked"] < rank["plain"] < rank["liked"]


def test_ranks_are_shares_of_the_recent_and_what_is_common_is_not_strange() -> None:
    rows, _ = made(1)
    rows[:2000] = 6.0  # far out, and the rule
    trees = grow(rows, NAMES, seed=1)
    forest = personal_forest(trees, rows[:0], np.zeros(0, dtype=bool), rows)
    rank = forest.rank(trees.leaves(rows))
    assert rank.min() >= 0.0
    assert rank.max() <= 1.0
    assert len(set(rank[:2000])) == 1
    assert (rank > 0.99).mean() < 0.02
    assert np.isclose(np.mean(rank[2000:] > rank[0]), 1.0, atol=0.1) or rank[0] < 0.5


def test_a_feature_that_hardly_anything_has_is_left_out() -> None:
    rows, _ = made(1)
    rows[:, 3] = np.nan
    rows[100:, 4] = np.nan
    assert grow(rows, NAMES, seed=1).inputs == tuple(name for name in NAMES if name not in {"f3", "f4"})
    with pytest.raises(ValueError, match="no feature"):
        grow(np.full((10, 2), np.nan), NAMES[:2], seed=1)


def test_a_handful_of_alerts_is_enough_to_begin_with() -> None:
    rows = made(1)[0][:2]
    trees = grow(rows, NAMES, seed=1)
    assert personal_forest(trees, rows[:1], np.array([True]), rows).rank(trees.leaves(rows)).shape == (2,)


def test_what_is_stored_comes_back(trees: Trees) -> None:
    rows, _ = made(2)
    forest = personal_forest(trees, *some_marks([True, False]), rows)
    again = unpack_forest(pack_forest(forest), unpack_trees(pack_trees(trees)))
    assert np.array_equal(forest.rank(trees.leaves(rows)), again.rank(again.trees.leaves(rows)))
    assert again.trees.inputs == trees.inputs


def _changed(array: np.ndarray, place: int, value: float) -> np.ndarray:
    copy = array.copy()
    copy[place] = value
    return copy


def _leaf(trees: Trees) -> int:
    return int(np.flatnonzero(trees.left == 0)[3])


LIES = {
    "a child before its parent": lambda t: replace(t, left=_changed(t.left, int(np.argmax(t.left)), 1)),
    "a child outside": lambda t: replace(t, left=_changed(t.left, 0, 10**6)),
    "a negative child": lambda t: replace(t, left=_changed(t.left, 0, -5)),
    "a right child outside": lambda t: replace(t, left=_changed(t.left, 0, int(t.sizes[0]) - 1)),
    "an input that is not there": lambda t: replace(t, feature=_changed(t.feature, 0, len(t.inputs))),
    "a leaf of another": lambda t: replace(
        t, feature=_changed(t.feature, int(np.flatnonzero(t.left == 0)[3]), 0)
    ),
    "too short": lambda t: replace(t, value=t.value[:-1]),
    "sizes that do not add up": lambda t: replace(t, sizes=_changed(t.sizes, 0, 1)),
    "an empty tree": lambda t: replace(t, sizes=np.append(t.sizes, 0).astype(np.int32)),
    "no trees": lambda t: replace(t, sizes=t.sizes[:0]),
    "medians of others": lambda t: replace(t, medians=t.medians[:-1]),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_trees_that_would_lead_astray_are_refused(trees: Trees, lie: object) -> None:
    content = pack_trees(lie(trees))  # type: ignore[operator]
    with pytest.raises(ValueError, match=r".+"):
        unpack_trees(content)


def test_forests_that_do_not_fit_are_refused(trees: Trees) -> None:
    rows, _ = made(2)
    forest = personal_forest(trees, rows[:0], np.zeros(0, dtype=bool), rows)
    for wrong in (
        replace(forest, worth=forest.worth[:-1]),
        replace(forest, worth=_changed(forest.worth, 0, np.nan)),
        replace(forest, quantiles=forest.quantiles[::-1]),
        replace(forest, quantiles=_changed(forest.quantiles, 5, np.nan)),
        replace(forest, quantiles=forest.quantiles[:0]),
    ):
        with pytest.raises(ValueError, match=r".+"):
            unpack_forest(pack_forest(wrong), trees)


def test_arrays_that_swell_or_are_objects_are_refused(trees: Trees) -> None:
    swollen = replace(trees, medians=np.zeros(10**7, dtype=np.float32))
    assert len(pack_trees(swollen)) < MAX_BYTES
    with pytest.raises(ValueError, match="unpack to more"):
        unpack_trees(pack_trees(swollen))
    with pytest.raises(ValueError, match="at most"):
        unpack_trees(bytes(MAX_BYTES + 1))


def test_an_array_that_lies_about_its_length_is_refused(trees: Trees) -> None:
    lying = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(pack_trees(trees))) as honest, zipfile.ZipFile(lying, "w") as parts:
        for name in honest.namelist():
            content = honest.read(name)
            if name == "value.npy":
                start = np.lib.format.header_data_from_array_1_0(trees.value) | {"shape": (10**13,)}
                header = io.BytesIO()
                np.lib.format.write_array_header_1_0(header, start)
                content = header.getvalue() + trees.value.tobytes()
            parts.writestr(name, content)
    with pytest.raises((ValueError, MemoryError)):
        unpack_trees(lying.getvalue())
