// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fsllm/io/jsonl.hpp"
#include "support.hpp"

namespace fsllm::test {

/// Every text of GSM8K and Dolly in the test data, in the order of make_tokenizer_hashes.py.
inline void for_each_real_text(std::function<void(std::string const&)> const& use) {
  namespace fs = std::filesystem;
  auto const fields_of = [&](fs::path const& file, std::vector<std::string> const& fields) {
    for_each_json_record(file, [&](nlohmann::json const& row, RecordPlace const&) {
      for (auto const& field : fields) use(row.at(field).get<std::string>());
    });
  };
  fields_of(test_data("datasets/gsm8k/train.jsonl"), {"question", "answer"});
  std::vector<fs::path> dolly(fs::directory_iterator(test_data("datasets/dolly15k-fed10")), {});
  std::sort(dolly.begin(), dolly.end());
  for (auto const& file : dolly) fields_of(file, {"instruction", "context", "response"});
}

}  // namespace fsllm::test
