// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/data/data_config.hpp"
#include "fsllm/eval/exact_match.hpp"
#include "fsllm/eval/model_session.hpp"
#include "fsllm/io/output_folder.hpp"

namespace fsllm {

/// The model with one adapter, under the name that stands in tables.
struct Candidate {
  std::string name;
  std::filesystem::path adapter;  ///< PEFT folder; empty: the model alone
  TemplateConfig prompt = {};     ///< that its questions are made with
};

struct EvaluateJob {
  std::filesystem::path model_dir;
  std::vector<Candidate> candidates;
  std::vector<Sample> rows;
  LoadOptions load;
  int64_t batch_tokens = 2048;
};

struct Evaluation {
  std::vector<Candidate> candidates;
  std::vector<Sample> rows;
  std::vector<std::vector<RowAnswer>> answers;  ///< [candidate][row]
};

/// What a run directory says of its evaluation.
struct EvaluatedRun {
  std::filesystem::path model_dir;  ///< the base model; of a run without adapter the model that it wrote
  std::filesystem::path adapter;    ///< empty without
  std::string storage_dtype = "auto", compute_dtype;
  DataConfig data;
  int64_t client_num = 0;
  uint64_t seed = 0;
};
/// A run without a result is an Error that says why there is none.
EvaluatedRun read_run(std::filesystem::path const& dir);
/// The rows that the run kept for its test, of all clients. Runs on ready shards, and those that kept none,
/// are Errors.
std::vector<Sample> test_rows(EvaluatedRun const& run, std::filesystem::path const& dir);

/// Gives every candidate its prompt template: `chosen`, or the one that its fsllm.json says, a model alone
/// that of the first adapter, else alpaca. The log says which, and warns where it, or the type of the
/// weights, is another than the adapter was trained with.
void choose_templates(EvaluateJob& job, std::string const& chosen);

/// Loads a candidate's adapter into the model, or takes all out where it has none; says where the adapter is
/// not all that was trained.
void use_adapter(ModelSession& session, std::filesystem::path const& adapter);

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
