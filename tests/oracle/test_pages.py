"""The headers of a Parquet column's pages, read before anything is unpacked."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targon.oracle.sources.blobs import LocalBlob
from targon.oracle.sources.pages import count_entries, largest_page
from targon.oracle.sources.skipped import Unreadable
from tests.oracle.bodies import texts


def chunks(path: Path) -> list[tuple[int, int, int]]:
    """Of each row group's only column: where it begins, its bytes, its values."""
    metadata = pq.ParquetFile(path).metadata
    columns = [metadata.row_group(group).column(0) for group in range(metadata.num_row_groups)]
    return [
        (
            column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset,
            column.total_compressed_size,
            column.num_values,
        )
        for column in columns
    ]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_the_largest_page_is_found_in_files_as_they_are_written(
    tmp_path: Path, version: str, compression: str, dictionary: bool
) -> None:
    path = tmp_path / "one.parquet"
    of = [*texts(500), "long " * 60_000]
    pq.write_table(
        pa.table({"text": of}),
        path,
        row_group_size=100,
        data_page_size=10_000,
        write_batch_size=5,
        data_page_version=version,
        compression=compression,
        use_dictionary=dictionary,
    )
    blob = LocalBlob(str(path), path.name, path.stat().st_size)
    sizes = [largest_page(blob, *chunk) for chunk in chunks(path)]
    whole = [sum(len(text.encode()) for text in of[start : start + 100]) for start in range(0, len(of), 100)]
    assert all(0 < size <= total + 5_000 for size, total in zip(sizes, whole, strict=True))
    assert sizes[-1] >= 300_000
    if not dictionary:
        assert max(sizes[:-1]) < 30_000


@given(st.binary(max_size=3_000), st.integers(0, 50))
def test_what_is_no_header_is_refused_and_never_runs_on(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, values: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(data)
    with contextlib.suppress(Unreadable):
        largest_page(LocalBlob(str(path), "noise", len(data)), 0, len(data), values)


@pytest.mark.parametrize("columns", [1, 7])
def test_entries_of_metadata_grow_with_columns_and_row_groups(tmp_path: Path, columns: int) -> None:
    table = pa.table({f"column {number}": texts(100) for number in range(columns)})
    counts = []
    for groups in (1, 10, 100):
        path = tmp_path / f"{groups}.parquet"
        pq.write_table(table, path, row_group_size=100 // groups)
        data = path.read_bytes()
        counts.append(count_entries(data[-8 - int.from_bytes(data[-8:-4], "little") : -8], 1_000_000))
    one, ten, hundred = counts
    each = (hundred - ten) / 90
    assert each == (ten - one) / 9, "each row group has as many"
    assert each >= 8 * (1 + columns), "a struct, and one for each column"
    with pytest.raises(Unreadable, match="more than 100 entries"):
        count_entries(data[-8 - int.from_bytes(data[-8:-4], "little") : -8], 100)


@given(st.binary(max_size=200))
def test_what_is_no_metadata_is_refused_by_name_or_counted(data: bytes) -> None:
    with contextlib.suppress(Unreadable):
        assert count_entries(data, 1_000) <= 1_000
