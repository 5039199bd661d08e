// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/data/data_config.hpp"
#include "fsllm/eval/exact_match.hpp"
#include "fsllm/io/output_folder.hpp"

namespace fsllm {

/// The model with one adapter, under the name that stands in tables.
struct Candidate {
  std::string name;
  std::filesystem::path adapter;  ///< PEFT folder; empty: the model alone
};

struct EvaluateJob {
  std::filesystem::path model_dir;
  std::vector<Candidate> candidates;
  DataConfig data;    ///< root, type and prompt template of the rows
  int64_t limit = 0;  ///< the first rows only; 0: all
  LoadOptions load;
  int64_t batch_tokens = 2048;
};

struct Evaluation {
  std::vector<Candidate> candidates;
  std::vector<Sample> rows;
  std::vector<std::vector<RowAnswer>> answers;  ///< [candidate][row]
};

/// Collective: every candidate answers the rows, with the same bits for any number of ranks, which share the
/// batches. The model is loaded once.
Evaluation evaluate(EvaluateJob const& job, Communicator const& comm);

/// Writes predictions.jsonl (a row a line) and then results.json (sums of each candidate, over all rows and
/// by category).
void write_evaluation(Evaluation const& evaluation, OutputFolder& out);
/// Share of exact answers and loss a token: a line a category, a column a candidate; two tables where one is
/// wide.
std::string evaluation_table(Evaluation const& evaluation);
/// `count` rows with the answers of all candidates; first those that only the last one knows.
std::string evaluation_examples(Evaluation const& evaluation, int64_t count);

}  // namespace fsllm
