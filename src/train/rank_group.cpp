// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/rank_group.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "partitioned_model.hpp"

namespace fsllm {

GroupConfig load_group_config(Config& config) {
  GroupConfig c;
  c.ranks = config.get<int64_t>("hpc.ranks_per_client", 1,
                                "Ranks that train a client together: each has a part of every batch's rows.",
                                at_least(1));
  c.stage = config.get<int64_t>(
      "hpc.zero_stage", 0,
      "What the ranks of a client partition (ZeRO): 0 nothing, 1 the values and optimiser state of a model "
      "that "
      "is trained, 2 its gradients too, 3 the weights of the blocks too, also frozen ones under an adapter.",
      within(0, 3));
  c.offload =
      config.get("hpc.offload", "none",
                 "What of a partitioned model lies in host memory instead of the GPU's: optimizer (the "
                 "fp32 values, their gradients and the optimiser's state, which steps on the CPU), "
                 "params (at stage 3 the same: no other copy is kept).",
                 one_of({"none", "optimizer", "params"}));
  FSLLM_CHECK(c.offload == "none" || c.stage > 0,
              "{} = {} with hpc.zero_stage = 0 (nothing is partitioned that could lie elsewhere). Set "
              "hpc.zero_stage.",
              config.where("hpc.offload"), c.offload);
  return c;
}

struct RankGroup::Impl {
  Collective& collective;
  std::shared_ptr<detail::PartitionedModel> model;
  bool trained;
};

RankGroup::RankGroup(Collective& collective, CausalLM& model, GroupConfig const& config,
                     GroupModel const& what)
    : impl_(new Impl{collective, nullptr, what.trained}) {
  if (config.stage == 0 || (config.stage < 3 && !what.trained)) return;
  auto hooks = std::make_shared<detail::PartitionedModel>(collective, model, config, what);
  model.set_layer_hooks(hooks);
  impl_->model = std::move(hooks);
}

RankGroup::~RankGroup() = default;

Collective& RankGroup::collective() const {
  return impl_->collective;
}

int RankGroup::rank() const {
  return impl_->collective.communicator().rank();
}

int RankGroup::size() const {
  return impl_->collective.communicator().size();
}

bool RankGroup::partitions() const {
  return impl_->model != nullptr && impl_->trained;
}

TensorMap RankGroup::parameters() const {
  return impl_->model ? impl_->model->parts() : TensorMap{};
}

void RankGroup::note_change() {
  if (impl_->model) impl_->model->note_change();
}

std::map<std::string, std::vector<int64_t>> const& RankGroup::shapes() const {
  static std::map<std::string, std::vector<int64_t>> const none;
  return impl_->model ? impl_->model->shapes() : none;
}

RankGroup::Share RankGroup::share_of(Batch const& batch) const {
  int64_t const a_sample = batch.num_pairs() > 0 ? 2 : 1;
  int64_t const samples = batch.num_rows() / a_sample;
  auto const from = [&](int64_t rank) { return samples * rank / size() * a_sample; };
  auto own = batch_rows(batch, from(rank()), from(rank() + 1));
  if (own.num_targets() > 0) return {std::move(own), true};
  int64_t sample = 0;
  do own = batch_rows(batch, sample * a_sample, (sample + 1) * a_sample);
  while (own.num_targets() == 0 && ++sample < samples);
  return {std::move(own), false};
}

void RankGroup::end_backward() {
  if (impl_->model) impl_->model->end_backward();
}

void RankGroup::sum_gradients(TensorMap const& parameters) {
  if (partitions()) return impl_->model->sum_gradients();
  std::vector<at::Tensor> gradients;
  for (auto const& [name, tensor] : parameters)
    if (tensor.grad().defined()) gradients.push_back(tensor.grad());
  all_reduce_sum(impl_->collective, gradients);
}

void RankGroup::end_training() {
  if (impl_->model) impl_->model->drop_gradients();
}

double RankGroup::sum(double value) const {
  return sum_in_order(impl_->collective.communicator(), value);
}

bool RankGroup::any(bool value) const {
  return impl_->collective.communicator().any(value);
}

double RankGroup::norm(double own) const {
  return partitions() ? std::sqrt(sum(own * own)) : own;
}

at::Tensor RankGroup::gathered(std::string const& name, at::Tensor const& part) const {
  auto const& shape = shapes().at(name);
  auto const whole = at::empty({part.size(0) * size()}, part.options().device(at::kCPU).requires_grad(false));
  whole.narrow(0, rank() * part.size(0), part.size(0)).copy_(part.detach());
  impl_->collective.all_gather({whole})->finish();
  if (rank() != 0) return {};
  auto const elements = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  return whole.narrow(0, 0, elements).view(shape);
}

}  // namespace fsllm
