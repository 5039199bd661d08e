// SPDX-License-Identifier: Apache-2.0
// In place of parquet.cpp where CMake found no Apache Arrow.
#include "fsllm/core/error.hpp"
#include "fsllm/io/parquet.hpp"

namespace fsllm {

bool reads_parquet() {
  return false;
}

void need_parquet(std::string const& what) {
  fail(what +
       " (this program was built without Apache Arrow, which reads Parquet). Run tools/bootstrap.sh "
       "--with-parquet and build again; or convert the file once, for example: python3 -c \"import pandas; "
       "pandas.read_parquet('x.parquet').to_json('x.jsonl', orient='records', lines=True)\", and name the "
       ".jsonl file.");
}

int64_t for_each_parquet_row(std::filesystem::path const& path, std::vector<std::string> const&,
                             ParquetRows const&) {
  need_parquet(path.string());
  return 0;
}

}  // namespace fsllm
