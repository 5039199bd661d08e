// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>

namespace fsllm {

/// Names inside `outdir/expname/`.
struct RunDirectory {
  std::filesystem::path root;
  std::filesystem::path config() const { return root / "config.yaml"; }
  std::filesystem::path log() const { return root / "exp_print.log"; }
  std::filesystem::path eval_results() const { return root / "eval_results.log"; }
  std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
  std::filesystem::path summary() const { return root / "summary.json"; }
  std::filesystem::path checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path shards() const { return root / "shards"; }
  std::filesystem::path adapter() const { return root / "adapter"; }
  std::filesystem::path best() const { return root / "best"; }
  std::filesystem::path model() const { return root / "model"; }

  /// Creates the folder. A folder that already holds a run is an Error with the three ways on, unless
  /// `overwrite`, which removes what a run writes and nothing else.
  void prepare(bool overwrite) const;
  bool holds_run() const;
  /// Drops events of rounds after `round` (a run that goes on from a checkpoint writes them again).
  void rewind_logs(int64_t round) const;
};

}  // namespace fsllm
