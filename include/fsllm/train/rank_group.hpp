// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/comm/collective.hpp"
#include "fsllm/core/config.hpp"
#include "fsllm/data/batch.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// Keys `hpc.ranks_per_client`, `hpc.zero_stage`, `hpc.offload`.
struct GroupConfig {
  int64_t ranks = 1;
  int64_t stage = 0;
  std::string offload = "none";
};
GroupConfig load_group_config(Config& config);

/// What a RankGroup shares out.
struct GroupModel {
  bool trained = false;               ///< every parameter of the model is trained; else an adapter on it
  std::string compute_type = "fp32";  ///< in which trained parameters travel and compute
};

/// The ranks that train one client together: each computes the loss of its rows of every batch, and gradients
/// are summed (data parallelism). By ZeRO (Rajbhandari et al. 2020) they also partition what training keeps:
/// from stage 1 the trained model's fp32 values and optimiser state, from 2 its gradients, at 3 the blocks'
/// weights, which are gathered block by block, the next one while one computes. An adapter is small: every
/// rank has all of it, and stage 3 partitions the frozen blocks below. From end_backward() on
/// members are Collective.
class RankGroup {
 public:
  /// `collective` joins the ranks of the group; it and `model` must outlive the object. From now on passes of
  /// `model` are Collective.
  RankGroup(Collective& collective, CausalLM& model, GroupConfig const& config, GroupModel const& what);
  ~RankGroup();
  RankGroup(RankGroup const&) = delete;
  RankGroup& operator=(RankGroup const&) = delete;

  int rank() const;
  int size() const;
  Collective& collective() const;
  /// Are parameters() parts of tensors, one-dimensional, and of the same names on every rank?
  bool partitions() const;
  /// What is trained of the model, as this rank has it: whole tensors, or parts of partition_size() elements
  /// whose padding is 0. Live, require gradients; empty where an adapter is trained.
  TensorMap parameters() const;
  /// parameters() have been given other values.
  void note_change();
  /// Shapes of the whole parameters.
  std::map<std::string, std::vector<int64_t>> const& shapes() const;

  /// This rank's rows of a batch of the group's. Where it has none with a target: rows of others, as passes
  /// are collective, which must not count.
  struct Share {
    Batch batch;
    bool counts = true;
  };
  Share share_of(Batch const& batch) const;
  /// After the backward pass of each of a step's batches, and when all are done: then the gradients of
  /// `parameters` are those of the group.
  void end_backward();
  void sum_gradients(TensorMap const& parameters);
  /// After the last step of a client: what follows may have the memory of the parts' gradients.
  void end_training();
  /// Σ over ranks, in their order.
  double sum(double value) const;
  bool any(bool value) const;
  /// L2 norm of all values laid out as parameters() are, given that of this rank's.
  double norm(double own) const;
  /// A whole parameter from the ranks' parts, on rank 0; elsewhere undefined.
  at::Tensor gathered(std::string const& name, at::Tensor const& part) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fsllm
