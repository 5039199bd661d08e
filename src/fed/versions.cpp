// SPDX-License-Identifier: Apache-2.0
// Global states of earlier rounds, which turns at work began with.
#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/asynchronous.hpp"
#include "run.hpp"

namespace fsllm::detail {

ServerState const& RunState::version(int64_t version) const {
  auto const found = earlier.find(version);
  FSLLM_ASSERT(found != earlier.end() || version == done);
  return found == earlier.end() ? server : found->second;
}

namespace {

/// Names of a version's sections in a checkpoint.
std::string section(int64_t version) {
  return fmt::format("version_{:06d}", version);
}
std::string extra_section(int64_t version) {
  return section(version) + ".extra";
}

}  // namespace

/// Before the global state moves on from that of `round`: of the versions so far those stay that turns at
/// work began with.
void Run::keep_versions(int64_t round) {
  auto const used = versions_in_use(config_.asyn, state_.schedule.clock, round + 1);
  auto const is_used = [&](int64_t version) { return std::ranges::binary_search(used, version); };
  std::erase_if(state_.earlier, [&](auto const& each) { return !is_used(each.first); });
  if (!is_used(round)) return;
  auto& kept = state_.earlier[round] = {clone(state_.server.weights), clone(state_.server.extra)};
  if (f_.rest_on_host) kept = {moved(kept.weights, at::kCPU), moved(kept.extra, at::kCPU)};
}

/// Collective: the versions that turns at work began with.
void Run::restore_versions(Checkpoint const& checkpoint) {
  for (int64_t const version : versions_in_use(config_.asyn, state_.schedule.clock, state_.done)) {
    auto& kept = state_.earlier[version] = {clone(state_.server.weights), clone(state_.server.extra)};
    if (server()) {
      copy_values(kept.weights, checkpoint.tensors.at(section(version)));
      copy_values(kept.extra, checkpoint.tensors.at(extra_section(version)));
    }
    broadcast(kept.weights, kept.extra);
  }
}

void Run::save_versions(Checkpoint& checkpoint) const {
  for (auto const& [version, state] : state_.earlier) {
    checkpoint.tensors[section(version)] = state.weights;
    checkpoint.tensors[extra_section(version)] = state.extra;
  }
}

}  // namespace fsllm::detail
