"""What each isolation level gives on each database: interleavings made on purpose, and random histories, both checked.

**One by one.** For each anomaly that Adya and Berenson defined, an interleaving of two or three transactions that
leads to it where nothing prevents it, as in Kleppmann's Hermitage. Each step is taken when the others have done what
they can. The cell says what came of it:

- **occurs**: the anomaly is there;
- waits: a lock kept a transaction back until the other had ended;
- error: the server ended one of them with `SerializationFailure` or `DeadlockDetected`, to be tried again;
- prevented: the statement saw a version that does no harm.

**At random.** Eight tasks at a time run short transactions on three lists, to which they append, and two sets, into
which they insert; one in ten is rolled back. From what they read follows which transaction must have come before which
other one, as in Elle (Kingsbury and Alvaro, VLDB 2020); a cycle among these is an anomaly, and the kinds of its edges
say which. The number is in how many of the histories it was found. G-nonadjacent is a cycle that no snapshot allows,
longer than that of G-single.

The proof fails unless what occurs is what the documentation of the server promises: no more at any level, and no less,
so that a checker which finds nothing does not pass.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio
from benchmarks import evidence
from tests.isolation.checker import Anomaly, found_in
from tests.isolation.configurations import CONFIGURATIONS, configured
from tests.isolation.items import registry
from tests.isolation.promises import ALLOWED, levels, may_occur
from tests.isolation.scenarios import SCENARIOS, Scenario, play
from tests.isolation.workloads import Tally, tally
from tests.services.databases import Databases

from covet_orm import Database
from covet_orm.transactions.options import IsolationLevel


@dataclass
class Shown:
    """What a database showed at one level.

    Attributes:
        name: of the database.
        promised: the name of the promises that hold for it.
        level: which.
        outcomes: of the interleavings.
        histories: the random ones, in numbers.
        wrong: what is not as it was promised.
    """

    name: str
    promised: str
    level: IsolationLevel
    outcomes: dict[str, str] = field(default_factory=dict)
    histories: Tally = field(default_factory=Tally)
    wrong: list[str] = field(default_factory=list)

    async def look(self, database: Database, rounds: int) -> None:
        """Play the interleavings, and record histories."""
        allowed = ALLOWED[self.promised][self.level]
        for scenario in SCENARIOS:
            played = await play(scenario, database, self.level)
            self.outcomes[scenario.name] = played.outcome
            if (played.outcome == "occurs") is not may_occur(scenario, self.promised, self.level):
                self.wrong.append(f"{scenario.name}: {played.outcome}")
            self.wrong += [
                f"{scenario.name}: {anomaly.value}" for anomaly in found_in(played.history) if anomaly not in allowed
            ]
        self.histories = await tally(database, self.level, rounds)
        found = set(self.histories.anomalies)
        self.wrong += [f"random: {self.histories.examples[anomaly].about}" for anomaly in found - allowed]
        self.wrong += [f"random: no {anomaly.value} was found" for anomaly in allowed - found]

    def row(self) -> list[object]:
        """The random histories as a row of their table."""
        outcomes = dict(self.histories.outcomes)
        committed, undone = outcomes.pop("committed", 0), outcomes.pop("aborted", 0)
        errors = ", ".join(f"{name} {count:,}" for name, count in sorted(outcomes.items()))
        return [
            self.name, self.level, self.histories.rounds, f"{self.histories.transactions:,}", f"{committed:,}",
            f"{undone:,}", errors or "none", *(self.histories.anomalies[anomaly] or "-" for anomaly in Anomaly),
        ]  # fmt: skip


async def prove(databases: Databases, rounds: int) -> list[Shown]:
    """Each database, at each of its levels."""
    shown = []
    for name, promised in CONFIGURATIONS:
        title = name + promised.removeprefix("mariadb") if promised.startswith("mariadb") else name
        with configured(databases.get(name), promised) as url:
            async with Database(url, max_size=9, acquire_timeout=60) as database:
                await database.create_all(registry)
                for level in levels(promised):
                    one = Shown(title, promised, level)
                    await one.look(database, rounds)
                    shown.append(one)
    return shown


def one_by_one(shown: list[Shown]) -> str:
    """The interleavings: a table for each database."""
    by_database: dict[str, list[Shown]] = {}
    for one in shown:
        by_database.setdefault(one.name, []).append(one)
    parts = []
    for name, several in by_database.items():
        rows = [[scenario.name, *(_cell(one.outcomes, scenario) for one in several)] for scenario in SCENARIOS]
        parts.append(f"**{name}**\n\n{evidence.table(['', *(one.level for one in several)], rows)}")
    return "\n\n".join(parts)


def _cell(outcomes: Mapping[str, str], scenario: Scenario) -> str:
    outcome = outcomes[scenario.name]
    return f"**{outcome}**" if outcome == "occurs" else outcome


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500, help="random histories on each database, at each level")
    given = parser.parse_args()
    with Databases() as databases:
        shown = anyio.run(prove, databases, given.rounds)
    head = [
        "database", "level", "histories", "transactions", "committed", "rolled back on purpose", "errors",
        *(anomaly.value for anomaly in Anomaly),
    ]  # fmt: skip
    evidence.write(
        "orm_isolation",
        "Isolation",
        __doc__,
        ["covet-orm", "asyncpg", "aiomysql", "aiosqlite"],
        {"One by one": one_by_one(shown), "At random": evidence.table(head, [one.row() for one in shown])},
        session="proof",
    )
    wrong = [f"{one.name}, {one.level}: {what}" for one in shown for what in one.wrong]
    if wrong:
        raise SystemExit("not as the documentation promises:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
