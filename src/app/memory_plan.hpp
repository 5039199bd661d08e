// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fsllm {

constexpr double kMiB = 1 << 20;

/// Bytes a parameter: fp32 training with Adam; mixed precision has {2, 2, 12}.
struct StateBytes {
  double weights = 4, gradients = 4, optimizer = 8;
  double sum() const { return weights + gradients + optimizer; }
};

/// The same a rank, where a group of `ranks` shares the optimiser's state (stage 1), gradients too (2) and
/// weights too (3): ZeRO (Rajbhandari et al. 2020, section 5).
StateBytes over_group(StateBytes const& each, int64_t ranks, int stage);

/// What a plan follows from. Bytes, unless said otherwise.
struct PlanInput {
  double process = 0;     ///< the program itself with its libraries
  double context = 0;     ///< of a GPU: the driver's own and libraries
  double mapped = 0;      ///< base weights, one copy for the ranks of a node
  double buffers = 0;     ///< panels of converted weights
  double parameters = 0;  ///< numbers that learn
  StateBytes each;        ///< of each of them
  bool full_model = false;
  double messages = 0;        ///< numbers that a client sends
  bool exact = true;          ///< messages are added as 64-bit integers
  bool one_client = false;    ///< of a rank in a round: sums in fp32 are touched when its steps are over
  double server_numbers = 0;  ///< of the global state: weights and what goes out beside them
  double client_state = 0, overlays = 0;
  double activations = 0;  ///< of the largest pass
  double frozen_rows = 0;  ///< rows of tokens that are kept behind frozen blocks, at most
  double one_block = 0;    ///< what a block that is computed again keeps meanwhile
  double working = 0;      ///< short-lived tensors beside
  double loss = 0;         ///< logits that are there at once
  int64_t group_ranks = 1;
  int zero_stage = 0;
  int64_t ranks_on_node = 1;
  int64_t passes = 1;       ///< of a step
  double compute = 4;       ///< a number of weights that compute
  double outside = 0;       ///< numbers of a trained model outside of its blocks
  double head = 0;          ///< of these, what has a gradient from the begin of the backward pass on
  double block = 0;         ///< numbers of its largest block
  double frozen = 0;        ///< bytes of frozen blocks that a group partitions
  double frozen_block = 0;  ///< of the largest of them
  bool gpu = false;         ///< passes and what they need are in a GPU's memory
  bool offload = false;     ///< fp32 parts, their gradients and the optimiser's state are not
};

enum class Place { rank, node, gpu };  ///< memory of a rank alone, shared by a node's ranks, of its GPU

struct MemoryItem {
  std::string what;
  double bytes = 0;
  Place place = Place::rank;
};

struct MemoryPlan {
  std::vector<MemoryItem> items;     ///< what is there at once when most is
  double rank = 0;                   ///< resident set of one rank, shared pages included
  double node = 0;                   ///< of all ranks of a node
  double gpu = 0;                    ///< of a rank's GPU
  double up = 0, down = 0;           ///< a rank and round
  double gathered = 0, reduced = 0;  ///< that a rank sends to others of its group in a step
};
MemoryPlan plan_memory(PlanInput const& input);

}  // namespace fsllm
