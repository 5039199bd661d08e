// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/aggregate.hpp"

#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "fsllm/comm/fixed_point.hpp"
#include "fsllm/comm/huge_pages.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/tensor_bytes.hpp"

namespace fsllm {
namespace {

std::string name_of(ClientTask const& task) {
  return fmt::format("client {}", task.client);
}

class ExactAggregation : public Aggregation {
 public:
  ExactAggregation(Message const& layout, int bits) : mean_(layout.mean, bits) {
    if (!layout.sum.empty()) sum_.emplace(layout.sum, bits);
  }
  void add(Message const& message, ClientTask const& task) override {
    mean_.add(message.mean, task.weight, name_of(task));
    if (sum_) sum_->add(message.sum, 1, name_of(task));
  }
  Message reduce(Collective& collective) override {
    mean_.reduce(collective, 0);
    if (sum_) sum_->reduce(collective, 0);
    if (collective.communicator().rank() != 0) return {};
    return {std::move(mean_).mean(), sum_ ? std::move(*sum_).total() : TensorMap{}, {}};
  }
  std::optional<TensorMap> state() const override {
    TensorMap all{{"mean", copy_of(mean_.encoded())}};
    if (sum_) all.emplace("sum", copy_of(sum_->encoded()));
    return all;
  }
  void add_state(TensorMap const& state) override {
    mean_.add(span_of(state.at("mean")));
    if (sum_) sum_->add(span_of(state.at("sum")));
  }

 private:
  static at::Tensor copy_of(std::span<int64_t const> values) {
    auto const copy = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
    std::copy(values.begin(), values.end(), copy.mutable_data_ptr<int64_t>());
    return copy;
  }
  static std::span<int64_t const> span_of(at::Tensor const& values) {
    return {values.const_data_ptr<int64_t>(), static_cast<size_t>(values.numel())};
  }
  FixedPointSum mean_;
  std::optional<FixedPointSum> sum_;
};

constexpr char const *kWeight = "weight", *kMean = "mean.", *kSum = "sum.";

/// Elements that are looked at and added before the next ones, while they lie in the second-level cache.
constexpr int64_t kBlock = 1 << 16;

/// sum += weight·values; false, and the sum is of no use, where a value is not finite.
bool add_finite(at::Tensor const& sum, at::Tensor const& values, double weight) {
  if (values.numel() > kBlock && values.is_cpu() && values.is_contiguous() && sum.is_contiguous()) {
    auto const from = values.view({-1}), to = sum.view({-1});
    for (int64_t begin = 0; begin < from.numel(); begin += kBlock) {
      int64_t const length = std::min(kBlock, from.numel() - begin);
      if (!add_finite(to.narrow(0, begin, length), from.narrow(0, begin, length), weight)) return false;
    }
    return true;
  }
  if (values.numel() == 0) return true;
  auto const [least, largest] = at::aminmax(values);  // both not a number where one value is
  if (!std::isfinite(least.item<double>()) || !std::isfinite(largest.item<double>())) return false;
  sum.add_(values, weight);
  return true;
}

at::Tensor zeros_like(at::Tensor const& tensor) {
  auto zeros = at::empty_like(tensor);
  if (zeros.is_cpu()) advise_huge_pages(zeros.mutable_data_ptr(), static_cast<int64_t>(zeros.nbytes()));
  return zeros.zero_();
}

class NativeAggregation : public Aggregation {
 public:
  explicit NativeAggregation(Message const& layout) : layout_(layout) {}
  void add(Message const& message, ClientTask const& task) override {
    begin();
    add_part(kMean, message.mean, task.weight, name_of(task));
    add_part(kSum, message.sum, 1, name_of(task));
    sums_.at(kWeight).add_(task.weight);
  }
  Message reduce(Collective& collective) override {
    begin();
    collective.reduce_sum(sums_, 0);
    if (collective.communicator().rank() != 0) return {};
    double const weight = sums_.at(kWeight).item<double>();
    FSLLM_CHECK(
        weight != 0,
        "no weight arrived (every client of the round failed or has no rows). Check the clients' data.");
    Message all{part_of(sums_, kMean), part_of(sums_, kSum), {}};
    for (auto& [name, tensor] : all.mean) tensor.div_(weight);
    return all;
  }
  std::optional<TensorMap> state() const override { return clone(moved(sums_, at::kCPU)); }
  void add_state(TensorMap const& state) override {
    if (state.empty()) return;
    begin();
    for (auto const& [name, sum] : sums_) sum.add_(state.at(name).to(sum.device()));
  }

 private:
  /// Sums take their memory when a client has ended, not beside its gradients and optimiser.
  void begin() {
    if (!sums_.empty()) return;
    for (auto const& [name, tensor] : layout_.mean) sums_.emplace(kMean + name, zeros_like(tensor));
    for (auto const& [name, tensor] : layout_.sum) sums_.emplace(kSum + name, zeros_like(tensor));
    sums_.emplace(kWeight, at::full({1}, 0.0, at::kDouble));
  }
  void add_part(std::string const& prefix, TensorMap const& part, double weight, std::string const& who) {
    for (auto const& [name, tensor] : part)
      FSLLM_CHECK(add_finite(sums_.at(prefix + name), tensor, weight),
                  "{} of {} is not finite (the client's training diverged). Lower train.optimizer.lr.", name,
                  who);
  }
  Message layout_;
  TensorMap sums_;
};

/// What clients keep for the second sum waits on their rank.
class TwoSums : public Aggregation {
 public:
  TwoSums(Message const& layout, TensorMap const& weights, SecondSum const& second, int bits)
      : first_(layout, bits), weights_(weights), second_(second), bits_(bits) {}
  void add(Message const& message, ClientTask const& task) override {
    first_.add(message, task);
    kept_.emplace_back(task, clone(moved(message.kept, at::kCPU)));
  }
  Message reduce(Collective& collective) override {
    auto const& comm = collective.communicator();
    auto result = first_.reduce(collective);
    std::string bytes;
    if (comm.rank() == 0) bytes = to_bytes(second_.basis(result.mean));
    comm.broadcast(bytes, 0);
    auto const basis = from_bytes(bytes);
    ExactAggregation second({second_.layout(basis, weights_), {}, {}}, bits_);
    for (auto const& [task, kept] : kept_) second.add({second_.project(basis, kept), {}, {}}, task);
    auto projected = second.reduce(collective);
    if (comm.rank() != 0) return {};
    result.mean.insert(basis.begin(), basis.end());
    result.mean.merge(projected.mean);
    return result;
  }

 private:
  ExactAggregation first_;
  TensorMap weights_;
  SecondSum second_;
  int bits_;
  std::vector<std::pair<ClientTask, TensorMap>> kept_;
};

}  // namespace

std::unique_ptr<Aggregation> make_two_sums(Message const& layout, TensorMap const& weights,
                                           SecondSum const& second, int bits) {
  return std::make_unique<TwoSums>(layout, weights, second, bits);
}

std::unique_ptr<Aggregation> make_exact_aggregation(Message const& layout, int bits) {
  return std::make_unique<ExactAggregation>(layout, bits);
}

std::unique_ptr<Aggregation> make_native_aggregation(Message const& layout) {
  return std::make_unique<NativeAggregation>(layout);
}

}  // namespace fsllm
