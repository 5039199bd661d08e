// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fsllm/core/utf8.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "support.hpp"

namespace fsllm::test {

using UseText = std::function<void(std::string const&)>;

/// 5,000 texts of up to 60 code points from everywhere in Unicode, the same as in make_tokenizer_hashes.py.
inline void for_each_random_text(UseText const& use) {
  uint64_t state = 1;
  auto const below = [&](uint64_t count) {  // splitmix64
    uint64_t z = state += 0x9E3779B97F4A7C15ULL;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ z >> 27) * 0x94D049BB133111EBULL;
    return (z ^ z >> 31) % count;
  };
  constexpr std::pair<uint64_t, uint64_t> kRanges[] = {
      {32, 127},  {32, 127},        {32, 127},          {9, 33},
      {0, 0x300}, {0x300, 0x10000}, {0x10000, 0x20000}, {0, 0x110000}};
  for (int i = 0; i < 5000; ++i) {
    std::string text;
    for (uint64_t left = 1 + below(60); left > 0; --left) {
      auto const [first, end] = kRanges[below(8)];
      auto const c = static_cast<char32_t>(first + below(end - first));
      append_utf8(text, c >= 0xD800 && c <= 0xDFFF ? 0xFFFD : c);
    }
    use(text);
  }
}

/// What lies between occurrences of `separator` in a file.
inline void for_each_part(std::filesystem::path const& file, std::string const& separator,
                          UseText const& use) {
  auto const content = read_file(file);
  for (size_t begin = 0; begin <= content.size();) {
    size_t const end = std::min(content.find(separator, begin), content.size());
    use(content.substr(begin, end - begin));
    begin = end + separator.size();
  }
}

/// Every text of GSM8K, Dolly, MMLU, HumanEval and tiny Shakespeare in the test data, and random ones, in the
/// order of make_tokenizer_hashes.py.
inline void for_each_real_text(UseText const& use) {
  namespace fs = std::filesystem;
  auto const data = [](std::string const& file) { return test_data("datasets/" + file); };
  auto const sorted = [](fs::path const& folder) {
    std::vector<fs::path> files(fs::directory_iterator(folder), {});
    std::sort(files.begin(), files.end());
    return files;
  };
  auto const fields_of = [&](fs::path const& file, std::vector<std::string> const& fields) {
    for_each_json_record(file, [&](nlohmann::json const& row, RecordPlace const&) {
      for (auto const& field : fields) use(row.at(field).get<std::string>());
    });
  };
  fields_of(data("gsm8k/train.jsonl"), {"question", "answer"});
  for (auto const& file : sorted(data("dolly15k-fed10")))
    fields_of(file, {"instruction", "context", "response"});
  for (auto const* part : {"mmlu/dev", "mmlu/test"})
    for (auto const& file : sorted(data(part))) for_each_part(file, "\n", use);
  fields_of(data("humaneval/HumanEval.jsonl.gz"), {"prompt", "canonical_solution", "test"});
  for_each_part(data("text/tiny_shakespeare.txt"), "\n\n", use);
  for_each_random_text(use);
}

}  // namespace fsllm::test
