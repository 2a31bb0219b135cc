"""Settings: where they come from, what goes before what, and what is told when they are wrong."""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet import ConfigurationError, Secret, Settings, SettingsError
from covet.settings_schema import EnvironmentText, build, describe, nearest, without_password
from covet.settings_sections import SECTIONS, PluginsSettings


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in a directory of its own, without settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("COVET_")]:
        monkeypatch.delenv(name)
    return tmp_path


def write(text: str | bytes, name: str = "covet.toml") -> Path:
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def told(text: str | bytes = "", **environ: str) -> str:
    write(text)
    with pytest.raises(SettingsError) as raised:
        Settings.load(environ=environ)
    return str(raised.value)


# Where they come from


def test_without_any_everything_has_a_default() -> None:
    settings = Settings.load(environ={})
    assert (settings.app.target, settings.server.port, settings.plugins.enable) == ("app:app", 8000, None)
    assert (settings.source, settings.origin("server.port")) == (None, "default")


def test_file_then_environment_then_arguments() -> None:
    write("[server]\nport = 1\nworkers = 2\nhost = 'file'\n[limits]\nmax_files = 3\n")
    environ = {"COVET_SERVER__PORT": "10", "COVET_SERVER__WORKERS": "20", "HOME": "/", "COVET_SECRET_KEY": "x"}
    settings = Settings.load(environ=environ, overrides={"server": {"port": 100}, "limits.max_headers": 7})
    assert (settings.server.port, settings.server.workers, settings.server.host) == (100, 20, "file")
    assert (settings.limits.max_files, settings.limits.max_headers) == (3, 7)
    assert settings.source == "covet.toml"
    rows = {row.key: (row.value, row.origin) for row in settings.rows()}
    assert rows["server.port"] == ("100", "argument")
    assert rows["server.workers"] == ("20", "environment COVET_SERVER__WORKERS")
    assert rows["server.host"] == ("file", "covet.toml")
    assert rows["limits.max_headers"] == ("7", "argument")
    assert rows["server.reload"] == ("false", "default")
    assert rows["plugins.enable"] == ("-", "default")
    assert rows["plugins.disable"] == ("[]", "default")


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVET_APP__NAME", "shop")
    assert Settings.load().app.name == "shop"


def test_pyproject() -> None:
    write("[project]\nname = 'x'\n[tool.covet.server]\nport = 5\n[tool.other]\na = 1\n", "pyproject.toml")
    settings = Settings.load(environ={})
    assert (settings.server.port, settings.source) == (5, "pyproject.toml [tool.covet]")
    assert settings.origin("server.port") == "pyproject.toml [tool.covet]"
    assert Settings.load("pyproject.toml", environ={}).server.port == 5
    assert Settings.load(environ={"COVET_SETTINGS": "pyproject.toml"}).server.port == 5
    write("[server]\nport = 6\n")
    assert Settings.load(environ={}).server.port == 6, "covet.toml goes before it"


@pytest.mark.parametrize("text", ["", "tool = 3", "[tool]\nx = 1", "[tool.black]\nline = 1"])
def test_pyproject_without_settings(text: str) -> None:
    write(text, "pyproject.toml")
    settings = Settings.load(environ={})
    assert (settings.server.port, settings.source) == (8000, None)


def test_pyproject_with_something_else_there() -> None:
    write("[tool]\ncovet = 3", "pyproject.toml")
    with pytest.raises(SettingsError, match=r"pyproject\.toml: tool\.covet is a value, and a table"):
        Settings.load(environ={})


def test_another_file() -> None:
    write("[server]\nport = 1\n")
    write("[server]\nport = 2\n", "other.toml")
    write("[server]\nport = 3\n", "third.toml")
    assert Settings.load(environ={"COVET_SETTINGS": "other.toml"}).server.port == 2
    assert Settings.load("third.toml", environ={"COVET_SETTINGS": "other.toml"}).server.port == 3
    assert Settings.load(environ={"COVET_SETTINGS": ""}).server.port == 1


