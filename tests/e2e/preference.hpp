// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "federation.hpp"

namespace fsllm::test {

/// `more` on the token pairs of tests/reference/preference.
inline std::vector<std::string> on_pairs(std::vector<std::string> more = {}) {
  more.insert(more.end(), {"data.root", reference_dir("preference").string(), "data.type", "pairs.jsonl"});
  return more;
}

/// fsllm_hpc on `small` in `dir`.
inline Outcome train_in(std::filesystem::path const& dir, SmallRun const& small,
                        std::vector<std::string> const& more, int np = 0) {
  std::vector<std::string> words{"fsllm_hpc", "--cfg", write_config(dir, small.yaml(dir)).string()};
  words.insert(words.end(), more.begin(), more.end());
  return run(dir, np, words);
}

inline nlohmann::json event_of(std::filesystem::path const& run, size_t number) {
  return read_events(run / "metrics.jsonl").at(number);
}

}  // namespace fsllm::test
