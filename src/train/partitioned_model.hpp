// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/comm/collective.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "fsllm/train/rank_group.hpp"

namespace fsllm::detail {

/// The weights of a model over the ranks of a group. Each tensor is cut into equal parts; a rank keeps its
/// own (trained: in fp32) and, for as long as they are needed, whole tensors in the compute type, of which
/// the model's parameters are views. Blocks (`LayerHooks`) come and go at stage 3; else, and what is outside
/// of blocks always, whole tensors stay and are renewed when parts have changed.
class PartitionedModel final : public LayerHooks {
 public:
  /// Replaces all parameters of `model`, or, where it is frozen, those of its blocks.
  PartitionedModel(Collective& collective, CausalLM& model, GroupConfig const& config,
                   GroupModel const& what);

  void before_pass() override;
  void before_forward(int64_t layer) override;
  void after_forward(int64_t layer) override;
  void before_backward(int64_t layer) override;
  void after_backward(int64_t layer) override;
  /// After a backward pass: reduces what is left (from stage 2), and lets blocks go.
  void end_backward();
  /// Stage 1: reduces the gradients of all passes.
  void sum_gradients();
  void drop_gradients();
  /// Parts have other values: whole tensors that stay are renewed before the next pass.
  void note_change();
  /// The trained parts by name.
  TensorMap parts() const;
  std::map<std::string, std::vector<int64_t>> const& shapes() const { return shapes_; }

 private:
  struct Part {
    std::string name;
    at::Tensor part;   ///< [partition_size], of this rank
    at::Tensor whole;  ///< [ranks · partition_size]; its storage may be empty. No graph counts its versions
    at::Tensor live;   ///< the model's parameter: a view of it
    at::Tensor sum;    ///< memory of the part's gradient
  };
  struct Unit {
    std::vector<Part> parts;
    bool stays = false;  ///< whole tensors are never let go
    bool there = false;
    std::unique_ptr<Exchange> coming;
  };
  void add(Unit& unit, CausalLM& model, std::string const& name, at::Tensor const& values);
  void gather(Unit& unit);
  void await(Unit& unit);
  void release(Unit& unit);
  void reduce(Unit& unit);
  void await_reduction();
  at::Tensor own_place(Part const& part) const;
  void fill_storage(at::Tensor const& whole);
  void empty_storage(at::Tensor const& whole);

  Collective& collective_;
  int rank_, ranks_;
  int64_t stage_;
  bool trained_, on_host_;  ///< on_host_: parts of what lies on a GPU
  at::ScalarType compute_;
  std::map<std::string, std::vector<int64_t>> shapes_;
  std::vector<Unit> blocks_;
  Unit outside_;
  std::unique_ptr<Exchange> reduction_;
  /// Memory by its bytes that blocks have let go: between what lives longer, malloc would not find it again.
  std::multimap<size_t, at::DataPtr> idle_;
};

}  // namespace fsllm::detail