def test_covet_plugins_is_the_allow_list() -> None:
    write("[plugins]\nenable = ['file']\n")
    settings = Settings.load(environ={"COVET_PLUGINS": " a, b ,,"})
    assert settings.plugins.enable == ["a", "b"]
    assert settings.origin("plugins.enable") == "environment COVET_PLUGINS"
    assert Settings.load(environ={"COVET_PLUGINS": ""}).plugins.enable == []


# Unreadable


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.mkdir(), "the settings file covet.toml cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"[app]\n# \xff\n"), "covet.toml is not UTF-8: byte 8, on line 2"),
        (lambda path: path.write_text("[app]\nname = \n"), "is not TOML: Invalid value (at line 2, "),
        (lambda path: path.write_text("[app\n"), "the settings file covet.toml is not TOML: "),
        (lambda path: path.write_text("[app]\nname=1\nname=2\n"), "is not TOML: Cannot overwrite a value (at line 3"),
        (lambda path: path.write_text("[app]\n[app]\n"), "is not TOML: Cannot declare ('app',) twice (at line 2, "),
        (lambda path: path.write_text("x = " + "9" * 5000), "is not TOML: Exceeds the limit"),
        (lambda path: path.write_text("x = " + "[" * 90_000), "it is nested too deeply"),
        (lambda path: path.write_text("#" * 1_000_001), "is larger than 1000000 bytes; is it the right one?"),
        (lambda path: path.symlink_to("/dev/zero"), "is larger than 1000000 bytes; is it the right one?"),
        (lambda path: path.write_text("a\0b = 1"), "is not TOML: "),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read(make: Any, expected: str) -> None:
    make(Path("covet.toml"))
    with pytest.raises(SettingsError) as raised:
        Settings.load(environ={})
    message = str(raised.value)
    assert message.startswith("the settings file covet.toml ")
    assert expected in message


@pytest.mark.parametrize("path", ["nowhere.toml", "a\0b.toml"])
def test_a_file_that_is_named_and_not_there(path: str) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        Settings.load(path, environ={})


# Wrong


