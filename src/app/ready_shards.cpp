// SPDX-License-Identifier: Apache-2.0
#include "ready_shards.hpp"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <set>

#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/shard.hpp"

namespace fsllm {
namespace {

/// The folders of ready shards that this rank opens.
std::vector<std::string> folders_of(Setup const& s, Communicator const& comm) {
  if (!s.run.data.shards.empty()) return {s.run.data.shards};
  return own_roots(s.run.shard_roots, comm);
}

bool is_given(Config const& config, std::string const& key) {
  return config.text(key).has_value() || config.list_size(key) > 0;
}

void check_template(Setup const& s, ShardIndex const& index, std::string const& folder) {
  auto const& config = *s.config;
  std::string given;
  for (auto const* key : {"data.prompt_template", "data.custom_template", "data.chat_template"})
    if (given.empty() && is_given(config, key)) given = key;
  if (given.empty() || index.prompt_template.empty()) return;
  auto const wanted = make_prompt_template(s.run.data.prompt).name;
  FSLLM_CHECK(wanted == index.prompt_template,
              "{} = {} (the shards in {} were made with the prompt template {}). Leave it out, or shard "
              "again: fsllm_shard.",
              config.where(given), s.run.data.prompt.name, folder, index.prompt_template);
}

/// What the shards say of a key, and where the configuration has it.
struct Fact {
  std::string key, of_shards, of_config;
};

std::vector<Fact> facts(DataConfig const& data, ShardIndex const& index) {
  return {{"data.type", index.dataset, data.type()},
          {"data.splitter", index.splitter, data.splitter},
          {"llm.tok_len", std::to_string(index.tok_len), std::to_string(data.tok_len)}};
}

void check_pairs(Setup const& s, ShardIndex const& index, std::string const& folder) {
  FSLLM_CHECK(index.pairs == s.run.data.pairs, "train.loss = {} (the shards in {} hold {}). {}",
              name_of(s.run.train.loss), folder, index.pairs ? "pairs of answers" : "rows with one answer",
              index.pairs ? "Set it to dpo or reward, or shard again with train.loss: causal_lm."
                          : "Shard again with that train.loss, from rows of prompt, chosen and rejected.");
}

void warn_of_settings_without_effect(Setup const& s, ShardIndex const& index, std::string const& folder) {
  std::vector<std::string> differ;
  for (auto const& [key, of_shards, of_config] : facts(s.run.data, index))
    if (is_given(*s.config, key) && of_shards != of_config)
      differ.push_back(fmt::format("{} = {} (there: {})", key, of_config, of_shards));
  if (!differ.empty())
    log_warning("the shards in {} were made with other settings, and are used as they are: {}.", folder,
                fmt::join(differ, ", "));
}

void take_settings(Setup& s, ShardIndex const& index) {
  auto& config = *s.config;
  auto const take = [&](std::string const& key, auto& into, auto const& value) {
    if (is_given(config, key)) return;
    into = value;
    config.set_resolved(key, fmt::format("{}", value));
  };
  auto type = s.run.data.type();
  take("data.type", type, index.dataset);
  if (type != s.run.data.type()) s.run.data.types = {type};
  take("data.splitter", s.run.data.splitter, index.splitter);
  take("llm.tok_len", s.run.data.tok_len, index.tok_len);
  if (!index.prompt_json.empty()) {
    auto const prompt =
        template_from_json(nlohmann::json::parse(index.prompt_json), "index.json of the shards");
    bool const named = prompt.custom_prompt.empty() && prompt.chat_text.empty();
    if (named) take("data.prompt_template", s.run.data.prompt.name, prompt.name);
  }
}

}  // namespace

bool has_ready_shards(Setup const& s) {
  return !s.run.data.shards.empty() || !s.run.shard_roots.empty();
}

void take_settings_of_shards(Setup& s, Communicator const& comm) {
  for (auto const& folder : folders_of(s, comm)) {
    bool const found_later = !s.run.shard_roots.empty() && !std::filesystem::exists(folder + "/index.json");
    if (found_later) continue;  // by sources_at, which names the rank
    auto const index = read_shard_index(folder);
    check_pairs(s, index, folder);
    check_template(s, index, folder);
    if (comm.rank() == 0) warn_of_settings_without_effect(s, index, folder);
    if (!s.run.data.shards.empty()) take_settings(s, index);
  }
}

void check_client_count(Setup const& s, ClientData const& data) {
  auto const wanted = s.run.fed.client_num;
  auto const there = data.num_shards();
  FSLLM_CHECK(
      wanted == 0 || wanted == there || s.run.fed.algorithm.merges,
      "federate.client_num = {} (only {} client shards in {}). Lower it, or shard again with --clients {}.",
      wanted, there, s.run.shard_roots.empty() ? s.run.data.shards : "hpc.shard_roots", wanted);
}

std::optional<TemplateConfig> template_of_rows(Setup const& s, Communicator const& comm) {
  std::optional<TemplateConfig> prompt;
  std::set<std::string> found;
  std::string own;
  agree(comm, [&] {
    if (!has_ready_shards(s)) {
      prompt = self_contained(s.run.data.prompt);
      return;
    }
    auto const folders = folders_of(s, comm);
    if (!folders.empty()) own = read_shard_index(folders.front()).prompt_json;
  });
  for (auto& text : comm.all_gather(own))
    if (!text.empty()) found.insert(std::move(text));
  agree(comm, [&] {
    if (found.size() == 1)
      prompt = template_from_json(nlohmann::json::parse(*found.begin()), "index.json of the shards");
  });
  return prompt;
}

}  // namespace fsllm
