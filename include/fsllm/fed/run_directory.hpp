// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/io/output_folder.hpp"

namespace fsllm {

/// A file or folder that the run reads, and the key or option that names it.
struct RunInput {
  std::string key;
  std::filesystem::path path;
};

/// Names inside `outdir/expname/`.
struct RunDirectory {
  std::filesystem::path root;
  std::filesystem::path config() const { return root / "config.yaml"; }
  std::filesystem::path client_config() const { return root / "client_cfg.yaml"; }
  std::filesystem::path record() const { return root / "run.json"; }
  std::filesystem::path log() const { return root / "exp_print.log"; }
  std::filesystem::path eval_results() const { return root / "eval_results.log"; }
  std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
  std::filesystem::path client_metrics() const { return root / "metrics_clients.jsonl"; }
  std::filesystem::path rank_metrics() const { return root / "metrics_ranks.jsonl"; }
  std::filesystem::path summary() const { return root / "summary.json"; }
  std::filesystem::path checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path shards() const { return root / "shards"; }
  std::filesystem::path adapter() const { return root / "adapter"; }
  std::filesystem::path best() const { return root / "best"; }
  std::filesystem::path average() const { return root / "swa"; }
  std::filesystem::path model() const { return root / "model"; }
  std::filesystem::path emulator() const { return root / "emulator"; }
  std::filesystem::path report() const { return root / "report.html"; }
  /// TensorBoard's event file, below root.
  static constexpr char const* kCurves = "tb/events.out.tfevents.0.fsllm_hpc";

  bool holds_run() const;
  /// A folder without a run to continue is an Error.
  void check_holds_run() const;
  /// Takes the folder for a new run. A folder that already holds a run is an Error with the three ways on,
  /// unless `overwrite`, which removes what the program has written there (OutputFolder) and nothing else.
  /// Files of others under the names of the run are an Error, and so is an input that lies among them. Shards
  /// of a start that failed stay: the next start goes on with them.
  std::unique_ptr<OutputFolder> start(bool overwrite, std::vector<RunInput> const& inputs) const;
  /// Takes the folder to continue the run that it holds, which the caller has checked to be the one it means:
  /// where an earlier version kept no list of files, those under a run's names are taken for the program's.
  std::unique_ptr<OutputFolder> resume() const;
};

/// Drops events of rounds after `round` from the logs (a run that goes on from a checkpoint writes them
/// again).
void rewind_logs(OutputFolder& folder, int64_t round);

}  // namespace fsllm
