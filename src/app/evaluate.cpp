// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/evaluate.hpp"

#include <ATen/Parallel.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "fsllm/app/program.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/peft/peft.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

/// What one rank loads, once for all candidates.
struct Loaded {
  std::unique_ptr<CausalLM> model;
  TensorMap vocabulary;  ///< the model's own embeddings
  std::unique_ptr<Peft> peft;
  std::filesystem::path tokenizer_source;
  std::unique_ptr<Tokenizer> tokenizer;
};

Loaded load(EvaluateJob const& job) {
  Loaded loaded;
  LoadOptions options;
  options.storage_dtype = job.storage_dtype;
  options.compute_dtype = job.dtype;
  options.cache_dir = user_cache_dir();
  options.device = job.device;
  loaded.model = load_model(job.model_dir, options);
  loaded.vocabulary = loaded.model->vocabulary();
  FSLLM_CHECK(has_tokenizer(job.model_dir),
              "{} holds no tokenizer (exact match compares texts). Put tokenizer.json or tokenizer.model "
              "there.",
              job.model_dir.string());
  return loaded;
}

/// Puts the candidate's adapter, with the embeddings and the tokenizer it may have, in place of the one
/// before.
void change_adapter(Loaded& loaded, Candidate const& candidate, std::filesystem::path const& model_dir) {
  if (loaded.peft) loaded.peft->detach(*loaded.model);
  loaded.peft.reset();
  loaded.model->set_vocabulary(loaded.vocabulary);
  if (!candidate.adapter.empty())
    loaded.peft = make_peft(read_adapter_config(candidate.adapter), *loaded.model, 0);
  auto const source = tokenizer_source(model_dir, candidate.adapter);
  if (source == loaded.tokenizer_source) return;
  loaded.tokenizer = load_tokenizer(source);
  loaded.tokenizer_source = source;
}

std::string encode(std::vector<RowAnswer> const& answers) {
  auto list = json::array();
  for (auto const& a : answers) list.push_back({a.text, a.exact, a.loss_sum, a.targets});
  return list.dump(-1, ' ', false, json::error_handler_t::replace);
}

/// Part r holds the answers of rows r, r + size, ...
std::vector<RowAnswer> interleaved(std::vector<std::string> const& parts, size_t rows) {
  std::vector<json> lists;
  for (auto const& part : parts) lists.push_back(json::parse(part));
  std::vector<RowAnswer> answers;
  for (size_t row = 0; row < rows; ++row) {
    auto const& a = lists[row % lists.size()][row / lists.size()];
    answers.push_back({a[0], a[1], a[2], a[3]});
  }
  return answers;
}

}  // namespace

Evaluation evaluate(EvaluateJob const& job, Communicator const& comm) {
  at::set_num_threads(1);
  Evaluation result;
  Loaded loaded;
  std::vector<Sample> mine;
  agree(comm, [&] {
    for (auto const& candidate : job.candidates)
      if (!candidate.adapter.empty()) read_adapter_config(candidate.adapter);
    result.rows = read_samples(job.data);
    if (job.limit > 0 && std::cmp_less(job.limit, result.rows.size()))
      result.rows.resize(static_cast<size_t>(job.limit));
    auto const size = static_cast<size_t>(comm.size());
    for (auto row = static_cast<size_t>(comm.rank()); row < result.rows.size(); row += size)
      mine.push_back(result.rows[row]);
    loaded = load(job);
  });
  for (auto const& candidate : job.candidates) {
    auto const start = std::chrono::steady_clock::now();
    std::string answers;
    agree(comm, [&] {
      change_adapter(loaded, candidate, job.model_dir);
      answers =
          encode(answer_rows(*loaded.model, *loaded.tokenizer, mine, job.data.prompt, job.batch_tokens));
    });
    auto const parts = comm.gather(answers, 0);
    if (comm.rank() == 0) result.answers.push_back(interleaved(parts, result.rows.size()));
    log_info("{}: {} rows answered in {:.0f} s", candidate.name, result.rows.size(),
             std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  result.candidates = job.candidates;
  return result;
}

}  // namespace fsllm
