// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/evaluate.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>

#include "fsllm/app/merge.hpp"
#include "fsllm/app/program.hpp"
#include "fsllm/comm/gather.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"

namespace fsllm {
namespace {

/// Collective: a candidate's answers to all rows, on every rank. A batch is computed by one rank, and follows
/// from the rows alone.
std::vector<RowAnswer> answers_of(Candidate const& candidate, ModelSession& session, EvaluateJob const& job,
                                  Communicator const& comm) {
  BatchShare const share{comm.rank(), comm.size()};
  std::unique_ptr<RowQuestions> questions;
  std::vector<RowScore> scores;
  std::vector<NewToken> tokens;
  agree(comm, [&] {
    use_adapter(session, candidate.adapter);
    FSLLM_CHECK(session.tokenizer() != nullptr,
                "{} holds no tokenizer (exact match compares texts). Put tokenizer.json or tokenizer.model "
                "there.",
                job.model_dir.string());
    questions = std::make_unique<RowQuestions>(job.rows, make_prompt_template(candidate.prompt),
                                               *session.tokenizer(), session.model().config().max_positions);
    set_activity("scoring rows with " + candidate.name);
    scores = score_rows(session.model(), questions->scored(), job.batch_tokens, share);
  });
  scores = all_gather(scores, comm);
  std::ranges::sort(scores, {}, &RowScore::row);
  set_activity("answering rows with " + candidate.name);
  agree(comm, [&] {
    tokens = continue_rows(session.model(), session.tokenizer().get(), questions->open(scores),
                           job.batch_tokens, share);
  });
  return questions->answers(scores, all_gather(tokens, comm));
}

}  // namespace

void use_adapter(ModelSession& session, std::filesystem::path const& adapter) {
  if (adapter.empty()) return session.use(0);
  session.add(adapter);
  if (std::filesystem::exists(update_file(adapter)))
    log_info(
        "{} is the best adapter of its rank for what was trained; the whole is what fsllm_export --to merged "
        "writes",
        adapter.string());
}

Evaluation evaluate(EvaluateJob const& job, Communicator const& comm) {
  at::set_num_threads(1);
  Evaluation result{job.candidates, job.rows, {}};
  std::unique_ptr<ModelSession> session;
  agree(comm, [&] {
    for (auto const& candidate : job.candidates)
      if (!candidate.adapter.empty()) read_adapter_config(candidate.adapter);
    set_activity("loading the model");
    session = std::make_unique<ModelSession>(job.model_dir, job.load);
  });
  for (auto const& candidate : job.candidates) {
    auto const start = std::chrono::steady_clock::now();
    result.answers.push_back(answers_of(candidate, *session, job, comm));
    log_info("{}: {} rows answered in {:.0f} s", candidate.name, result.rows.size(),
             std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return result;
}

}  // namespace fsllm
