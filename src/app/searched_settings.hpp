// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "fsllm/core/config.hpp"
#include "fsllm/fed/algorithm.hpp"
#include "fsllm/train/trainer.hpp"

namespace fsllm {

/// The file that `hpo.fedex.ss` names, found as that of llm.deepspeed.ds_config; "" where it names none, or
/// hpo.fedex.use is off.
std::string search_space_file(Config const& config, std::string const& yaml);

/// `config` with the text of that file as the value of hpo.fedex.ss, if there is one; a name that nothing
/// uses is dropped.
Config with_search_space(Config config, std::string_view text, std::string const& source);

/// What training means under each choice of the settings that a run searches (hpo.fedex), and for clients
/// that have keys of their own (--client_cfg), before which the searched ones go.
class SearchedSettings {
 public:
  /// Every setting of the run is read once: a key that may not differ by client, or a value that it does not
  /// take, is an Error.
  SearchedSettings(Config given, Config clients, std::vector<SearchedKey> keys);
  TrainConfig const& operator()(int64_t client, int64_t choice);

 private:
  TrainConfig load(std::string const& client, int64_t choice) const;

  Config given_, clients_;
  std::vector<SearchedKey> keys_;
  std::map<std::pair<std::string, int64_t>, TrainConfig> known_;  ///< client's name, or "" for the run's
};

}  // namespace fsllm
