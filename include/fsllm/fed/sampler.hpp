// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"
#include "fsllm/core/table.hpp"

namespace fsllm {

/// A client that may train in this run.
struct TrainingClient {
  int64_t id = 0;
  double rows = 0;     ///< that it trains on
  double seconds = 0;  ///< of virtual time for one turn
  int64_t steps = 0;   ///< of a turn's training
};

/// Keys `federate.sampler*`: who trains in a round.
struct SamplerConfig {
  std::string name = "uniform";  ///< row of the sampler table
  int64_t candidates = 0;        ///< of power_of_choice; 0: twice the sample
  bool uses_losses() const;
};
SamplerConfig load_sampler_config(Config& config);

/// One draw of `wanted` of the clients `from`, who are in the order of their ids and more than that.
struct Draw {
  uint64_t seed = 0;
  int64_t round = 0, number = 0;  ///< round, and draw within it: the key of the random stream
  std::vector<TrainingClient> from;
  size_t wanted = 0;
  size_t candidates = 0;  ///< at least `wanted`
};

/// What samplers remember, the same on every rank.
struct SamplerState {
  int64_t position = 0;              ///< clients that `group` has passed by since the run began
  std::map<int64_t, double> losses;  ///< newest known mean loss per target of each client
};

/// Without replacement, in any order.
struct Sampler {
  std::vector<TrainingClient> (*draw)(Draw const& draw, std::vector<TrainingClient> const& all,
                                      SamplerState& state) = nullptr;
  bool uses_losses = false;
};

/// One row per value of federate.sampler.
std::vector<Row<Sampler>> const& sampler_table();

/// `wanted` of `draw.from` in the order of their ids: all of them where that many are wanted, else as the
/// sampler has it. `all` are the clients of the run.
std::vector<TrainingClient> draw_clients(SamplerConfig const& config, Draw draw,
                                         std::vector<TrainingClient> const& all, SamplerState& state);

}  // namespace fsllm
