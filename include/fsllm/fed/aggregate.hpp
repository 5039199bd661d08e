// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>

#include "fsllm/comm/collective.hpp"
#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// Adds weighted client updates while clients finish, in constant memory, and reduces them over ranks once.
struct Aggregation {
  virtual ~Aggregation() = default;
  /// `who` names the client in errors.
  virtual void add(TensorMap const& update, double weight, std::string const& who) = 0;
  /// Collective: Σ weight·update / Σ weight on rank 0 (empty elsewhere), where the weights are those that
  /// arrived.
  virtual TensorMap reduce(Collective& collective) = 0;
};

/// 64-bit fixed point: the same bits for any number of ranks.
std::unique_ptr<Aggregation> make_exact_aggregation(TensorMap const& layout, int bits);
/// fp32 sums in rank order: less memory for full models; bits depend on the number of ranks.
std::unique_ptr<Aggregation> make_native_aggregation(TensorMap const& layout);

}  // namespace fsllm
