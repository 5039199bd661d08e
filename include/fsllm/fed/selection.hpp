// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <limits>
#include <string>
#include <vector>

#include "fsllm/fed/config.hpp"

namespace fsllm {

/// Best model and early stop over the history of one mean loss, as FS-LLM's early stopper has them.
class Selection {
 public:
  explicit Selection(SelectionConfig config) : config_(std::move(config)) {}
  /// Takes the newest loss (mean per target token); true if it is the best so far, which one that is not
  /// finite never is.
  bool observe(double loss);
  bool stop() const { return stop_; }
  double best() const { return best_; }
  /// JSON for checkpoints.
  std::string state() const;
  void load_state(std::string const& json);

 private:
  SelectionConfig config_;
  std::vector<double> history_;
  static constexpr double kWorst = std::numeric_limits<double>::max();
  double best_ = kWorst;  ///< lowest loss seen
  double reference_ = 0;  ///< loss that an improvement must beat by delta
  int64_t since_ = 0;     ///< evaluations since then
  bool stop_ = false;
};

}  // namespace fsllm
