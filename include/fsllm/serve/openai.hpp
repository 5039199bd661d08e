// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "fsllm/serve/engine.hpp"
#include "fsllm/serve/http_server.hpp"
#include "fsllm/serve/served_model.hpp"

namespace fsllm {

/// OpenAI's paths /v1/models, /v1/completions and /v1/chat/completions, and /health. Both arguments outlive
/// the server.
std::vector<HttpRoute> openai_routes(std::vector<ServedModel> const& models, Engine& engine);

}  // namespace fsllm
