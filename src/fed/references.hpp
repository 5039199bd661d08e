// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "fsllm/fed/overlay.hpp"
#include "fsllm/fed/round.hpp"

namespace fsllm::detail {

/// What losses of pairs compare with: -log p of each row's answer by the model that training began with,
/// which is the model without adapter and without what the run adds to frozen matrices. A split's values are
/// computed when they are first asked for, in batches that follow from its rows alone, so they have the same
/// bits on every rank and after a resume; they stay in memory, 8 bytes a row.
class References {
 public:
  explicit References(Federation const& federation) : f_(federation) {}
  References(References const&) = delete;
  void set_overlay(Overlay* overlay) { overlay_ = overlay; }
  /// Empty for rows with one answer.
  std::vector<double> const& operator()(int64_t client, std::string const& split, TokenSplit const& rows);

 private:
  Federation const& f_;
  Overlay* overlay_ = nullptr;
  std::map<std::pair<int64_t, std::string>, std::vector<double>> known_;
};

}  // namespace fsllm::detail
