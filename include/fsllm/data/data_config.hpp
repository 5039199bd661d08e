// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/template.hpp"
#include "fsllm/text/token_additions.hpp"

namespace fsllm {

/// data.columns: what a row's field is called here, and in the user's files.
struct ColumnName {
  std::string field, column;
};

/// Keys `data.*`, `llm.tok_len`, `llm.added_tokens.*`, `compat.fsllm`, `train.loss`: where samples come from,
/// how they are split and tokenised.
struct DataConfig {
  std::string root, splitter, shards;
  std::vector<std::string> types;  ///< data.type: a known data set, or files of the user's
  std::string type() const;        ///< all of them, with commas between
  std::vector<ColumnName> columns;
  double alpha = 0.5;  ///< splitters lda and inner_dirichlet
  int64_t lda_min_size = 1;
  int64_t classes = 2;                     ///< splitter pathological
  std::string distribution = "lognormal";  ///< splitter quantity
  double spread = 1;
  std::string natural_field;
  std::vector<double> splits{0.8, 0.1, 0.1};
  std::string on_bad_row = "error", truncate = "prompt_left";
  TemplateConfig prompt;
  RecordLimits limits;
  int64_t tok_len = 128;
  double subsample = 1.0;
  bool pairs = false;  ///< rows are pairs of answers: train.loss is dpo or reward
  TokenAdditions added_tokens;
  bool compat = false;  ///< FS-LLM's "None" input, right truncation and fixed split
};
DataConfig load_data_config(Config& config);

}  // namespace fsllm