def test_all_faults_at_once_with_file_key_expectation_and_nearest() -> None:
    message = told(
        "[app]\nnmae = 'x'\ndebug = 'yes'\n[sever]\nport = 1\n"
        "[server]\nport = 70000\nserver = 'gunicorn'\n[plugins]\ndisabled=[]\n",
        COVET_LIMITS__MAX_FILES="many",
        COVET_LIMITS__MAX_FILE="1",
    )
    assert message.splitlines() == [
        "8 settings are wrong:",
        "  covet.toml: sever: there is no section [sever]; did you mean 'server'?",
        "  covet.toml: app.nmae: there is no key 'nmae' in [app]; did you mean 'name'?",
        "  covet.toml: app.debug: expected `bool`, got `str` (it is 'yes')",
        "  covet.toml: server.port: expected `int` <= 65535 (it is 70000)",
        "  covet.toml: server.server: expected 'granian' or 'uvicorn' (it is 'gunicorn')",
        "  environment COVET_LIMITS__MAX_FILES: limits.max_files: expected `int`, got `str` (it is 'many')",
        "  environment COVET_LIMITS__MAX_FILE: limits.max_file: there is no key 'max_file' in [limits]; "
        "did you mean 'max_files'?",
        "  covet.toml: plugins.disabled: there is no key 'disabled' in [plugins]; did you mean 'disable'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app = 3", "app: a table was expected, not a value of type int"),
        ("app = []", "app: a table was expected, not a value of type list"),
        ("plugins = 'x'", "plugins: a table was expected, not a value of type str"),
        ("[[server]]", "server: a table was expected, not a value of type list"),
        ("storage = 3", "storage: each storage has a table of its own, such as [storage.default]"),
        ("[storage]\nurl = 'x'", "storage: each storage has a table of its own, such as [storage.default]"),
        ("[server]\nport = true", "server.port: expected `int`, got `bool` (it is True)"),
        ("[server]\nport = '80'", "server.port: expected `int`, got `str` (it is '80')"),
        ("[server]\nport = 80.5", "server.port: expected `int`, got `float` (it is 80.5)"),
        ("[server]\nshutdown_timeout = 0", "server.shutdown_timeout: expected `float` > 0.0 (it is 0"),
        ("[server]\nshutdown_timeout = nan", "server.shutdown_timeout: "),
        ("[app]\ntarget = 'nothing'", "app.target: expected `str` matching regex"),
        ("[app]\nname = ''", "app.name: expected `str` of length >= 1 (it is '')"),
        ("[app]\nsecret_key = 5", "app.secret_key: expected a reference to a secret such as `env:NAME`, got `int`"),
        ("[plugins]\ndisable = 'timing'", "plugins.disable: expected `array`, got `str` (it is 'timing')"),
        ("[plugins]\ndisable = ['a', 3]", "plugins.disable[1]: expected `str`, got `int` (it is ['a', 3])"),
        ("[server]\nport = 0x" + "f" * 5000, "server.port: "),
        ("[server]\nport = '" + "x" * 5000 + "'", "x" * 99 + "...)"),
        ("[plugins]\ntiming = 3", "plugins.timing: there is no key 'timing' in [plugins]"),
    ],
)
def test_ill_typed(text: str, expected: str) -> None:
    message = told(text)
    assert message.startswith("a setting is wrong:\n  covet.toml: ")
    assert expected in message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("COVET_SERVER__PORT", "", "server.port: expected `int`, got `str` (it is '')"),
        ("COVET_SERVER__PORT", "9" * 5000, "server.port: "),
        ("COVET_APP__DEBUG", "perhaps", "app.debug: expected `bool`, got `str` (it is 'perhaps')"),
        ("COVET_APP__", "x", "app.: there is no key '' in [app]"),
        ("COVET_APP____NAME", "x", "app.: there is no key '' in [app]"),
        ("COVET___APP", "x", "there is no section []"),
        ("COVET_APP__NAME__FIRST", "x", "app.name: expected `str`, got `object`"),
        ("COVET_NOWHERE__X", "x", "nowhere: there is no section [nowhere]"),
        ("COVET_PLUGINS__DISABLE", "[1", "plugins.disable: it begins like JSON and is none"),
    ],
)
def test_wrong_in_the_environment(name: str, value: str, expected: str) -> None:
    message = told(**{name: value})
    assert message.startswith(f"a setting is wrong:\n  environment {name}: ")
    assert expected in message


def test_a_table_where_the_file_has_a_value_is_told_with_the_other_faults() -> None:
    message = told("[app]\nname = 'x'\n[server]\nport = 'x'\n", COVET_APP__NAME__FIRST="y")
    assert message.splitlines() == [
        "2 settings are wrong:",
        "  environment COVET_APP__NAME__FIRST: app.name.first: 'name' is a value, not a table",
        "  covet.toml: server.port: expected `int`, got `str` (it is 'x')",
    ]


def test_arguments_are_checked_as_well() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.load(environ={}, overrides={"server": {"port": "x"}, "limits.max_boddy": 1})
    assert str(raised.value).splitlines()[1:] == [
        "  argument: server.port: expected `int`, got `str` (it is 'x')",
        "  argument: limits.max_boddy: there is no key 'max_boddy' in [limits]; did you mean 'max_body'?",
    ]
    with pytest.raises(SettingsError, match="2 settings are wrong"):
        Settings.load_only({"a": 1, "b.c": 2})


def test_nearest() -> None:
    assert nearest("prot", ["port", "host"]) == "; did you mean 'port'?"
    assert nearest("xyz", ["port", "host"]) == "; there are host, port"
    assert nearest("xyz", []) == ""


# Typed from the environment


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(msgspec.Struct, frozen=True):
    depth: int = 0
    label: str = ""


