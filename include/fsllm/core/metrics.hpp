// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdio>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace fsllm {

/// A weighted mean that can be added up: value() = sum / weight.
struct Mean {
  double sum = 0;
  double weight = 0;
  double value() const { return weight > 0 ? sum / weight : 0; }
};

using Metrics = std::map<std::string, Mean>;

/// a += b, name by name.
void add(Metrics& a, Metrics const& b);

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
