// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/generate.hpp"

#include "beam_search.hpp"
#include "fsllm/model/running_batch.hpp"
#include "sampling.hpp"

namespace fsllm {

std::vector<std::vector<int32_t>> generate(CausalLM& model, std::vector<GenerateRow> const& rows,
                                           GenerateOptions const& options) {
  for (auto const& row : rows) detail::check_row(model.config(), row);
  RunningBatch batch(model, {options.most_rows, options.most_tokens, options.stop_ids});
  std::vector<std::vector<int32_t>> answers(rows.size());
  std::vector<int64_t> row_of;  // by number in the batch
  for (size_t row = 0; row < rows.size(); ++row) {
    auto const number = static_cast<int64_t>(row);
    if (rows[row].num_beams > 1) {
      answers[row] = detail::beam_search(model, rows[row], number, options);
      continue;
    }
    batch.join(rows[row]);
    row_of.push_back(number);
  }
  while (!batch.idle()) {
    for (auto const& event : batch.step()) {
      if (!event.token) continue;
      auto const row = row_of[static_cast<size_t>(event.row)];
      auto& answer = answers[static_cast<size_t>(row)];
      answer.push_back(*event.token);
      if (options.stop && options.stop(row, answer)) batch.leave(event.row);
    }
  }
  return answers;
}

}  // namespace fsllm
