// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "fsllm/app/evaluate_tasks.hpp"
#include "fsllm/fed/report.hpp"
#include "setup.hpp"

namespace fsllm {

/// Tasks that the global model is put to while it is trained (eval.tasks), by the code of fsllm_eval: what it
/// says after a round is what `fsllm_eval --tasks` says of it.
class RunTasks {
 public:
  /// Collective: reads all items and cuts them into rows once, so that whatever a task lacks is an Error
  /// before the run trains. `s` must outlive this.
  RunTasks(Setup const& s, Communicator const& comm);
  bool empty() const { return tasks_.empty(); }

  /// Collective: `model`, whose trained values are `values`, does all tasks, and rank 0 writes
  /// tasks/round_NNNNNN/ in the run directory. Nothing where a signal has stopped it: finished tasks and
  /// batches are kept then, and the next call goes on behind them.
  std::optional<TaskMetrics> examine(CausalLM& model, TensorMap const& values, int64_t round,
                                     Communicator const& comm);

 private:
  std::string identity_of_values(TensorMap const& values) const;

  Setup const& s_;
  TaskJob job_;
  std::vector<std::shared_ptr<EvalTask const>> tasks_;
};

}  // namespace fsllm
