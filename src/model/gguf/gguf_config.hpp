// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json.hpp>

#include "fsllm/io/gguf.hpp"

namespace fsllm::detail {

/// The config.json that Hugging Face has for the model of a GGUF file. An architecture that this version does
/// not have, and numbers that it cannot take over, are Errors that name the file.
nlohmann::json gguf_config(GgufReader const& file);

/// Are q and k rows interleaved for rotary positions (pairs 2i, 2i+1), where Hugging Face has halves?
bool has_interleaved_rows(GgufReader const& file);

}  // namespace fsllm::detail
