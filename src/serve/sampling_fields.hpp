// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/serve/completion_request.hpp"
#include "request_fields.hpp"

namespace fsllm::detail {

/// Limits of one request.
inline constexpr int64_t kMostChoices = 128, kMostLogprobs = 20, kMostRows = 512;
inline constexpr size_t kMostStops = 64, kLongestStop = 1024;

/// The model that the request names; the first where it names none.
size_t read_model(RequestFields& fields, std::vector<ServedModel> const& models);
/// What both kinds of requests share: n, temperature, top_p, top_k, repetition_penalty, seed, stop, stream.
void read_sampling(RequestFields& fields, ServedModel const& model, CompletionRequest& request);
/// Tokenises `text`; an Error of the tokenizer is the client's.
std::vector<int32_t> encode_text(ServedModel const& model, std::string const& text, bool add_special_tokens,
                                 char const* field);
/// Refuses what does not fit into the model's positions, or has no token at all.
void check_room(CompletionRequest const& request, ServedModel const& model, char const* field);

}  // namespace fsllm::detail
