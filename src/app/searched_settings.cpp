// SPDX-License-Identifier: Apache-2.0
#include "searched_settings.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "deepspeed.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/fed/settings_search.hpp"

namespace fsllm {
namespace {

constexpr char const* kSpace = "hpo.fedex.ss";

/// More are not read before a run, nor learnt in one.
constexpr int64_t kMostSettings = 10000;

Config setting(std::vector<SearchedKey> const& keys, int64_t choice) {
  auto config = Config::parse("", "");
  auto const values = values_of(keys, choice);
  for (size_t i = 0; i < keys.size(); ++i) config.set(keys[i].key, keys[i].values[values[i]]);
  return config;
}

}  // namespace

std::string search_space_file(Config const& config, std::string const& yaml) {
  if (!is_on(config, "hpo.fedex.use") || config.text(kSpace).value_or("").starts_with("{")) return "";
  return file_beside(config, kSpace, yaml).string();
}

Config with_search_space(Config config, std::string_view text, std::string const& source) {
  if (!is_on(config, "hpo.fedex.use") && config.text(kSpace)) config.set(kSpace, "");
  if (source.empty()) return config;
  return config.overridden_by(Config::parse(text, source, kSpace));
}

SearchedSettings::SearchedSettings(Config given, Config clients, std::vector<SearchedKey> keys)
    : given_(std::move(given)), clients_(std::move(clients)), keys_(std::move(keys)) {
  if (keys_.empty()) return;
  auto const all = settings_of(keys_);
  FSLLM_CHECK(all <= kMostSettings, "{} makes {} settings (most are {}). Leave values out.",
              given_.where(kSpace), all, kMostSettings);
  for (int64_t choice = 0; choice < all; ++choice) known_.emplace(std::pair("", choice), load("", choice));
}

TrainConfig SearchedSettings::load(std::string const& client, int64_t choice) const {
  auto const searched = setting(keys_, choice);
  auto of_run = given_;
  auto const run = load_train_config(of_run);
  Config declared = searched;  // no other key may differ by turn
  load_train_config(declared);
  declared.finish();
  auto merged = client.empty() ? given_.overridden_by(searched)
                               : given_.overridden_by(clients_.below(client)).overridden_by(searched);
  auto const train = load_train_config(merged);
  FSLLM_CHECK(
      train.loss == run.loss && train.zeroth_order() == run.zeroth_order() &&
          train.batch.packing == run.batch.packing,
      "{} (neither train.loss, dataloader.packing nor MeZO beside other optimisers may differ by turn). "
      "Leave them out.",
      given_.where(kSpace));
  return train;
}

TrainConfig const& SearchedSettings::operator()(int64_t client, int64_t choice) {
  auto name = fmt::format("client_{}", client);
  if (!clients_.has(name)) name.clear();
  std::pair const key(name, choice);
  auto const known = known_.find(key);
  return known != known_.end() ? known->second : known_.emplace(key, load(name, choice)).first->second;
}

}  // namespace fsllm
