// SPDX-License-Identifier: Apache-2.0
#include "partitioned_model.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/StorageImpl.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/model/dtype.hpp"

namespace fsllm::detail {
namespace {

/// A gradient in the layout of whole tensors.
at::Tensor padded(at::Tensor const& gradient, int64_t elements) {
  auto const flat = gradient.contiguous().view(-1);
  if (flat.numel() == elements) return flat;
  auto const padded = at::zeros({elements}, flat.options());
  padded.narrow(0, 0, flat.numel()).copy_(flat);
  return padded;
}

bool is_wide(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble;
}

}  // namespace

PartitionedModel::PartitionedModel(Collective& collective, CausalLM& model, GroupConfig const& config,
                                   GroupModel const& what)
    : collective_(collective),
      rank_(collective.communicator().rank()),
      ranks_(collective.communicator().size()),
      stage_(config.stage),
      trained_(what.trained),
      on_host_(config.offload == "params" || (config.offload == "optimizer" && what.trained)),
      compute_(parse_dtype(what.compute_type, "train.compute_dtype")) {
  at::NoGradGuard const no_grad;
  auto rest = model.parameters();
  for (auto const& names : model.block_parameters()) {
    auto& block = blocks_.emplace_back();
    block.stays = stage_ < 3;
    for (auto const& name : names)
      if (auto const found = rest.extract(name)) add(block, model, name, found.mapped());
  }
  outside_.stays = true;
  if (!trained_) return;
  for (auto const& [name, values] : rest) add(outside_, model, name, values);
}

/// Memory for a tensor, and so for all views of it.
void PartitionedModel::fill_storage(at::Tensor const& whole) {
  auto* const storage = whole.storage().unsafeGetStorageImpl();
  auto const bytes = static_cast<size_t>(whole.numel()) * whole.element_size();
  if (storage->nbytes() == bytes) return;
  auto found = idle_.extract(bytes);
  storage->set_data_ptr_noswap(found ? std::move(found.mapped()) : storage->allocator()->allocate(bytes));
  storage->set_nbytes(bytes);
}

void PartitionedModel::empty_storage(at::Tensor const& whole) {
  auto* const storage = whole.storage().unsafeGetStorageImpl();
  if (storage->nbytes() == 0) return;
  auto memory = storage->set_data_ptr(storage->allocator()->allocate(0));
  idle_.emplace(storage->nbytes(), std::move(memory));
  storage->set_nbytes(0);
}

at::Tensor PartitionedModel::own_place(Part const& part) const {
  return part.whole.narrow(0, rank_ * part.part.size(0), part.part.size(0));
}

void PartitionedModel::add(Unit& unit, CausalLM& model, std::string const& name, at::Tensor const& values) {
  at::Device const device(model.device());
  auto const size = partition_size(values.numel(), ranks_);
  auto const type = trained_ ? compute_ : values.scalar_type();
  auto const kept = trained_ && !is_wide(type) ? at::kFloat : type;
  Part part{name, {}, {}, {}, {}};
  auto const options = at::TensorOptions(device).dtype(type);
  part.whole = unit.stays ? at::zeros({size * ranks_}, options) : at::empty({size * ranks_}, options);
  bool const elsewhere = on_host_ && !device.is_cpu();
  bool const shares = unit.stays && kept == type && !elsewhere;
  if (!shares) part.part = at::zeros({size}, options.dtype(kept).device(elsewhere ? at::kCPU : device));
  if (elsewhere) part.part = part.part.pin_memory();
  if (shares) part.part = part.whole.narrow(0, rank_ * size, size).detach();
  auto const begin = std::min(rank_ * size, values.numel());
  auto const count = std::min(size, values.numel() - begin);
  part.part.narrow(0, 0, count).copy_(values.contiguous().view(-1).narrow(0, begin, count));
  part.part.set_requires_grad(trained_);
  part.live = part.whole.narrow(0, 0, values.numel()).view(values.sizes()).variable_data();
  part.live.set_requires_grad(trained_);
  if (!unit.stays) {
    empty_storage(part.whole);
    idle_.clear();
  }
  shapes_.emplace(name, values.sizes().vec());
  model.set_parameter(name, part.live);
  unit.parts.push_back(std::move(part));
}

void PartitionedModel::note_change() {
  for (auto& block : blocks_)
    if (block.stays) block.there = false;
  outside_.there = false;
}

/// Begins to make the tensors whole.
void PartitionedModel::gather(Unit& unit) {
  if (unit.there || unit.coming) return;
  at::NoGradGuard const no_grad;
  std::vector<at::Tensor> whole;
  for (auto& part : unit.parts) {
    if (!unit.stays) fill_storage(part.whole);
    auto const place = own_place(part);
    if (place.const_data_ptr() != part.part.const_data_ptr()) place.copy_(part.part.detach());
    whole.push_back(part.whole);
  }
  unit.coming = collective_.all_gather(whole);
}

void PartitionedModel::await(Unit& unit) {
  gather(unit);
  if (unit.coming) unit.coming->finish();
  unit.coming.reset();
  unit.there = true;
}

void PartitionedModel::release(Unit& unit) {
  if (unit.stays) return;
  if (unit.coming) unit.coming->finish();
  unit.coming.reset();
  unit.there = false;
  for (auto const& part : unit.parts) empty_storage(part.whole);
}

/// Begins to add up the gradients of a unit into those of its parts.
void PartitionedModel::reduce(Unit& unit) {
  at::NoGradGuard const no_grad;
  std::vector<at::Tensor> whole, sums;
  for (auto& part : unit.parts) {
    auto& gradient = part.live.mutable_grad();
    if (!gradient.defined()) continue;
    if (!part.sum.defined())
      part.sum = at::empty(part.part.sizes(), part.part.options().requires_grad(false));
    auto& sum = part.part.mutable_grad();
    if (!sum.defined()) sum = part.sum.zero_();
    whole.push_back(padded(gradient, part.whole.size(0)));
    sums.push_back(sum);
    gradient.reset();
  }
  if (whole.empty()) return;
  auto next = collective_.reduce_scatter(whole, sums);
  await_reduction();
  reduction_ = std::move(next);
}

void PartitionedModel::await_reduction() {
  if (reduction_) reduction_->finish();
  reduction_.reset();
}

void PartitionedModel::before_pass() {
  gather(outside_);
  for (auto& block : blocks_)
    if (block.stays) gather(block);
  await(outside_);
  for (auto& block : blocks_)
    if (block.stays) await(block);
}

void PartitionedModel::before_forward(int64_t layer) {
  auto const at = static_cast<size_t>(layer);
  if (blocks_[at].stays) return;
  gather(blocks_[at]);
  if (at + 1 < blocks_.size()) gather(blocks_[at + 1]);
  await(blocks_[at]);
}

void PartitionedModel::after_forward(int64_t layer) {
  auto const at = static_cast<size_t>(layer);
  bool const is_next_in_backward = at::GradMode::is_enabled() && at + 1 == blocks_.size();
  if (!is_next_in_backward) release(blocks_[at]);
}

void PartitionedModel::before_backward(int64_t layer) {
  auto const at = static_cast<size_t>(layer);
  if (blocks_[at].stays) return;
  gather(blocks_[at]);
  if (at > 0) gather(blocks_[at - 1]);
  await(blocks_[at]);
}

void PartitionedModel::after_backward(int64_t layer) {
  auto& block = blocks_[static_cast<size_t>(layer)];
  if (trained_ && stage_ >= 2) reduce(block);
  release(block);
}

void PartitionedModel::end_backward() {
  if (trained_ && stage_ >= 2) {
    for (auto& block : blocks_) reduce(block);
    reduce(outside_);
    await_reduction();
  }
  for (auto& block : blocks_) release(block);
}

void PartitionedModel::sum_gradients() {
  if (!trained_) return;
  for (auto& block : blocks_) reduce(block);
  reduce(outside_);
  await_reduction();
}

void PartitionedModel::drop_gradients() {
  auto const drop = [](Unit& unit) {
    for (auto& part : unit.parts) {
      part.part.mutable_grad().reset();
      part.sum.reset();
    }
  };
  for (auto& block : blocks_) drop(block);
  drop(outside_);
}

TensorMap PartitionedModel::parts() const {
  TensorMap parts;
  if (!trained_) return parts;
  auto const take = [&](Unit const& unit) {
    for (auto const& part : unit.parts) parts.emplace(part.name, part.part);
  };
  for (auto const& block : blocks_) take(block);
  take(outside_);
  return parts;
}

}  // namespace fsllm::detail
