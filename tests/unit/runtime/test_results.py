"""Large results are given out again only when nobody can see them any more."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr

SIZE = 100_000


@pytest.fixture(scope="module")
def double():
    return cr.compile(cr.input("x", ("n",)) * 2)


def values(start: float) -> np.ndarray:
    return np.arange(start, start + SIZE, dtype=np.float32)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_result_that_was_dropped_is_used_again_and_aligned(double):
    first = double(x=values(0))
    place = address(first)
    assert place % 64 == 0
    del first
    assert address(double(x=values(1))) == place


def test_a_loop_that_holds_the_last_result_needs_two_arrays(double):
    places = set()
    result = None
    for start in range(6):
        result = double(x=values(start))
        places.add(address(result))
        assert result[0] == 2 * start
    assert result is not None and len(places) <= 2


@pytest.mark.parametrize(
    "hold", [lambda a: a, lambda a: a[5:], lambda a: a.reshape(2, -1).T, memoryview, iter]
)
def test_what_somebody_holds_is_never_written_again(double, hold):
    held = hold(double(x=values(3)))
    expected = np.array(list(held)) if not isinstance(held, np.ndarray) else held.copy()
    if not isinstance(held, np.ndarray):
        held = hold(double(x=values(3)))
    for start in range(4):
        double(x=values(start + 10))
    np.testing.assert_array_equal(np.array(list(held)), expected)


def test_all_results_that_are_kept_differ(double):
    results = [double(x=values(start)) for start in range(5)]
    assert [r[0] for r in results] == [0, 2, 4, 6, 8]
    assert len({address(r) for r in results}) == 5
