// SPDX-License-Identifier: Apache-2.0
#include "participants.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"

namespace fsllm {

std::vector<int64_t> participants(FedConfig const& config, ClientData const& data) {
  auto const& all = data.clients();
  if (config.only_client == 0) return all;
  FSLLM_CHECK(std::find(all.begin(), all.end(), config.only_client) != all.end(),
              "federate.client_idx_for_local_train = {} (there are clients 1 to {}). Choose one of them.",
              config.only_client, all.back());
  return {config.only_client};
}

std::vector<std::string> splits_with_rows(FedConfig const& config, ClientData const& data,
                                          std::vector<int64_t> const& clients) {
  std::vector<std::string> splits;
  for (auto const& split : config.selection.splits) {
    bool const rows = std::any_of(clients.begin(), clients.end(), [&](int64_t client) {
      auto const& summary = data.summary(client);
      return (split == "val" ? summary.val : summary.test).rows > 0;
    });
    if (rows && std::find(splits.begin(), splits.end(), split) == splits.end()) splits.push_back(split);
  }
  FSLLM_CHECK(!splits.empty() || !config.sampler.uses_losses(),
              "federate.sampler = {} (no validation or test rows: no client's loss is ever known). Set "
              "data.splits, or choose another sampler.",
              config.sampler.name);
  if (splits.empty())
    log_info(
        "no validation or test rows (data.splits): nothing is evaluated, no best model is chosen, the run "
        "never stops early");
  return splits;
}

}  // namespace fsllm
