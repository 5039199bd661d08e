// SPDX-License-Identifier: Apache-2.0
// Checkpoints of runs whose ranks have parts of the model.
#include "partitions.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "fsllm/comm/gather.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm::detail {
namespace {

using Shape = std::vector<int64_t>;

int64_t elements_of(Shape const& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

/// The parameter whose values, or whose optimiser state ("exp_avg.PARAMETER"), a tensor of this name holds.
Shape const* shape_of(std::string const& name, std::map<std::string, Shape> const& shapes) {
  for (size_t begin = 0; begin != std::string::npos;) {
    auto const found = shapes.find(name.substr(begin));
    if (found != shapes.end()) return &found->second;
    auto const dot = name.find('.', begin);
    begin = dot == std::string::npos ? dot : dot + 1;
  }
  return nullptr;
}

/// Of parts that `old` ranks had of one tensor, or of the whole, that of `rank` among `ranks`.
at::Tensor cut_anew(std::vector<at::Tensor> const& parts, Shape const& shape, int rank, int ranks) {
  int64_t const elements = elements_of(shape);
  std::vector<at::Tensor> flat;
  for (auto const& part : parts) flat.push_back(part.reshape(-1));
  auto const whole = at::cat(flat).narrow(0, 0, elements);
  if (ranks == 1) return whole.view(shape);
  auto const size = partition_size(elements, ranks);
  auto const cut = at::zeros({size}, whole.options());
  auto const begin = std::min(rank * size, elements), count = std::min(size, elements - begin);
  cut.narrow(0, 0, count).copy_(whole.narrow(0, begin, count));
  return cut;
}

std::map<std::string, Shape> shapes_of(Federation const& f) {
  if (f.group != nullptr && f.group->partitions()) return f.group->shapes();
  std::map<std::string, Shape> shapes;
  for (auto const& [name, tensor] : f.parameters) shapes.emplace(name, tensor.sizes().vec());
  return shapes;
}

}  // namespace

Checkpoint own_checkpoint(FoundCheckpoint& found, Federation const& f) {
  bool const cuts = f.group != nullptr && f.group->partitions();
  int const ranks = cuts ? f.group->size() : 1, rank = cuts ? f.group->rank() : 0;
  if (found.parts == ranks)
    return rank == 0 && found.first.round > 0 ? std::move(found.first) : load_checkpoint(found.folder, rank);
  FSLLM_CHECK(
      !f.config.has_client_states(),
      "{} was written by {} ranks a client (now {}; clients have states of their own, which are not cut "
      "anew). Continue with hpc.ranks_per_client = {}.",
      found.folder.string(), found.parts, ranks, found.parts);
  std::vector<Checkpoint> parts;
  for (int part = 0; part < found.parts; ++part) parts.push_back(load_checkpoint(found.folder, part));
  auto const shapes = shapes_of(f);
  Checkpoint own = parts.front();
  for (auto& [section, tensors] : own.tensors)
    for (auto& [name, tensor] : tensors) {
      auto const* shape = shape_of(name, shapes);
      if (shape == nullptr) continue;
      int64_t const size =
          found.parts == 1 ? elements_of(*shape) : partition_size(elements_of(*shape), found.parts);
      if (tensor.numel() != size || tensor.dim() == 0) continue;  // a count of steps
      std::vector<at::Tensor> old;
      for (auto const& part : parts) old.push_back(part.tensors.at(section).at(name));
      tensor = cut_anew(old, *shape, rank, ranks);
    }
  return own;
}

void save_checkpoint_parts(Federation const& f, Checkpoint const& own, int keep_last) {
  auto const& servers = f.group->collective().communicator();
  std::string folder;
  if (servers.rank() == 0) folder = f.output->fresh_folder().string();
  servers.broadcast(folder, 0);
  auto const part = write_checkpoint_part(folder, servers.rank(), own);
  auto const sums = servers.gather(part.sha256, 0);
  auto const sizes = all_gather(std::vector{part.bytes}, servers);
  if (servers.rank() != 0) return;
  std::vector<CheckpointPart> parts;
  for (size_t i = 0; i < sums.size(); ++i) parts.push_back({sums[i], sizes[i]});
  publish_checkpoint(*f.output, "checkpoints", folder, own.round, parts, keep_last);
}

}  // namespace fsllm::detail
