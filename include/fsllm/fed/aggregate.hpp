// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "fsllm/comm/collective.hpp"
#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

/// Takes clients' messages while clients finish, and brings them together over ranks once.
struct Aggregation {
  virtual ~Aggregation() = default;
  virtual void add(Message const& message, ClientTask const& task) = 0;
  /// Collective: on rank 0 (empty elsewhere) Σ weight·mean / Σ weight, where the weights are those that
  /// arrived, and Σ sum.
  virtual Message reduce(Collective& collective) = 0;
  /// What has been added on this rank, in host memory, and the same added to what is here; none for a kind
  /// that keeps more than sums.
  virtual std::optional<TensorMap> state() const { return {}; }
  virtual void add_state(TensorMap const& /*state*/) {}
};

/// 64-bit fixed point: the same bits for any number of ranks.
std::unique_ptr<Aggregation> make_exact_aggregation(Message const& layout, int bits);
/// fp32 sums in rank order: less memory for full models; bits depend on the number of ranks.
std::unique_ptr<Aggregation> make_native_aggregation(Message const& layout);

/// All messages, each unit of tensors on one rank, where FedAlgorithm::combine makes one of them. `layout` is
/// that of Message::mean.
std::unique_ptr<Aggregation> make_gathering(TensorMap const& layout, FedAlgorithm const& algorithm);
/// Two exact sums a round: FedAlgorithm::second. The result's mean holds those of the first, the basis and
/// the means of the second.
std::unique_ptr<Aggregation> make_two_sums(Message const& layout, TensorMap const& weights,
                                           SecondSum const& second, int bits);

/// Collective: values that belong to tensors (number in name order → values, each on one rank), added up in
/// the order of the tensors, on every rank: the same bits for any number of ranks.
std::vector<double> sum_over_tensors(std::map<int64_t, std::vector<double>> const& mine,
                                     Communicator const& comm);

}  // namespace fsllm
