// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

/// How many settings the values of all keys make, and the value of each key (an index) in one of them.
int64_t settings_of(std::vector<SearchedKey> const& keys);
std::vector<size_t> values_of(std::vector<SearchedKey> const& keys, int64_t choice);

/// The setting that a client trains with in a round: a pure function of the seed and of what the server sent.
int64_t draw_setting(std::vector<SearchedKey> const& keys, ServerState const& server, uint64_t seed,
                     int64_t client, int64_t round);

/// Key → {value, probability} of the likeliest values, for summary.json.
nlohmann::ordered_json likeliest_settings(std::vector<SearchedKey> const& keys, ServerState const& server);

}  // namespace fsllm
