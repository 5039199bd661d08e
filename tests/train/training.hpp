// SPDX-License-Identifier: Apache-2.0
// What tests of training have in common.
#pragma once
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/train/trainer.hpp"

namespace fsllm {

/// Rows of so many tokens, of which all but the first two are scored.
inline TokenSplit rows_of_lengths(std::vector<int> const& lengths) {
  TokenSplit split;
  for (size_t row = 0; row < lengths.size(); ++row) {
    std::vector<int32_t> ids;
    std::vector<uint8_t> target;
    for (int i = 0; i < lengths[row]; ++i) {
      ids.push_back(3 + static_cast<int32_t>((17 * row + 5 * i + i * i) % 90));
      target.push_back(i >= 2);
    }
    split.append(ids, target, -1);
  }
  return split;
}

inline TrainConfig config_of(std::string const& yaml) {
  auto config = Config::parse(yaml, "test.yaml");
  auto const loaded = load_train_config(config);
  config.finish();
  return loaded;
}

}  // namespace fsllm
