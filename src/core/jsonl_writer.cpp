// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/jsonl_writer.hpp"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"

namespace fsllm {

JsonlWriter::JsonlWriter(std::string const& path) : path_(path), file_(std::fopen(path.c_str(), "a")) {
  FSLLM_CHECK(file_ != nullptr, "{} cannot be written ({}). Choose another outdir.", path,
              std::strerror(errno));
}

JsonlWriter::~JsonlWriter() {
  std::fclose(file_);
}

void JsonlWriter::write(nlohmann::ordered_json const& event) {
  auto const line = event.dump() + "\n";
  bool const written =
      std::fwrite(line.data(), 1, line.size(), file_) == line.size() && std::fflush(file_) == 0;
  FSLLM_CHECK(written, "{} cannot be written ({}). Free some space, then continue with --resume.", path_,
              std::strerror(errno));
}

}  // namespace fsllm
