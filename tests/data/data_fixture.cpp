// SPDX-License-Identifier: Apache-2.0
#include "data_fixture.hpp"

#include <zip.h>
#include <zlib.h>

#include "fsllm/io/files.hpp"
#include "support.hpp"

namespace fsllm::test {

std::string gzip(std::string const& text) {
  TempDir folder;
  auto const path = (folder / "x.gz").string();
  auto* const file = gzopen(path.c_str(), "wb");
  if (!text.empty()) gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  return read_file(path);
}

std::string zip(std::vector<std::pair<std::string, std::string>> const& files) {
  TempDir folder;
  auto const path = (folder / "x.zip").string();
  int code = 0;
  auto* const archive = zip_open(path.c_str(), ZIP_CREATE, &code);
  for (auto const& [name, content] : files) {
    auto* const source = zip_source_buffer(archive, content.data(), content.size(), 0);
    zip_file_add(archive, name.c_str(), source, ZIP_FL_ENC_UTF_8);
  }
  EXPECT_EQ(zip_close(archive), 0);
  return read_file(path);
}

}  // namespace fsllm::test
