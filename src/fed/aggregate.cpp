// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/aggregate.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include "fsllm/comm/fixed_point.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

class ExactAggregation : public Aggregation {
 public:
  ExactAggregation(TensorMap const& layout, int bits) : sum_(layout, bits) {}
  void add(TensorMap const& update, double weight, std::string const& who) override {
    sum_.add(update, weight, who);
  }
  TensorMap reduce(Collective& collective) override {
    sum_.reduce(collective, 0);
    return collective.communicator().rank() == 0 ? sum_.mean() : TensorMap{};
  }

 private:
  FixedPointSum sum_;
};

constexpr char const* kWeight = "weight";

class NativeAggregation : public Aggregation {
 public:
  explicit NativeAggregation(TensorMap const& layout) {
    for (auto const& [name, tensor] : layout) sum_.emplace("update." + name, at::zeros_like(tensor));
    sum_.emplace(kWeight, at::full({1}, 0.0, at::kDouble));
  }
  void add(TensorMap const& update, double weight, std::string const& who) override {
    for (auto const& [name, tensor] : update) {
      FSLLM_CHECK(tensor.isfinite().all().item<bool>(),
                  "{} of {} is not finite (the client's training diverged). Lower train.optimizer.lr.", name,
                  who);
      sum_.at("update." + name).add_(tensor, weight);
    }
    sum_.at(kWeight).add_(weight);
  }
  TensorMap reduce(Collective& collective) override {
    collective.reduce_sum(sum_, 0);
    TensorMap mean;
    if (collective.communicator().rank() != 0) return mean;
    double const weight = sum_.at(kWeight).item<double>();
    FSLLM_CHECK(
        weight != 0,
        "no weight arrived (every client of the round failed or has no rows). Check the clients' data.");
    for (auto const& [name, tensor] : sum_)
      if (name != kWeight) mean.emplace(name.substr(7), tensor.div_(weight));
    return mean;
  }

 private:
  TensorMap sum_;
};

}  // namespace

std::unique_ptr<Aggregation> make_exact_aggregation(TensorMap const& layout, int bits) {
  return std::make_unique<ExactAggregation>(layout, bits);
}

std::unique_ptr<Aggregation> make_native_aggregation(TensorMap const& layout) {
  return std::make_unique<NativeAggregation>(layout);
}

}  // namespace fsllm