class Typed(msgspec.Struct, frozen=True):
    whole: int = 0
    number: float = 0.0
    flag: bool = False
    text: str = ""
    maybe: int | None = None
    either: int | str = 0
    names: list[str] = []
    counts: list[int] = []
    pair: tuple[int, int] = (0, 0)
    unique: frozenset[int] = frozenset()
    colour: Colour = Colour.RED
    level: Literal[1, 2] = 1
    every: timedelta = timedelta()
    inner: Inner = Inner()
    many: dict[str, Inner] = {}
    rows: list[Inner] = []
    secret: Secret | None = None
    keys: list[Secret] = []


def from_environment(**variables: str) -> Typed:
    environ = {f"COVET_PLUGINS__TYPED__{name.upper()}": value for name, value in variables.items()}
    return Settings.load(environ=environ).claim_plugin("typed", Typed, "typed")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("whole", "12", 12),
        ("whole", "-3", -3),
        ("number", "2", 2.0),
        ("number", "1e-3", 0.001),
        ("flag", "true", True),
        ("flag", "0", False),
        ("flag", "1", True),
        ("flag", "False", False),
        ("text", "12", "12"),
        ("text", "null", "null"),
        ("text", "[1]", "[1]"),
        ("text", "", ""),
        ("maybe", "5", 5),
        ("maybe", "null", None),
        ("names", "a, b,c", ["a", "b", "c"]),
        ("names", "", []),
        ("names", '["a, b", "c"]', ["a, b", "c"]),
        ("names", "1,true", ["1", "true"]),
        ("counts", "1,2", [1, 2]),
        ("counts", "[1, 2]", [1, 2]),
        ("pair", "3,4", (3, 4)),
        ("unique", "3,4,3", frozenset({3, 4})),
        ("colour", "blue", Colour.BLUE),
        ("level", "2", 2),
        ("every", "PT5S", timedelta(seconds=5)),
        ("inner__depth", "4", Inner(4)),
        ("inner", '{"depth": 4, "label": "x"}', Inner(4, "x")),
        ("many__first__depth", "4", {"first": Inner(4)}),
        ("rows", '[{"depth": 4}]', [Inner(4)]),
        ("secret", "null", Secret("null")),
        ("secret", "12", Secret("12")),
        ("keys", "a,12", [Secret("a"), Secret("12")]),
    ],
)
def test_the_environment_is_read_as_the_type_says(key: str, value: str, expected: Any) -> None:
    found = getattr(from_environment(**{key: value}), key.partition("__")[0])
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("whole", "1.5", "plugins.typed.whole: expected `int`, got `str` (it is '1.5')"),
        ("counts", "1,x", "plugins.typed.counts[1]: expected `int`, got `str` (it is '1,x')"),
        ("colour", "green", "plugins.typed.colour: expected 'red' or 'blue' (it is 'green')"),
        ("level", "3", "plugins.typed.level: expected 1 or 2 (it is '3')"),
        ("inner", "4", "plugins.typed.inner: expected `object`, got `str` (it is '4')"),
        (
            "inner__depht",
            "4",
            "plugins.typed.inner.depht: there is no key 'depht' in [plugins.typed.inner]; did you mean",
        ),
        ("inner__depth", "x", "plugins.typed.inner.depth: expected `int`, got `str`"),
        ("rows", '[{"depht": 4}]', "plugins.typed.rows[0].depht: there is no key 'depht'"),
        ("pair", "1", "plugins.typed.pair: expected `array` of length 2"),
    ],
)
def test_what_does_not_fit_says_where(key: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as raised:
        from_environment(**{key: value})
    assert expected in str(raised.value)
    assert f"environment COVET_PLUGINS__TYPED__{key.upper()}" in str(raised.value)


def test_nested_tables_are_checked_key_by_key() -> None:
    write("[plugins.typed.inner]\ndpeth = 1\n[plugins.typed.many.a]\nlable = 'x'\n[[plugins.typed.rows]]\nx = 1\n")
    with pytest.raises(SettingsError) as raised:
        Settings.load(environ={}).claim_plugin("typed", Typed, "typed")
    assert str(raised.value).splitlines()[1:] == [
        "  covet.toml: plugins.typed.inner.dpeth: there is no key 'dpeth' in [plugins.typed.inner]; "
        "did you mean 'depth'?",
        "  covet.toml: plugins.typed.many.a.lable: there is no key 'lable' in [plugins.typed.many.a]; "
        "did you mean 'label'?",
        "  covet.toml: plugins.typed.rows[0].x: there is no key 'x' in [plugins.typed.rows[0]]; there are depth, label",
    ]


def refusal(make: Callable[[], object]) -> str | None:
    """What a SettingsError says, or None without one. Any other error fails the test."""
    try:
        make()
    except SettingsError as error:
        return str(error)
    return None


printable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_integer(value: int) -> None:
    assert from_environment(whole=str(value)).whole == value


@given(st.floats(allow_nan=False))
def test_any_number(value: float) -> None:
    found = from_environment(number=repr(value)).number
    assert found == value or (math.isinf(value) and math.isinf(found))


@given(printable)
def test_any_text(value: str) -> None:
    assert from_environment(text=value).text == value
    made = from_environment(secret=value).secret
    assert made is not None
    assert made.reveal() == value


@given(st.lists(printable))
def test_any_list_as_json(value: list[str]) -> None:
    assert from_environment(names=msgspec.json.encode(value).decode()).names == value


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1)))
def test_any_list_with_commas(value: list[str]) -> None:
    assert from_environment(names=" , ".join(value)).names == value


