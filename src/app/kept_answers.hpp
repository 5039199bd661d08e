// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/eval/task_work.hpp"
#include "fsllm/io/output_folder.hpp"

namespace fsllm {

/// Finished batches of the task that is under way, so that a process which is killed loses only what it was
/// computing: beside the results, in the folder TASK.unfinished, each rank appends a line a batch to a file
/// of its own. A line counts where its checksum, which goes over `settings` too (all that decides an answer),
/// is right. `name` is that of the task below the folder.
class KeptAnswers {
 public:
  /// Collective: takes what earlier calls left, of any number of ranks; rank 0 alone has `out`, and reads it.
  /// Ranks that do not see its folder, and all where rank 0 has none, keep nothing.
  KeptAnswers(OutputFolder* out, std::string name, std::string settings, Communicator const& comm);

  std::vector<FinishedBatch> const& batches() const { return batches_; }
  int64_t rows() const;
  void add(FinishedBatch const& batch);
  /// Collective: the task is done, and its files go.
  void remove(Communicator const& comm);

 private:
  OutputFolder* out_;
  std::string name_, settings_;
  std::vector<FinishedBatch> batches_;
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace fsllm
