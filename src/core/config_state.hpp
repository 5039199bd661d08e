// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config_yaml.hpp"
#include "fsllm/core/config.hpp"

namespace fsllm {

struct Config::State {
  detail::FlatYaml given;
  std::vector<KeyInfo> declared;
  std::map<std::string, size_t> declared_at;
  std::vector<std::pair<std::string, std::string>> resolved;  ///< path → YAML value, in order of declaration
  std::set<std::string> accepted_prefixes, left_out;
  std::vector<std::string> mistakes;
  bool collects = false, cut_short = false;
};

}  // namespace fsllm
