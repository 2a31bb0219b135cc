"""What is installed in this environment: metadata, who needs whom, and the search. There is no Covet in here."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from email.utils import getaddresses
from importlib.metadata import Distribution, distributions
from typing import Any

import msgspec
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as ParsedRequirement
from packaging.utils import canonicalize_name

__all__ = ["Catalogue", "Package", "Requirement", "UnknownPackageError", "read"]

NEAR = 5
LONGEST_LICENSE = 60


class UnknownPackageError(LookupError):
    """No distribution of that name is installed. `near` are names like it, the nearest first."""

    def __init__(self, name: str, near: list[str]) -> None:
        super().__init__(f"no distribution called {name!r} is installed here")
        self.near = near


class Requirement(msgspec.Struct, frozen=True):
    """One line of `Requires-Dist`.

    Attributes:
        name: what is required, as it is written there.
        canonical: the same, normalized.
        version: which versions; empty for any.
        extras: the extras of it that are required.
        extra: the extra of the requiring distribution that it belongs to; empty where it is always required.
        marker: the condition, as it is written there.
        applies: whether the condition holds for this interpreter and system.
        installed: whether some version of it is installed.
    """

    name: str
    canonical: str
    version: str = ""
    extras: list[str] = []
    extra: str = ""
    marker: str = ""
    applies: bool = True
    installed: bool = False


class Package(msgspec.Struct):
    """A distribution that is installed.

    Attributes:
        name: as its authors write it.
        canonical: normalized (https://packaging.python.org/en/latest/specifications/name-normalization/).
        links: its project's pages: label to URL.
        commands: what it adds to the command line.
        requires: what it requires.
        required_by: canonical names of those that require it here.
        optional_for: canonical names of those that have an extra which requires it.
        needs: canonical names of everything that is installed because of it, directly or not.
    """

    name: str
    canonical: str
    version: str
    summary: str = ""
    license: str = ""
    authors: list[str] = []
    requires_python: str = ""
    keywords: list[str] = []
    links: dict[str, str] = {}
    commands: list[str] = []
    requires: list[Requirement] = []
    required_by: list[str] = []
    optional_for: list[str] = []
    needs: list[str] = []


class Catalogue:
    """The packages of an environment.

    Args:
        packages: each with its requirements; what follows from those of the others is filled in here.
        descriptions: the long descriptions, as plain text, by canonical name.
        unreadable: where metadata was found that nobody could make sense of, and why.
    """

    def __init__(
        self, packages: Iterable[Package], descriptions: dict[str, str] | None = None, unreadable: Iterable[str] = ()
    ) -> None:
        self.packages = {package.canonical: package for package in sorted(packages, key=lambda each: each.canonical)}
        self.descriptions = descriptions or {}
        self.unreadable = tuple(unreadable)
        self._link()

    def __len__(self) -> int:
        return len(self.packages)

    def __contains__(self, canonical: object) -> bool:
        return canonical in self.packages

    def get(self, name: str) -> Package:
        """The package of that name, however it is spelled.

        Raises:
            UnknownPackageError: there is none.
        """
        canonical = canonicalize_name(name)
        if canonical not in self.packages:
            raise UnknownPackageError(name, get_close_matches(canonical, self.packages, NEAR, 0.5))
        return self.packages[canonical]

    def search(self, query: str) -> list[Package]:
        """The packages in which every word of the query occurs, the best first; all of them, by name, without a word.

        A word counts most where it is the name, less where it begins it, less again inside of it, and least in the
        summary. Of two alike, the one that more others require goes first.
        """
        words = query.lower().split()
        if not words:
            return list(self.packages.values())
        scored = ((_score(package, words), package) for package in self.packages.values())
        found = [(score, package) for score, package in scored if score > 0]
        found.sort(key=lambda each: (-each[0], -len(each[1].required_by), each[1].canonical))
        return [package for _, package in found]

    def most_required(self, count: int) -> list[Package]:
        """The packages that most others require."""
        ranked = sorted(self.packages.values(), key=lambda each: (-len(each.required_by), each.canonical))
        return [package for package in ranked[:count] if package.required_by]

    def _link(self) -> None:
        """Fill in who is required by whom."""
        required_by: dict[str, set[str]] = defaultdict(set)
        optional_for: dict[str, set[str]] = defaultdict(set)
        for package in self.packages.values():
            package.requires = [
                msgspec.structs.replace(each, installed=each.canonical in self) for each in package.requires
            ]
            for each in package.requires:
                if each.applies and each.canonical != package.canonical:
                    (optional_for if each.extra else required_by)[each.canonical].add(package.canonical)
        for name, package in self.packages.items():
            package.required_by = sorted(required_by[name])
            package.optional_for = sorted(optional_for[name] - required_by[name])
            package.needs = sorted(self._needs(name))

    def _needs(self, name: str) -> set[str]:
        """What the package requires, what those require, and so on, with the extras that are asked for on the way."""
        seen = {(name, "")}
        ahead = [(name, "")]
        while ahead:
            current, extra = ahead.pop()
            for each in self.packages[current].requires:
                if each.applies and each.installed and each.extra == extra:
                    new = {(each.canonical, ""), *((each.canonical, wanted) for wanted in each.extras)} - seen
                    seen |= new
                    ahead += new
        return {found for found, _ in seen} - {name}


def _score(package: Package, words: list[str]) -> int:
    """How well the words fit; 0 when one of them does not occur."""
    total = 0
    for word in words:
        name = canonicalize_name(word)
        parts = package.canonical.split("-")
        if name == package.canonical:
            total += 100
        elif package.canonical.startswith(name):
            total += 50
        elif any(part.startswith(name) for part in parts):
            total += 30
        elif name in package.canonical:
            total += 20
        elif word in (keyword.lower() for keyword in package.keywords):
            total += 10
        elif word in re.findall(r"\w+", package.summary.lower()):
            total += 5
        elif word in package.summary.lower():
            total += 2
        else:
            return 0
    return total


# Reading


def read(path: list[str] | None = None) -> Catalogue:
    """Read the metadata of everything that is installed. It reads hundreds of files: not for the event loop.

    Args:
        path: where to look; by default, where Python imports from.
    """
    packages: dict[str, Package] = {}
    descriptions = {}
    unreadable = []
    for distribution in distributions() if path is None else distributions(path=path):
        where = str(getattr(distribution, "_path", distribution))
        try:
            package = _package(distribution)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            unreadable.append(f"{where}: {error}")
            continue
        # What comes first is what Python imports; later ones of the same name are hidden by it.
        if package.canonical not in packages:
            packages[package.canonical] = package
            descriptions[package.canonical] = _description(distribution)
    return Catalogue(packages.values(), descriptions, unreadable)


def _package(distribution: Distribution) -> Package:
    # An `email.message.Message`, of which the interface that importlib.metadata declares shows a part.
    metadata: Any = distribution.metadata
    name = metadata.get("Name")
    if not name:
        raise ValueError("its metadata has no name")
    return Package(
        name=name,
        canonical=canonicalize_name(name),
        version=metadata.get("Version", ""),
        summary=" ".join(metadata.get("Summary", "").split()),
        license=_license(metadata),
        authors=_authors(metadata),
        requires_python=metadata.get("Requires-Python", ""),
        keywords=[word for word in re.split(r"[,\s]+", metadata.get("Keywords") or "") if word],
        links=dict(_links(metadata)),
        commands=sorted({entry.name for entry in distribution.entry_points if entry.group == "console_scripts"}),
        requires=[
            requirement
            for line in metadata.get_all("Requires-Dist", [])
            for requirement in _requirements(line, metadata.get_all("Provides-Extra", []))
        ],
    )


def _requirements(line: str, extras: list[str]) -> Iterator[Requirement]:
    """The requirement of a line, once for each extra that it belongs to."""
    try:
        parsed = ParsedRequirement(line)
    except InvalidRequirement:
        # Old distributions have lines that no rule covers today: shown as they are.
        yield Requirement(line, canonicalize_name(line), applies=False)
        return
    requirement = Requirement(
        name=parsed.name,
        canonical=canonicalize_name(parsed.name),
        version=",".join(sorted(map(str, parsed.specifier), reverse=True))
        or (f"from {parsed.url}" if parsed.url else ""),
        extras=sorted(parsed.extras),
        marker=str(parsed.marker or ""),
    )
    if parsed.marker is None or parsed.marker.evaluate({"extra": ""}):
        yield requirement
        return
    belongs = [extra for extra in extras if parsed.marker.evaluate({"extra": extra})]
    for extra in belongs:
        yield msgspec.structs.replace(requirement, extra=extra)
    if not belongs:
        yield msgspec.structs.replace(requirement, applies=False)


def _license(metadata: Any) -> str:
    expression: str = metadata.get("License-Expression") or ""
    if expression:
        return expression
    # Many have the whole text of their license in this field.
    text: str = metadata.get("License") or ""
    if text and "\n" not in text and len(text) <= LONGEST_LICENSE and text != "UNKNOWN":
        return text
    for classifier in metadata.get_all("Classifier", []):
        if classifier.startswith("License ::"):
            return str(classifier.rpartition(" :: ")[2])
    return ""


def _authors(metadata: Any) -> list[str]:
    # The first field is free text, the second a list of addresses.
    found = [(metadata.get("Author") or "").strip()]
    found += [name or address for name, address in getaddresses([metadata.get("Author-email") or ""])]
    return list(dict.fromkeys(each for each in found if each and each != "UNKNOWN"))


def _links(metadata: Any) -> Iterator[tuple[str, str]]:
    labelled = [("Home page", metadata.get("Home-page") or "")]
    labelled += [tuple(line.split(", ", 1)) for line in metadata.get_all("Project-URL", []) if ", " in line]
    for label, url in labelled:
        # It becomes a link in a page, and anybody may have written it: nothing that a browser would run.
        if re.match(r"https?://", url.strip(), re.IGNORECASE):
            yield label.strip(), url.strip()


def _description(distribution: Distribution) -> str:
    metadata: Any = distribution.metadata
    text = metadata.get_payload() or metadata.get("Description") or ""
    return str(text).strip()
