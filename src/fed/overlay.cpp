// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/overlay.hpp"

#include <ATen/ops/add.h>
#include <ATen/ops/from_blob.h>

#include <utility>

#include "fsllm/comm/node_memory.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/tensor_bytes.hpp"

namespace fsllm {
namespace {

constexpr int64_t kAlignment = 64;

int64_t bytes_of(Linear const& linear) {
  auto const bytes = linear.in_features() * linear.out_features() * static_cast<int64_t>(sizeof(float));
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

/// A module: as it was loaded, its overlay [out, in], and on the CPU the sum, in the shape of the file.
struct Overlay::Module {
  Linear* linear;
  Linear base;
  at::Tensor overlay, sum;
};

struct Overlay::Memory {
  Memory(Communicator const& node, int64_t bytes)
      : shared(node, bytes, "what a run adds to frozen weights") {}
  NodeMemory shared;
};

Overlay::Overlay(CausalLM& model, std::vector<std::string> const& modules, Communicator const& world)
    : node_(world.split_by_node()), leaders_(world.split(node_.rank() == 0 ? 0 : 1, world.rank())) {
  int64_t bytes = 0;
  for (auto const& name : modules) {
    if (name == model.config().head) model.untie_head();
    auto* const linear = &module_of(model, name);
    bytes += bytes_of(*linear) * (linear->device().is_cpu() ? 2 : 1);
    modules_.push_back({linear, *linear, {}, {}});
    modules_.back().base.adapter.reset();
  }
  memory_ = std::make_unique<Memory>(node_, bytes);
  auto* place = memory_->shared.data();
  for (auto& module : modules_) {
    auto const out = module.base.out_features(), in = module.base.in_features();
    auto const next = [&](int64_t rows, int64_t columns) {
      auto const tensor = at::from_blob(place, {rows, columns}, at::kFloat);
      place += bytes_of(module.base);
      return tensor;
    };
    module.overlay = next(out, in);
    if (module.base.device().is_cpu()) module.sum = module.base.conv1d ? next(in, out) : next(out, in);
  }
  apply();
}

Overlay::~Overlay() {
  for (auto& module : modules_) {
    module.linear->weight = module.base.weight;
    module.linear->quantized = module.base.quantized;
  }
}

void Overlay::apply() {
  auto const in_file = [](Module const& module, at::Tensor const& matrix) {
    return module.base.conv1d ? matrix.t() : matrix;
  };
  if (node_.rank() == 0)
    for (auto& module : modules_)
      if (module.sum.defined())
        module.sum.copy_(in_file(module, at::add(module.base.matrix().to(at::kFloat), module.overlay)));
  memory_->shared.synchronize();
  for (auto& module : modules_) {
    auto const device = module.base.device();
    module.linear->weight =
        module.sum.defined()
            ? module.sum
            : in_file(module, at::add(module.base.matrix().to(at::kFloat), module.overlay.to(device)))
                  .contiguous();
    module.linear->quantized.reset();
  }
}

void Overlay::add(TensorMap const& change) {
  std::string bytes = to_bytes(change);
  if (node_.rank() == 0) {
    leaders_.broadcast(bytes, 0);
    auto const all = from_bytes(bytes);
    for (auto& module : modules_)
      if (auto const left = all.find(module.base.name + ".left"); left != all.end())
        module.overlay.addmm_(left->second.to(at::kFloat),
                              all.at(module.base.name + ".right").to(at::kFloat));
  }
  apply();
}

void Overlay::load(TensorMap const& values) {
  if (node_.rank() == 0)
    for (auto& module : modules_) {
      std::string bytes;
      if (auto const value = values.find(module.base.name); value != values.end()) bytes = to_bytes({*value});
      leaders_.broadcast(bytes, 0);
      module.overlay.copy_(from_bytes(bytes).begin()->second);
    }
  apply();
}

void Overlay::exchange() {
  for (auto& module : modules_) {
    std::swap(module.linear->weight, module.base.weight);
    std::swap(module.linear->quantized, module.base.quantized);
  }
}

TensorMap Overlay::values() const {
  TensorMap values;
  for (auto const& module : modules_) values.emplace(module.base.name, module.overlay);
  return values;
}

}  // namespace fsllm