@given(st.sampled_from([field.name for field in describe(Typed)]), printable)
def test_whatever_stands_there_is_read_or_refused_in_words(key: str, value: str) -> None:
    told = refusal(lambda: from_environment(**{key: value}))
    assert told is None or told.startswith(f"a setting is wrong:\n  environment COVET_PLUGINS__TYPED__{key.upper()}: ")


@given(st.binary(max_size=200))
def test_whatever_stands_in_a_file_is_read_or_refused_in_words(data: bytes) -> None:
    write(data)
    told = refusal(lambda: Settings.load(environ={}))
    assert told is None or "covet.toml" in told


toml_value: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | printable | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(printable, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SECTIONS, "plugins", "storage", "x"]), toml_value | st.dictionaries(
    st.sampled_from(["name", "port", "secret_key", "enable", "max_body", "level", "url"]), toml_value)))  # fmt: skip
def test_any_tables_are_read_or_refused_in_words(tables: dict[str, Any]) -> None:
    told = refusal(lambda: Settings.load_only(tables))
    assert told is None or "wrong:\n" in told


# Schemas


class Required(msgspec.Struct, rename="kebab"):
    base_url: str
    max_size: Annotated[int, msgspec.Meta(ge=1, description="How large.")] = 5

    def __post_init__(self) -> None:
        if self.max_size > len(self.base_url):
            raise ValueError("max-size is larger than the URL is long")


def test_required_keys_and_what_a_schema_itself_checks() -> None:
    def faults(table: Any) -> list[str]:
        made, found = build(Required, table, "plugins.x", Secret)
        assert (made is None) == bool(found)
        return [f"{fault.key}: {fault.message}" for fault in found]

    assert faults({}) == ["plugins.x.base-url: is required: text"]
    assert faults({"base-url": "https://x"}) == []
    assert faults({"base_url": "https://x"}) == [
        "plugins.x.base_url: there is no key 'base_url' in [plugins.x]; did you mean 'base-url'?",
        "plugins.x.base-url: is required: text",
    ]
    assert faults({"base-url": "x"}) == ["plugins.x: max-size is larger than the URL is long"]
    assert faults({"base-url": "x", "max-size": 0}) == ["plugins.x.max-size: expected `int` >= 1 (it is 0)"]
    assert faults(5) == ["plugins.x: a table was expected, not a value of type int"]
    assert [(doc.name, doc.type, doc.default, doc.description) for doc in describe(Required)] == [
        ("base-url", "text", "required", ""),
        ("max-size", "integer", "5", "How large."),
    ]


