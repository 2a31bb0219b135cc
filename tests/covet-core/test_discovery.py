"""Finding plugins: entry points and metadata, nothing imported, one broken distribution hiding none."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import synthetic

from covet.discovery import accepts, applies, describe, discover_commands, find_entry_points, normalized, required_name
from covet.plugins import PluginManager
from covet.settings_sections import PluginsSettings

HELLO = """
    import covet

    @covet.hookimpl
    def covet_encoders():
        return {}
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[synthetic.Site]:
    site = synthetic.Site(tmp_path / "site")
    with synthetic.isolated_path(site):
        yield site


def manager(**settings: object) -> PluginManager:
    return PluginManager(PluginsSettings(**settings))  # type: ignore[arg-type]


def test_what_a_plugin_is_called_and_where_it_comes_from(site: synthetic.Site) -> None:
    site.add(
        "Acme.Hello",
        version="1.2.3",
        summary="Says hello: to everybody",
        plugins={"hello": "acme_hello.plugin:here"},
        requires=["anyio>=4", 'acme-extra; extra == "more"'],
    )
    found = manager()
    found.discover()
    (record,) = found.records.values()
    assert (record.name, record.distribution, record.version) == ("hello", "Acme.Hello", "1.2.3")
    assert (record.summary, record.entry_point) == ("Says hello: to everybody", "acme_hello.plugin:here")
    assert record.requires == ("anyio>=4", 'acme-extra; extra == "more"')
    assert (record.state, record.usable, record.error, record.import_seconds) == ("active", True, None, None)
    assert record.called == "'hello' (of Acme.Hello 1.2.3)"
    assert repr(record) == "<PluginRecord hello active>"


def test_discovery_imports_nothing(site: synthetic.Site) -> None:
    site.add("acme", plugins={"acme": "acme_plugin"}, modules={"acme_plugin": "raise SystemExit('imported')"})
    found = manager()
    found.discover()
    assert "acme" in found.records
    assert "acme_plugin" not in sys.modules


