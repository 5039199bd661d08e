// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>

#include "fsllm/train/local_training.hpp"
#include "fsllm/train/loss.hpp"

namespace fsllm {
namespace {

using Prepared = LocalTraining::Prepared;

/// The pass-th forward pass of every client that has one.
std::vector<ClientBatch> batches_of(std::vector<std::optional<Prepared>> const& prepared, size_t pass) {
  std::vector<ClientBatch> batches;
  for (size_t i = 0; i < prepared.size(); ++i)
    if (prepared[i] && pass < prepared[i]->batches.size() && prepared[i]->batches[pass].num_targets() > 0)
      batches.push_back({prepared[i]->batches[pass], prepared[i]->dropout, static_cast<int64_t>(i),
                         prepared[i]->targets, prepared[i]->loss_scale});
  return batches;
}

/// Forward and backward of all passes; the summed loss of each client.
std::vector<double> accumulate(CausalLM& model, std::vector<std::optional<Prepared>> const& prepared) {
  size_t passes = 0;
  for (auto const& one : prepared)
    if (one) passes = std::max(passes, one->batches.size());
  std::vector<double> sums(prepared.size());
  for (size_t pass = 0; pass < passes; ++pass) {
    auto const batches = batches_of(prepared, pass);
    if (batches.empty()) continue;
    at::Tensor part;
    shared_loss(model, batches, part).backward();
    auto const values = part.cpu();
    for (size_t i = 0; i < batches.size(); ++i)
      sums[static_cast<size_t>(batches[i].slot)] += values[static_cast<int64_t>(i)].item<double>();
  }
  return sums;
}

}  // namespace

std::vector<StepResult> shared_step(CausalLM& model, TensorMap const& slots,
                                    std::vector<SharedClient> const& clients) {
  auto const start = std::chrono::steady_clock::now();
  std::vector<std::optional<Prepared>> prepared(clients.size());
  int64_t working = 0;
  for (size_t i = 0; i < clients.size(); ++i)
    if (!clients[i].training->done()) {
      prepared[i] = clients[i].training->prepare();
      ++working;
    }
  for (auto const& [name, tensor] : slots) tensor.mutable_grad().reset();
  auto const sums = accumulate(model, prepared);
  std::vector<StepResult> steps(clients.size());
  for (size_t i = 0; i < clients.size(); ++i) {
    if (!prepared[i]) continue;
    for (auto const& [name, parameter] : *clients[i].parameters)
      parameter.mutable_grad() = prepared[i]->targets > 0 && slots.at(name).grad().defined()
                                     ? slots.at(name).grad()[static_cast<int64_t>(i)].clone()
                                     : at::Tensor();
    steps[i] = clients[i].training->finish(*prepared[i], sums[i]);
  }
  double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (size_t i = 0; i < clients.size(); ++i)
    if (prepared[i]) clients[i].training->add_seconds(seconds / static_cast<double>(working));
  return steps;
}

}  // namespace fsllm