class Node(msgspec.Struct):
    label: str
    children: list[Node] = []


def test_a_schema_that_holds_itself() -> None:
    table = {"label": "root", "children": [{"label": "leaf", "children": [{"labl": 1}]}]}
    _, (fault,) = build(Node, table, "plugins.node", Secret)
    assert fault.key == "plugins.node.children[0].children[0].labl"
    _, (fault,) = build(Node, {"label": "root", "children": [{"label": 5}]}, "plugins.node", Secret)
    assert (fault.key, fault.message) == (
        "plugins.node.children[0].label",
        "expected `str`, got `int` (it is [{'label': 5}])",
    )


def test_a_schema_whose_own_check_breaks() -> None:
    class Odd(msgspec.Struct):
        x: int = 0

        def __post_init__(self) -> None:
            raise KeyError("oops")

    made, (fault,) = build(Odd, {}, "plugins.odd", Secret)
    assert (made, fault.message) == (None, "KeyError: 'oops'")


def test_the_values_of_the_environment_are_plain_afterwards() -> None:
    assert type(from_environment(text="x").text) is str
    assert isinstance(EnvironmentText("x"), str)


def test_every_key_of_the_kernel_is_described() -> None:
    for schema in [*SECTIONS.values(), PluginsSettings]:
        for doc in describe(schema):
            assert doc.description.endswith("."), f"{schema.__name__}.{doc.name}"
            assert doc.type


# What may be shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:pw@h/db", "postgresql://u:********@h/db"),
        ("postgresql://u:p@ss/w:rd@h/db", "postgresql://u:********@h/db"),
        ("redis://:pw@h", "redis://:********@h"),
        ("https://h/?password=pw&x=1", "https://h/?password=********&x=1"),
        ("https://h/?a=1&sslpassword=pw", "https://h/?a=1&sslpassword=********"),
        ("https://h/?TOKEN=pw", "https://h/?TOKEN=********"),
        ("sqlite:///app.db", "sqlite:///app.db"),
        ("https://user@h/", "https://user@h/"),
        ("a:b", "a:b"),
    ],
)
def test_passwords_in_urls(text: str, shown: str) -> None:
    assert without_password(text) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=4))
def test_no_password_of_a_url_is_shown(password: str) -> None:
    shown = without_password(f"postgresql://somebody:~{password}~@host/db")
    assert shown == "postgresql://somebody:********@host/db"


def test_rows_hide_what_may_be_secret_in_unchecked_tables() -> None:
    write(
        "[storage.main]\nurl = 'x://u:pw@h'\npassword = 'open'\nother = 'env:NAME'\nsize = 5\nmore = {a = 'open'}\n"
        "[app]\nsecret_key = 'a literal secret of mine'\n"
    )
    rows = {row.key: row.value for row in Settings.load(environ={}).rows()}
    assert rows["storage.main.url"] == "x://u:********@h"
    assert rows["storage.main.password"] == "********"
    assert rows["storage.main.other"] == "env:NAME"
    assert (rows["storage.main.size"], rows["storage.main.more"]) == ("5", "********")
    assert rows["app.secret_key"] == "********"


def test_a_wrong_value_with_a_password_is_told_without_it() -> None:
    class Db(msgspec.Struct):
        url: Annotated[str, msgspec.Meta(pattern="^sqlite:")]
        keys: list[Secret] = []

    write("[plugins.db]\nurl = 'postgresql://u:pa55@h/db'\nkeys = ['s3cret', 5]\n")
    with pytest.raises(SettingsError) as raised:
        Settings.load(environ={}).claim_plugin("db", Db, "db")
    message = str(raised.value)
    assert "u:********@h" in message
    assert "plugins.db.keys[1]: expected a reference to a secret" in message
    assert "pa55" not in message
    assert "s3cret" not in message


def test_settings_errors_are_configuration_errors() -> None:
    assert issubclass(SettingsError, ConfigurationError)