def test_the_metadata_of_a_distribution_is_read_once_and_of_others_never(
    site: synthetic.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("several", plugins={"one": "a", "two": "b", "three": "c"})
    site.add("single", plugins={"four": "d"})
    for number in range(20):
        site.add(f"library-{number}")
    read: list[str] = []
    original = importlib.metadata.PathDistribution.read_text

    def counted(self: importlib.metadata.PathDistribution, filename: str) -> str | None:
        if filename == "METADATA":
            read.append(str(self.locate_file("")))
        return original(self, filename)  # type: ignore[arg-type]

    monkeypatch.setattr(importlib.metadata.PathDistribution, "read_text", counted)
    found = manager()
    found.discover()
    assert set(found.records) == {"one", "two", "three", "four"}
    assert len(read) == 2


def test_a_disabled_plugin_never_enters_sys_modules(tmp_path: Path) -> None:
    site = synthetic.Site(tmp_path / "site")
    for name in ("wanted", "unwanted"):
        site.add(name, plugins={name: f"{name}_module.inner"}, modules={f"{name}_module.inner": HELLO})
    program = """
import json, sys
from covet import Covet
app = Covet({settings!r}, installed_plugins=["wanted", "unwanted"])
app.build()
print(json.dumps([name for name in sys.modules if "wanted" in name]))
print(json.dumps({{name: record.state for name, record in app.plugins.records.items()}}))
"""
    ways: list[tuple[dict[str, object], dict[str, str]]] = [
        ({"plugins": {"disable": ["unwanted"]}}, {}),
        ({"plugins": {"enable": ["wanted"]}}, {}),
        ({}, {"COVET_PLUGINS": "wanted"}),
        ({}, {"COVET_PLUGINS__DISABLE": "unwanted"}),
    ]
    for settings, environ in ways:
        ran = site.python("-c", program.format(settings=settings), environ=environ)
        assert ran.returncode == 0, ran.stderr
        modules, states = map(json.loads, ran.stdout.splitlines())
        assert modules == ["wanted_module", "wanted_module.inner"], (settings, environ)
        assert states == {"wanted": "active", "unwanted": "disabled"}


def test_order_has_nothing_to_do_with_the_order_of_installation(tmp_path: Path) -> None:
    """Random orders on `sys.path` and of writing give one order of plugins."""
    needs = {"delta": ["alpha"], "alpha": ["zeta"], "beta": [], "zeta": [], "gamma": ["beta", "delta"], "epsilon": []}
    chance = random.Random(7)
    for attempt in range(8):
        names = list(needs)
        chance.shuffle(names)
        sites = []
        for name in names:
            site = synthetic.Site(tmp_path / str(attempt) / name)
            module = f"order_{name}"
            site.add(f"acme_{name}", plugins={name: module}, requires=[f"Acme.{n}>=1" for n in needs[name]],
                     modules={module: HELLO})  # fmt: skip
            sites.append(site)
        chance.shuffle(sites)
        with synthetic.isolated_path(*sites):
            found = manager()
            found.load()
        assert list(found.records) == ["beta", "epsilon", "zeta", "alpha", "delta", "gamma"]
        assert found.implementers("covet_encoders") == list(found.records)


def test_extras_and_markers_do_not_order(site: synthetic.Site) -> None:
    """Two distributions may name each other in extras; that is no cycle."""
    site.add("one", plugins={"one": "p_one"}, requires=['two; extra == "two"'], modules={"p_one": HELLO})
    site.add("two", plugins={"two": "p_two"}, requires=["one"], modules={"p_two": HELLO})
    site.add("aaa", plugins={"aaa": "p_aaa"}, requires=['two; python_version < "3"'], modules={"p_aaa": HELLO})
    found = manager()
    found.load()
    assert list(found.records) == ["aaa", "one", "two"]


def test_a_cycle_is_an_error_that_shows_it(site: synthetic.Site) -> None:
    from covet import PluginError

    site.add("one", plugins={"one": "c_one"}, requires=["two"], modules={"c_one": HELLO})
    site.add("two", plugins={"two": "c_two"}, modules={"c_two": HELLO + "    covet_after = 'three'\n"})
    site.add("three", plugins={"three": "c_three"}, modules={"c_three": HELLO + "    covet_after = ['one']\n"})
    site.add("four", plugins={"four": "c_four"}, requires=["one"], modules={"c_four": HELLO})
    with pytest.raises(PluginError) as raised:
        manager().load()
    message = str(raised.value)
    assert "'one' comes after 'two' (one requires two)" in message
    assert "'two' comes after 'three' (covet_after of two)" in message
    assert "'three' comes after 'one' (covet_after of three)" in message
    assert "four" not in message
    manager(disable=["two"]).load()


def test_two_distributions_with_one_plugin_name(site: synthetic.Site) -> None:
    site.add("red", version="1.0", plugins={"hello": "red_module"}, modules={"red_module": HELLO})
    site.add("blue", version="2.0", plugins={"hello": "blue_module"}, modules={"blue_module": HELLO})
    found = manager()
    found.load()
    record = found.records["hello"]
    assert record.state == "failed"
    assert record.error == "two distributions bring a plugin of this name: blue 2.0 and red 1.0; uninstall one"
    assert not {"red_module", "blue_module"} & set(sys.modules)


def test_one_distribution_with_the_same_name_twice(site: synthetic.Site) -> None:
    site.add("red", entry_points="[covet.plugins]\nhello = a\nhello = b\n")
    found = manager()
    found.discover()
    assert found.records["hello"].error == "red 1.0 brings two plugins of this name"


def test_a_distribution_hides_a_later_one_of_its_name(tmp_path: Path) -> None:
    """As an editable installation does in front of an older one."""
    first, second = synthetic.Site(tmp_path / "first"), synthetic.Site(tmp_path / "second")
    first.add("acme", version="2.0", plugins={"acme": "acme_first"}, modules={"acme_first": HELLO})
    second.add("acme", version="1.0", plugins={"acme": "acme_second"}, modules={"acme_second": HELLO})
    with synthetic.isolated_path(first, second):
        found = manager()
        found.load()
        assert (found.records["acme"].state, found.records["acme"].version) == ("active", "2.0")


@pytest.mark.parametrize("broken", [b"[covet.plugins]\nno equals sign\n", b"[covet.plugins]\nx = \xff\xfe\n"])
def test_unreadable_entry_points_of_one_distribution_hide_no_other(
    site: synthetic.Site, broken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    site.add(
        "good", plugins={"good": "good_module"}, commands={"greet": "good_module:f"}, modules={"good_module": HELLO}
    )
    site.add("broken", entry_points=broken)
    with caplog.at_level(logging.WARNING, "covet.plugins"):
        found = manager()
        found.load()
        assert list(discover_commands()) == ["greet"]
    assert found.records["good"].state == "active"
    assert "the entry points of 'broken' cannot be read, it is left out" in caplog.text


@pytest.mark.parametrize("metadata", [b"Name: \xff\xfe\n", b""])
def test_unreadable_metadata_fails_that_plugin_alone(site: synthetic.Site, metadata: bytes) -> None:
    site.add("good", plugins={"good": "good_module"}, modules={"good_module": HELLO})
    site.add("bad", plugins={"bad": "bad_module"}, modules={"bad_module": HELLO}, metadata=metadata)
    found = manager()
    found.load()
    assert found.records["good"].state == "active"
    assert found.records["bad"].state == "failed"
    assert "metadata" in str(found.records["bad"].error)
    assert "bad_module" not in sys.modules


def test_a_name_that_is_a_key_of_the_settings_table(site: synthetic.Site) -> None:
    site.add("odd", plugins={"prefer": "odd_module"}, modules={"odd_module": HELLO})
    found = manager()
    found.load()
    assert found.records["prefer"].state == "failed"
    assert "cannot be called 'prefer'" in str(found.records["prefer"].error)


def test_commands_are_found_without_importing(site: synthetic.Site) -> None:
    site.add("one", commands={"greet": "m_one:greet", "leave": "m_one:leave"}, modules={"m_one": "raise SystemExit"})
    site.add("two", commands={"greet": "m_two:greet"}, modules={"m_two": "raise SystemExit"})
    found = discover_commands()
    assert {name: sorted(entry.value for entry in entries) for name, entries in found.items()} == {
        "greet": ["m_one:greet", "m_two:greet"],
        "leave": ["m_one:leave"],
    }
    assert not {"m_one", "m_two"} & set(sys.modules)
    assert find_entry_points("covet.nothing") == []


def test_requirements() -> None:
    assert normalized("Acme_Hello.World") == "acme-hello-world"
    for requirement in ("covet-core", "covet-core>=1", "covet-core[testing] (>=1)", "covet-core; x", "covet-core @ x"):
        assert required_name(requirement) == "covet-core"
    assert accepts("covet-core>=0.1,<2", "0.1.0")
    assert not accepts("covet-core>=9", "0.1.0")
    assert accepts("covet-core>=9; extra == 'later'", "0.1.0")
    assert accepts("covet-core>=0.1", "0.2.0a1")
    assert not accepts("covet-core >>> 3", "0.1.0")
    assert applies("x>=1")
    assert not applies("x; extra == 'y'")
    assert not applies("x; this is no marker")
    assert describe(None) == {}
