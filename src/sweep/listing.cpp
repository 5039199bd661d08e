// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/error.hpp"
#include "fsllm/sweep/report.hpp"

namespace fsllm {

std::string list_text(Sweep const& sweep) {
  std::string text;
  for (auto const& run : sweep.runs)
    text +=
        fmt::format("{:4}  {:7}  {}/{}\n", run.index, name_of(sweep.state(run)), sweep.spec.outdir, run.name);
  return text;
}

std::string list_json(Sweep const& sweep) {
  std::string text;
  for (auto const& run : sweep.runs) {
    nlohmann::ordered_json row{{"index", run.index},
                               {"dir", sweep.spec.outdir + "/" + run.name},
                               {"keys", keys_json(sweep.settings[run.setting])},
                               {"seed", run.seed},
                               {"state", name_of(sweep.state(run))}};
    if (auto choices = choices_json(sweep.settings[run.setting]); !choices.empty())
      row["choices"] = std::move(choices);
    if (sweep.spec.halving) row["rounds"] = sweep.rounds[run.setting];
    text += row.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  return text;
}

}  // namespace fsllm
