// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"

namespace fsllm {

/// Keys `data.*`, `llm.tok_len`: where samples come from and how they are split.
struct DataConfig {
  std::string root, type, splitter, shards;
  double lda_alpha = 0.5;
  int64_t lda_min_size = 1;
  std::string natural_field;
  std::vector<double> splits{0.8, 0.1, 0.1};
  std::string on_bad_row, truncate;
  int64_t tok_len = 128;
  double subsample = 1.0;
};
DataConfig load_data_config(Config& config);

}  // namespace fsllm
