// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>

#include <cstring>

#include "fsllm/comm/gather.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/tensor_bytes.hpp"
#include "fsllm/fed/aggregate.hpp"

namespace fsllm {
namespace {

void append(std::string& bytes, at::Tensor const& tensor) {
  auto const values = tensor.detach().cpu().contiguous();
  bytes.append(static_cast<char const*>(values.const_data_ptr()), values.nbytes());
}

/// A tensor of this layout off the front of `bytes`, in host memory.
at::Tensor take(std::string_view& bytes, at::Tensor const& layout) {
  auto values = at::empty(layout.sizes(), layout.options().device(at::kCPU).requires_grad(false));
  FSLLM_ASSERT(bytes.size() >= values.nbytes());
  std::memcpy(values.mutable_data_ptr(), bytes.data(), values.nbytes());
  bytes.remove_prefix(values.nbytes());
  return values;
}

class Gathering : public Aggregation {
 public:
  Gathering(TensorMap const& layout, FedAlgorithm const& algorithm)
      : layout_(layout), combine_(algorithm.combine) {
    std::map<std::string, int64_t> units;
    for (auto const& [name, tensor] : layout_) {
      auto const unit = algorithm.unit ? algorithm.unit(name) : name;
      units_.push_back(units.try_emplace(unit, std::ssize(units)).first->second);
    }
  }

  void add(Message const& message, ClientTask const& task) override {
    check_same_layout(layout_, message.mean, fmt::format("message of client {}", task.client));
    tasks_.push_back(task);
    messages_.push_back(clone(moved(message.mean, at::kCPU)));
  }

  Message reduce(Collective& collective) override {
    auto const& comm = collective.communicator();
    auto const all = exchange(comm);
    FSLLM_CHECK(!all.tasks.empty(), "no message arrived (no client has trained). Check the clients' data.");
    auto const combined = combine_(all, comm);
    auto const means = comm.gather(to_bytes(combined.mean), 0);
    auto const sums = comm.gather(to_bytes(combined.sum), 0);
    Message result;
    for (auto const& part : means)
      for (auto const& [name, tensor] : from_bytes(part))
        result.mean.emplace(name, tensor.to(layout_.at(name).device()));
    for (auto const& part : sums) result.sum.merge(from_bytes(part));
    return result;
  }

 private:
  TensorMap owned_by(int rank, Communicator const& comm) const {
    TensorMap owned;
    auto unit = units_.begin();
    for (auto const& [name, tensor] : layout_)
      if (*unit++ % comm.size() == rank) owned.emplace(name, tensor);
    return owned;
  }

  /// Every tensor to its owner. Collective.
  GatheredMessages exchange(Communicator const& comm) {
    std::vector<std::string> to(static_cast<size_t>(comm.size()));
    for (int rank = 0; rank < comm.size(); ++rank)
      for (auto const& [name, tensor] : owned_by(rank, comm))
        for (auto const& message : messages_) append(to[static_cast<size_t>(rank)], message.at(name));
    messages_.clear();
    std::map<int64_t, std::pair<ClientTask, TensorMap>> by_client;
    auto const mine = owned_by(comm.rank(), comm);
    auto const from = comm.all_to_all(to);
    auto const tasks = tasks_by_rank(comm);
    for (size_t rank = 0; rank < from.size(); ++rank) {
      std::string_view rest = from[rank];
      for (auto const& task : tasks[rank]) by_client[task.client].first = task;
      for (auto const& [name, tensor] : mine)
        for (auto const& task : tasks[rank])
          by_client.at(task.client).second.emplace(name, take(rest, tensor));
    }
    GatheredMessages all;
    for (auto& [client, one] : by_client) {
      all.tasks.push_back(one.first);
      all.messages.push_back(std::move(one.second));
    }
    for (int64_t number = 0; number < std::ssize(units_); ++number)
      if (units_[static_cast<size_t>(number)] % comm.size() == comm.rank()) all.numbers.push_back(number);
    return all;
  }

  /// Collective.
  std::vector<std::vector<ClientTask>> tasks_by_rank(Communicator const& comm) const {
    struct Sent {
      int64_t rank;
      ClientTask task;
    };
    std::vector<Sent> mine;
    for (auto const& task : tasks_) mine.push_back({comm.rank(), task});
    std::vector<std::vector<ClientTask>> by_rank(static_cast<size_t>(comm.size()));
    for (auto const& [rank, task] : all_gather(mine, comm))
      by_rank[static_cast<size_t>(rank)].push_back(task);
    return by_rank;
  }

  TensorMap layout_;
  decltype(FedAlgorithm::combine) combine_;
  std::vector<int64_t> units_;  ///< number of each tensor's unit
  std::vector<ClientTask> tasks_;
  std::vector<TensorMap> messages_;
};

}  // namespace

std::unique_ptr<Aggregation> make_gathering(TensorMap const& layout, FedAlgorithm const& algorithm) {
  return std::make_unique<Gathering>(layout, algorithm);
}

std::vector<double> sum_over_tensors(std::map<int64_t, std::vector<double>> const& mine,
                                     Communicator const& comm) {
  struct Value {
    int64_t tensor, place;
    double value;
  };
  std::vector<Value> values;
  for (auto const& [tensor, of_tensor] : mine)
    for (size_t place = 0; place < of_tensor.size(); ++place)
      values.push_back({tensor, static_cast<int64_t>(place), of_tensor[place]});
  auto all = all_gather(values, comm);
  std::stable_sort(all.begin(), all.end(),
                   [](Value const& a, Value const& b) { return a.tensor < b.tensor; });
  std::vector<double> sums;
  for (auto const& [tensor, place, value] : all) {
    sums.resize(std::max(sums.size(), static_cast<size_t>(place) + 1));
    sums[static_cast<size_t>(place)] += value;
  }
  return sums;
}

}  // namespace fsllm
