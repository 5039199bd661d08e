// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace fsllm {

/// Appends one JSON object a line to a file, flushed line by line so that a killed run keeps them.
class JsonlWriter {
 public:
  explicit JsonlWriter(std::string const& path);
  ~JsonlWriter();
  JsonlWriter(JsonlWriter const&) = delete;
  JsonlWriter& operator=(JsonlWriter const&) = delete;
  void write(nlohmann::ordered_json const& event);

 private:
  std::string path_;
  std::FILE* file_;
};

}  // namespace fsllm
