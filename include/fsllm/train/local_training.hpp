// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fsllm/train/rank_group.hpp"
#include "fsllm/train/trainer.hpp"
#include "fsllm/train/zeroth_order.hpp"

namespace fsllm {

/// What a federated algorithm does to the gradients of `parameters` after the backward pass: before clipping
/// and before the optimiser.
using GradientHook = std::function<void(TensorMap const& parameters)>;

/// How far a LocalTraining has come, beside the parameters.
struct TrainingState {
  TrainResult result;
  TensorMap optimizer;  ///< its state, and the loss scale
  std::vector<ZerothOrderMove> moves = {};
};

/// One client's work in a round as an object that steps, saves and goes on: what comes between two steps
/// (signals, progress, another client) is the caller's. A fresh optimiser for each object, unless its state
/// is loaded; losses are means per target token (pair) over the whole step, accumulation included. What a
/// step does depends on (configuration, data, ClientRound, parameters) alone.
class LocalTraining {
 public:
  /// `parameters` are live, require gradients and lie inside `model`. All references must outlive the object,
  /// as `reference`, what the reference model makes of the rows of pairs (row_losses). With a `group` all its
  /// ranks train the client together: every member that trains is Collective over them then.
  LocalTraining(CausalLM& model, TensorMap& parameters, TokenSplit const& data, TrainConfig const& config,
                ClientRound const& which, GradientHook hook = {}, std::span<double const> reference = {},
                RankGroup* group = nullptr);
  ~LocalTraining();
  LocalTraining(LocalTraining const&) = delete;
  LocalTraining& operator=(LocalTraining const&) = delete;

  /// Before the first step: the loss of row i of the data counts weights[i] times (the number of targets does
  /// not change).
  void weigh_rows(std::vector<double> weights);

  bool done() const;
  /// One optimiser step. A loss or gradient that is not finite skips it and is counted, gradients that
  /// overflow under a loss scale apart.
  StepResult step();
  /// What step() is made of, for clients that share a pass (shared_step): the rows of the next step, cut into
  /// forward passes (good until the next call); and, when its scaled gradients of the mean loss per target
  /// stand in `parameters`, the rest of it, given the summed loss.
  struct Prepared {
    std::span<Batch const> batches;
    int64_t tokens = 0, targets = 0;
    DropoutKey dropout;
    int64_t pairs = 0;      ///< 0 where rows have one answer
    double loss_scale = 1;  ///< what gradients are to be multiplied by
    int64_t terms() const { return pairs > 0 ? pairs : targets; }
  };
  Prepared prepare();
  StepResult finish(Prepared const& prepared, double sum);
  /// Wall-clock seconds of steps that the caller has timed.
  void add_seconds(double seconds);
  /// So far; when done() of the whole round, and then a warning has told of skipped steps.
  TrainResult result() const;
  /// MeZO's, a step each; none of other optimisers.
  std::vector<ZerothOrderMove> const& moves() const;
  /// Everything but the parameters, and back: the steps that follow are the same. With the result of 0 steps,
  /// a new round goes on with the optimiser of an earlier one. Live tensors.
  TrainingState state() const;
  void load_state(TrainingState const& state);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One step of each client that is not done, in shared passes. `slots` holds the clients' adapters side by
/// side (Peft::slots); clients[i] trains views of slot i.
struct SharedClient {
  LocalTraining* training;
  TensorMap* parameters;
};
std::vector<StepResult> shared_step(CausalLM& model, TensorMap const& slots,
                                    std::vector<SharedClient> const& clients);

}  // namespace fsllm
