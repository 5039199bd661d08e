// SPDX-License-Identifier: Apache-2.0
#include "references.hpp"

#include <fmt/core.h>

#include "fsllm/comm/stall.hpp"
#include "fsllm/train/loss.hpp"

namespace fsllm::detail {

std::vector<double> const& References::operator()(int64_t client, std::string const& split,
                                                  TokenSplit const& rows) {
  auto const [place, is_new] = known_.try_emplace({client, split});
  auto& values = place->second;
  if (!is_new || !rows.pairs) return values;
  set_activity(fmt::format("scoring the rows of client {} by the model without adapter", client));
  if (overlay_ != nullptr) overlay_->lift();
  f_.without_adapter([&] { values = row_losses(f_.model, rows, f_.train_config(client).batch); });
  if (overlay_ != nullptr) overlay_->lay();
  return values;
}

}  // namespace fsllm::detail
