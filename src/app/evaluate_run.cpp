// SPDX-License-Identifier: Apache-2.0
// What an evaluation takes from a run and from the adapters themselves.
#include <algorithm>

#include "fsllm/app/adapter_info.hpp"
#include "fsllm/app/evaluate.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/data/splitter.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

fs::path result_in(fs::path const& result, std::string const& mark) {
  FSLLM_CHECK(fs::exists(result),
              "{} is not there (the run has not ended). Continue it with fsllm_hpc --resume {}, or score its "
              "best round so far with --adapter.",
              result.string(), result.parent_path().string());
  FSLLM_CHECK(
      fs::exists(result / mark),
      "{} holds no {} (federate.method local trains one for each client). Choose a client's folder in "
      "there with --adapter.",
      result.string(), mark);
  return result;
}

std::string name_of(TemplateConfig const& config) {
  return make_prompt_template(config).name;
}

/// Warns where the adapter was trained on quantised weights and is scored on others.
void warn_of_type(Candidate const& candidate, AdapterInfo const& info, std::string const& storage) {
  auto const& trained = info.storage_dtype;
  if (candidate.adapter.empty() || (trained != "int8" && trained != "nf4") || storage == trained) return;
  log_warning(
      "{}: trained on {} weights, scored on others (--storage_dtype {} gives the model that was trained)",
      candidate.name, trained, trained);
}

}  // namespace

EvaluatedRun read_run(fs::path const& dir) {
  RunDirectory const directory{dir};
  FSLLM_CHECK(directory.holds_run(),
              "--run {} (it holds no run: there is no config.yaml). Give a run directory, which is "
              "outdir/expname.",
              dir.string());
  auto config = Config::parse(read_file(directory.config()), directory.config().string());
  auto const run = load_run_config(config);
  EvaluatedRun found;
  if (run.peft.method.empty()) {
    found.model_dir = result_in(directory.model(), "config.json");
  } else {
    found.adapter = result_in(directory.adapter(), "adapter_config.json");
    auto const info = read_adapter_info(found.adapter);
    found.model_dir = info && fs::exists(info->base_model) ? fs::path(info->base_model) : resolve_model(run);
    found.storage_dtype = run.storage_dtype;
  }
  found.compute_dtype = run.compute_dtype == "auto" ? "fp32" : run.compute_dtype;
  found.data = run.data;
  found.client_num = run.fed.client_num;
  found.seed = run.fed.seed;
  if (!run.shard_roots.empty()) found.data.shards = run.shard_roots.front();
  return found;
}

std::vector<Sample> test_rows(EvaluatedRun const& run, fs::path const& dir) {
  FSLLM_CHECK(run.data.shards.empty(),
              "--run {} (it was trained on ready shards, {}, which hold tokens and no rows). Give the rows "
              "with --tasks FILE.jsonl.",
              dir.string(), run.data.shards);
  RowTable table;
  std::vector<Sample> all, rows;
  for_each_sample(run.data, [&](Sample&& sample) {
    table.add(sample, sample.record);
    all.push_back(std::move(sample));
  });
  for (auto const row : plan_split(table, run.data, run.client_num, run.seed).server.test)
    rows.push_back(std::move(all[static_cast<size_t>(row)]));
  FSLLM_CHECK(!rows.empty(),
              "--run {} (its data.splits kept no rows for a test). Give rows with --tasks FILE.jsonl.",
              dir.string());
  return rows;
}

void choose_templates(EvaluateJob& job, std::string const& chosen) {
  std::vector<std::optional<AdapterInfo>> infos;
  std::optional<TemplateConfig> first;
  for (auto const& candidate : job.candidates) {
    infos.push_back(read_adapter_info(candidate.adapter.empty() ? job.model_dir : candidate.adapter));
    if (!first && infos.back()) first = infos.back()->prompt;
  }
  for (size_t i = 0; i < job.candidates.size(); ++i) {
    auto& candidate = job.candidates[i];
    auto const own = infos[i] ? infos[i]->prompt : std::nullopt;
    std::string why = "it was trained with that";
    if (!chosen.empty()) {
      candidate.prompt.name = chosen;
      candidate.prompt.model = job.model_dir.string();
      why = "--prompt_template";
    } else if (own) {
      candidate.prompt = *own;
    } else if (candidate.adapter.empty() && first) {
      candidate.prompt = *first;
      why = "that of the adapter";
    } else {
      why = "its folder does not say what it was trained with; --prompt_template chooses another";
    }
    auto const name = name_of(candidate.prompt);
    if (own && name_of(*own) != name)
      log_warning(
          "{}: prompt template {} (it was trained with {}). Leave --prompt_template out to score it "
          "with its own.",
          candidate.name, name, name_of(*own));
    else
      log_info("{}: prompt template {} ({})", candidate.name, name, why);
    if (infos[i]) warn_of_type(candidate, *infos[i], job.load.storage_dtype);
  }
}

}  // namespace fsllm
