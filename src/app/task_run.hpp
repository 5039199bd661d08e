// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "fsllm/app/evaluate_tasks.hpp"

namespace fsllm {

/// A model as it stands, which tasks are put to.
struct Examinee {
  std::string title;     ///< in messages
  std::string prefix;    ///< of its files, below the folder of results
  std::string identity;  ///< of all that its answers depend on beside the job's settings and the items
  CausalLM& model;
  Tokenizer const& tokenizer;
};

/// Collective: why answers cannot be judged, of the first rank where they cannot; "" where all can.
std::string problem_of(EvalTask const& task, Communicator const& comm);

/// Collective: the same bits for any number of ranks, which share the batches. What earlier calls finished is
/// taken from `out` (null on ranks other than 0), where everything is written. Nothing where a deferred
/// signal has stopped it; finished batches are kept then.
std::optional<TaskOutcome> do_task(std::shared_ptr<EvalTask const> const& task, Examinee const& examinee,
                                   TaskJob const& job, Communicator const& comm, OutputFolder* out);

}  // namespace fsllm
