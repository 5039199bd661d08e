#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the corpus of the Parquet fuzz target, tests/fuzz/corpus/parquet: small files of every type and form that
the reader knows. Needs pyarrow (26.0.1 was used): python3 -m venv V; V/bin/pip install pyarrow; V/bin/python THIS."""
import datetime
import decimal
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

OUT = pathlib.Path(__file__).resolve().parent.parent / "fuzz" / "corpus" / "parquet"


def write(name, columns, schema=True, **options):
    options = dict(compression="none", use_dictionary=False, write_statistics=False, store_schema=schema) | options
    pq.write_table(pa.table(columns), OUT / f"{name}.parquet", **options)


CHAT = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yés."}], None, []]
OUT.mkdir(parents=True, exist_ok=True)
write("texts", {"question": ["What is 1 + 1?", "b", None], "answer": ["#### 2", "", "c"]}, schema=False)
write("groups", {"text": [str(i) for i in range(8)]}, row_group_size=3, schema=False, write_page_checksum=True)
write("chat", {"messages": CHAT}, schema=False)
write("tokens", {"input_ids": [[1, 2], [3]], "labels": pa.array([[-100, 2], [3]], pa.large_list(pa.int8()))})
write("numbers", {"b": [True, None], "u": pa.array([1, 2**64 - 1], pa.uint64()), "i": [-1, 2],
                  "f": pa.array([0.5, float("nan")], pa.float32()), "d": [1.5, None]}, schema=False)
write("words", {"category": pa.array(["a", "b", "a"]).dictionary_encode()}, use_dictionary=True)
write("others", {"day": [datetime.date(2024, 1, 31)], "at": [datetime.datetime(2024, 1, 31, 12)],
                 "price": [decimal.Decimal("1.20")], "bytes": [b"\xff"], "none": pa.nulls(1)})
write("views", {"t": pa.array(["a text longer than twelve", "b"], pa.string_view()), "n": pa.array([[1], [2]], pa.list_(pa.int32(), 1))})
write("map", {"m": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}, schema=False)
write("encodings", {"t": ["aa", "ab", "ac"], "n": [1, 2, 4]}, schema=False,
      column_encoding={"t": "DELTA_BYTE_ARRAY", "n": "DELTA_BINARY_PACKED"}, data_page_version="2.0")
for codec in ("snappy", "gzip", "zstd", "lz4", "brotli"):
    write(codec, {"text": ["one", "two"]}, schema=False, compression=codec)
write("no_rows", {"text": pa.array([], pa.string())}, schema=False)
