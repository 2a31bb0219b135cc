"""The checker of isolation, on histories written by hand: it finds each anomaly, and none where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.isolation.checker import Anomaly, check, found_in
from tests.isolation.graphs import Dependency, Edge, Graph
from tests.isolation.histories import History, Operation, Outcome, Transaction, append, insert, read, scan

X, Y, Z, SET = 1, 2, 3, 9


def history(
    *transactions: Sequence[Operation],
    lists: Mapping[int, Sequence[int]] | None = None,
    sets: Mapping[int, Sequence[int]] | None = None,
    aborted: Sequence[int] = (),
) -> History:
    """Transactions from 1 on, by what they did, and what they left."""
    outcomes: list[Outcome] = ["aborted" if n in aborted else "committed" for n in range(1, len(transactions) + 1)]
    return History(
        [Transaction(f"T{n}", list(done), outcomes[n - 1]) for n, done in enumerate(transactions, 1)],
        lists or {},
        sets or {},
    )


HISTORIES: Mapping[str, tuple[History, set[Anomaly]]] = {
    "nothing happened": (history(), set()),
    "one after the other": (
        history([read(X), append(X, 1)], [read(X, 1), append(X, 2)], [read(X, 1, 2)], lists={X: [1, 2], Y: []}),
        set(),
    ),
    "reads what it wrote itself": (
        history([append(X, 1), read(X, 1), append(X, 2), read(X, 1, 2)], [read(X, 1, 2)], lists={X: [1, 2]}),
        set(),
    ),
    "a scan before an insert, and one after it": (
        history([insert(SET, 1)], [scan(SET)], [scan(SET, 1), insert(SET, 2)], sets={SET: [1, 2]}),
        set(),
    ),
    "what is rolled back is seen by nobody": (
        history([append(X, 1)], [read(X), append(X, 2)], lists={X: [2]}, aborted=[1]),
        set(),
    ),
    "what a transaction saw that is rolled back does not count": (
        history([append(X, 1), append(X, 2)], [read(X, 1), append(Y, 3)], lists={X: [1, 2], Y: []}, aborted=[2]),
        set(),
    ),
    "G0": (
        history([append(X, 11), append(Y, 12)], [append(X, 21), append(Y, 22)], lists={X: [11, 21], Y: [22, 12]}),
        {Anomaly.G0},
    ),
    "G1a": (history([append(X, 1)], [read(X, 1)], lists={X: []}, aborted=[1]), {Anomaly.G1A}),
    "G1a: a scan": (history([insert(SET, 1)], [scan(SET, 1)], sets={SET: []}, aborted=[1]), {Anomaly.G1A}),
    "G1a: it stayed": (history([append(X, 1)], lists={X: [1]}, aborted=[1]), {Anomaly.G1A}),
    "G1a: an inserted row stayed": (history([insert(SET, 1)], sets={SET: [1]}, aborted=[1]), {Anomaly.G1A}),
    # The same read shows half of what the other one did.
    "G1b": (
        history([append(X, 1), append(X, 2)], [read(X, 1)], lists={X: [1, 2]}),
        {Anomaly.G1B, Anomaly.G_SINGLE},
    ),
    "G1b, and no P4: what it read then was its own": (
        history([append(X, 1), read(X, 1), append(X, 2)], [read(X, 1), append(X, 3)], lists={X: [1, 2, 3]}),
        {Anomaly.G1B, Anomaly.G_SINGLE},
    ),
    "G1c": (
        history([append(X, 1), read(Y, 2)], [append(Y, 2), read(X, 1)], lists={X: [1], Y: [2]}),
        {Anomaly.G1C},
    ),
    "G1c: one overwrote, and one read": (
        history([append(X, 1), read(Y, 3)], [append(X, 2), append(Y, 3)], lists={X: [1, 2], Y: [3]}),
        {Anomaly.G1C},
    ),
    "G1c of three": (
        history(
            [append(X, 1), read(Z, 3)], [append(Y, 2), read(X, 1)], [append(Z, 3), read(Y, 2)],
            lists={X: [1], Y: [2], Z: [3]},
        ),
        {Anomaly.G1C},
    ),
    "P4": (
        history([read(X), append(X, 1)], [read(X), append(X, 2)], lists={X: [1, 2]}),
        {Anomaly.P4, Anomaly.G_SINGLE},
    ),
    "P4: it is gone": (history([append(X, 1)], [append(X, 2)], lists={X: [2]}), {Anomaly.P4}),
    "P4: an inserted row is gone": (history([insert(SET, 1)], sets={SET: []}), {Anomaly.P4}),
    "no P4: it had read the last version before it wrote": (
        history([read(X), read(X, 2), append(X, 1)], [read(X), append(X, 2)], lists={X: [2, 1]}),
        {Anomaly.G_SINGLE},
    ),
    "G-single: fuzzy read": (history([read(X), read(X, 2)], [append(X, 2)], lists={X: [2]}), {Anomaly.G_SINGLE}),
    "G-single: read skew": (
        history([read(X), read(Y, 3)], [append(X, 2), append(Y, 3)], lists={X: [2], Y: [3]}),
        {Anomaly.G_SINGLE},
    ),
    "G-single: a write": (
        history([read(X), append(Y, 4)], [append(X, 2), append(Y, 3)], lists={X: [2], Y: [3, 4]}),
        {Anomaly.G_SINGLE},
    ),
    "G-single: a write that the next read shows": (
        history([read(X), append(X, 4), read(X, 2, 4)], [append(X, 2)], lists={X: [2, 4]}),
        {Anomaly.G_SINGLE},
    ),
    "G-single: phantom": (history([scan(SET), scan(SET, 1)], [insert(SET, 1)], sets={SET: [1]}), {Anomaly.G_SINGLE}),
    "G-single of three": (
        history([read(X), read(Y, 3)], [append(X, 2)], [read(X, 2), append(Y, 3)], lists={X: [2], Y: [3]}),
        {Anomaly.G_SINGLE},
    ),
    # Two writers of which no reader sees both, and no two readers agree: the "long fork".
    "G2-item: long fork": (
        history(
            [append(X, 1)], [append(Y, 2)], [read(X, 1), read(Y)], [read(X), read(Y, 2)],
            lists={X: [1], Y: [2]},
        ),
        {Anomaly.G2_ITEM, Anomaly.G_NONADJACENT},
    ),
    "G2-item: write skew": (
        history([read(X), read(Y), append(X, 1)], [read(X), read(Y), append(Y, 2)], lists={X: [1], Y: [2]}),
        {Anomaly.G2_ITEM},
    ),
    "G2-item: seen by a reader alone": (
        history(
            [read(Y), append(Y, 1)], [read(X), read(Y), append(X, 2)], [read(X), read(Y, 1)],
            lists={X: [2], Y: [1]},
        ),
        {Anomaly.G2_ITEM},
    ),
    "G2": (
        history([scan(SET), insert(SET, 1)], [scan(SET), insert(SET, 2)], sets={SET: [1, 2]}),
        {Anomaly.G2},
    ),
    "G2: one predicate, one item": (
        history([scan(SET), append(X, 1)], [read(X), insert(SET, 2)], lists={X: [1]}, sets={SET: [2]}),
        {Anomaly.G2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history(name: str) -> None:
    given_, expected = HISTORIES[name]
    assert found_in(given_) == expected, check(given_)


def test_every_anomaly_has_a_history() -> None:
    assert set().union(*(expected for _, expected in HISTORIES.values())) == set(Anomaly)


def test_what_a_finding_tells() -> None:
    (finding,) = check(HISTORIES["G-single: read skew"][0])
    assert finding.about == "T1 -rw 1-> T2 -wr 2-> T1"
    (finding,) = check(HISTORIES["G1a"][0])
    assert finding.about == "T2 read 1, which T1 rolled back"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (History([Transaction("T1")]), "T1 has not ended"),
        (history([append(X, 1)], [append(Y, 1)], lists={X: [1]}), "1 was written twice"),
        (history([read(X, 7)], lists={X: []}), "7 was read, and nobody wrote it"),
        (history(lists={X: [7]}), "7 was read, and nobody wrote it"),
    ],
)
def test_what_is_no_history(wrong: History, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check(wrong)


def test_the_components_of_a_long_path() -> None:
    """Without recursion."""
    graph = Graph()
    for number in range(5000):
        graph.add(Edge(number, number + 1, Dependency.WW, X))
    assert graph.components() == []
    graph.add(Edge(5000, 0, Dependency.WW, X))
    assert graph.components() == [set(range(5001))]


PROGRAMS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(["read", "append", "scan", "insert"]), st.integers(1, 3)), max_size=5),
        st.booleans(),
    ),
    max_size=6,
)


@given(PROGRAMS)
def test_one_after_the_other_is_never_an_anomaly(programs: list[tuple[list[tuple[str, int]], bool]]) -> None:
    """Whatever transactions do: in a model that runs each as a whole, the checker finds nothing."""
    lists: dict[int, list[int]] = {1: [], 2: [], 3: []}
    sets: dict[int, list[int]] = {1: [], 2: [], 3: []}
    transactions = []
    element = 0
    for number, (steps, commits) in enumerate(programs):
        before = {key: list(found) for key, found in lists.items()}, {key: list(found) for key, found in sets.items()}
        transaction = Transaction(f"T{number}", outcome="committed" if commits else "aborted")
        for kind, key in steps:
            element += 1
            if kind == "append":
                lists[key].append(element)
                transaction.operations.append(append(key, element))
            elif kind == "insert":
                sets[key].append(element)
                transaction.operations.append(insert(key, element))
            elif kind == "read":
                transaction.operations.append(read(key, *lists[key]))
            else:
                transaction.operations.append(scan(key, *sets[key]))
        if not commits:
            lists, sets = before
        transactions.append(transaction)
    assert check(History(transactions, lists, sets)) == []
