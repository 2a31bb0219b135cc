"""The conformance kit of secret providers.

class TestVault(SecretProviderConformance):
    @pytest.fixture
    def provider(self, vault):
        return VaultProvider(vault.url, vault.token)

    @pytest.fixture
    def store(self, vault):
        return lambda text: vault.write("kit/secret", text) or "kit/secret#value"

    @pytest.fixture
    def missing(self):
        return "kit/nothing#value"
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.annotations import is_coroutine
from covet.secrets import Provider, Secret, SecretError, SecretValue
from covet.testing.conformance.kits import EXAMPLES, ConformanceKit

__all__ = ["SecretProviderConformance"]

CANARY = "kit-canary-2b7e151628aed2a6"


class SecretProviderConformance(ConformanceKit):
    """The promises of a secret provider. A subclass overrides `provider`, `store` and `missing`.

    Attributes:
        alphabet: the characters that a value of the store may consist of.
        max_size: characters of the largest value.
    """

    alphabet = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    max_size = 20_000

    @pytest.fixture
    def provider(self) -> Provider:
        """The provider. Override it."""
        raise pytest.UsageError("override the fixture `provider` to give the secret provider that is tested")

    @pytest.fixture
    def store(self) -> Callable[[str], str]:
        """Stores a secret, in place of the one stored before, and gives what stands behind the colon for it."""
        raise pytest.UsageError("override the fixture `store` to give what stores a secret for the provider")

    @pytest.fixture
    def missing(self) -> str:
        """What stands behind the colon for a secret that is not there."""
        raise pytest.UsageError("override the fixture `missing` to name a secret that the provider does not have")

    def test_it_is_a_plain_function(self, provider: Provider) -> None:
        """Promise: it is no `async def`; it is called in a worker thread."""
        assert not is_coroutine(provider)

    def test_the_value_as_it_is(self, provider: Provider, store: Callable[[str], str]) -> None:
        """Promise: a value is given as it was stored: nothing stripped, decoded, expanded or cut off."""
        for text in ["secret", " spaces ", "line\nbreak", "caf\u00e9 \U0001f600", "$HOME %s {x} \\n", "env:HOME", "'\"",
                     "x" * self.max_size]:  # fmt: skip
            assert value_of(provider(store(text))) == text

    # Drawn inside of the test, since the alphabet is the subclass's. In a test that is a coroutine, that would end the
    # task in which all fixtures live.
    @EXAMPLES
    @given(data=st.data())
    def test_any_value(self, provider: Provider, store: Callable[[str], str], data: st.DataObject) -> None:
        """Promise: a value is any text."""
        text = data.draw(
            st.text(self.alphabet, min_size=1, max_size=200).filter(lambda text: text == text.rstrip("\r\n"))
        )
        assert value_of(provider(store(text))) == text

    def test_the_value_as_it_is_now(self, provider: Provider, store: Callable[[str], str]) -> None:
        """Promise: each call gives the value that is stored then, so that it can be renewed."""
        for text in ("first value", "second value", "third value"):
            assert value_of(provider(store(text))) == text

    def test_what_is_not_there(self, provider: Provider, store: Callable[[str], str], missing: str) -> None:
        """Promise: a secret that is not there is an error, never an empty value or the reference itself."""
        store(CANARY)
        for reference in (missing, ""):
            with pytest.raises(Exception) as raised:  # noqa: PT011 - any error will do
                provider(reference)
            assert not isinstance(raised.value, AssertionError)

    def test_an_error_quotes_no_secret(self, provider: Provider, store: Callable[[str], str], missing: str) -> None:
        """Promise: what is told of an error, by the provider itself or its log, holds no secret."""
        reference = store(CANARY)
        provider(reference)
        with pytest.raises(SecretError) as raised:
            Secret(f"kit:{missing}").resolve({"kit": provider})
        assert CANARY not in "".join(traceback.format_exception(raised.value))

    def test_nothing_is_logged(
        self, provider: Provider, store: Callable[[str], str], missing: str, caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        """Promise: no value is logged or printed, at any level."""
        reference = store(CANARY)
        with caplog.at_level(logging.DEBUG):
            provider(reference)
            with pytest.raises(Exception):  # noqa: B017, PT011 - any error will do
                provider(missing)
        printed = capfd.readouterr()
        assert CANARY not in caplog.text + printed.out + printed.err
        assert CANARY not in repr(provider)

    def test_threads_may_ask_at_once(self, provider: Provider, store: Callable[[str], str]) -> None:
        """Promise: it may be called by several threads at once, also ones without an event loop."""
        reference = store("shared")
        begin = threading.Barrier(8, timeout=30)

        def call() -> str:
            begin.wait()
            return value_of(provider(reference))

        with ThreadPoolExecutor(8) as threads:
            assert {found.result() for found in [threads.submit(call) for _ in range(8)]} == {"shared"}

    def test_how_long_it_is_valid(self, provider: Provider, store: Callable[[str], str]) -> None:
        """Promise: it gives a text, or a `SecretValue` that says when to ask again."""
        value = provider(store("lease"))
        assert type(value) in (str, SecretValue)
        if isinstance(value, SecretValue) and value.renew_in is not None and value.expires_in is not None:
            assert value.renew_in < value.expires_in, "it would be renewed when it has expired"


def value_of(value: str | SecretValue) -> str:
    """The text of what a provider gave."""
    text = value.text if isinstance(value, SecretValue) else value
    assert isinstance(text, str)
    return text
