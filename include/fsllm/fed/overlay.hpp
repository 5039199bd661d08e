// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/core/tensor_map.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// What a run adds to frozen matrices beyond LoRA's factors, in fp32 and once a node: the modules compute
/// with W + overlay, which is made anew from both after each change, so that nothing is rounded away over
/// rounds.
class Overlay {
 public:
  /// Collective over `world`. The overlay of each of these modules begins with 0.
  Overlay(CausalLM& model, std::vector<std::string> const& modules, Communicator const& world);
  ~Overlay();

  /// Collective: adds "MODULE.left" [out, n] · "MODULE.right" [n, in], given on rank 0 alone.
  void add(TensorMap const& change);
  /// Collective: the values of a checkpoint, given on rank 0 alone.
  void load(TensorMap const& values);
  /// On this rank alone: the modules as they were loaded, and again with the overlay. Nothing is added or
  /// loaded in between.
  void lift() { exchange(); }
  void lay() { exchange(); }
  /// Module → [out, in]: views.
  TensorMap values() const;

 private:
  struct Module;
  struct Memory;
  void apply();
  void exchange();

  Communicator node_, leaders_;
  std::unique_ptr<Memory> memory_;
  std::vector<Module> modules_;
};

}  // namespace fsllm
