"""The short form of the proof `compression`: real servers, and decoders that are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.proofs import compression
from tests.services.programs import require


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_what_curl_gets_is_decoded_by_other_programs(server: str, tmp_path: Path) -> None:
    for command in ("curl", "gzip", "zstd"):
        require(command)
    rows = compression.prove(server, tmp_path)
    assert {row[1] for row in rows} == {case.title for case in compression.CASES} | {"request body"}
    assert {row[3] for row in rows} == {"gzip", "zstd", "none"}
    assert {row[-1] for row in rows} == {"yes"}
