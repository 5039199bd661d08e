// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/generate.hpp"

#include <algorithm>

#include "fsllm/model/running_batch.hpp"
#include "sampling.hpp"

namespace fsllm {

std::vector<std::vector<int32_t>> generate(CausalLM& model, std::vector<GenerateRow> const& rows,
                                           GenerateOptions const& options) {
  for (auto const& row : rows) detail::check_row(model.config(), row);
  RunningBatch batch(model, {options.most_rows, options.most_tokens, options.stop_ids});
  for (auto const& row : rows) batch.join(row);
  std::vector<std::vector<int32_t>> answers(rows.size());
  while (!batch.idle()) {
    for (auto const& event : batch.step()) {
      if (!event.token) continue;
      auto& answer = answers[static_cast<size_t>(event.row)];
      answer.push_back(*event.token);
      if (options.stop && options.stop(event.row, answer)) batch.leave(event.row);
    }
  }
  return answers;
}

}  // namespace fsllm
