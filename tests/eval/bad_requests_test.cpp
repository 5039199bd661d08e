// SPDX-License-Identifier: Apache-2.0
#include "character_tokenizer.hpp"
#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/eval/requests.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

struct BadRequest {
  std::string json, message;
  bool has_tokenizer = false;
};

class BadRequests : public testing::TestWithParam<BadRequest> {};

TEST_P(BadRequests, AreNamedWithTheirPlace) {
  static auto const model = load_model(load_reference("llama").dir);
  CharacterTokenizer tokenizer;
  tokenizer.bos = 1;
  auto const& bad = GetParam();
  EXPECT_ERROR(answer_requests(*model, bad.has_tokenizer ? &tokenizer : nullptr, {{"in.jsonl:7", bad.json}}),
               "in.jsonl:7: " + bad.message);
}

std::string score(std::string const& fields) {
  return R"({"id": 1, "type": "loglikelihood", )" + fields + "}";
}
std::string generation(std::string const& fields) {
  return R"({"id": 1, "type": "generate_until", )" + fields + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Eval, BadRequests,
    testing::Values(
        BadRequest{"{", "not a JSON object"}, BadRequest{"[1]", "not a JSON object"},
        BadRequest{R"({"type": "loglikelihood"})", "'id' is missing"},
        BadRequest{R"({"id": 1})", "'type' is missing"},
        BadRequest{R"({"id": 1, "type": 3})", "'type' is not a text"},
        BadRequest{R"({"id": 1, "type": "loglikelyhood"})",
                   "type = 'loglikelyhood' (not a kind of request). Did you mean 'loglikelihood'?"},
        BadRequest{score(R"("context_ids": [1])"), "'continuation_ids' is missing"},
        BadRequest{score(R"("context_ids": [1], "continuation_ids": 5)"),
                   "'continuation_ids' is not a list of token ids"},
        BadRequest{score(R"("context_ids": [1], "continuation_ids": [96])"),
                   "'continuation_ids' holds 96 (token ids of this model are 0 .. 95)"},
        BadRequest{score(R"("context_ids": [-1], "continuation_ids": [5])"), "'context_ids' holds -1"},
        BadRequest{score(R"("context_ids": [1.5], "continuation_ids": [5])"), "'context_ids' holds 1.5"},
        BadRequest{score(R"("context_ids": [1e300], "continuation_ids": [5])"), "'context_ids' holds 1e+300"},
        BadRequest{score(R"("context_ids": [], "continuation_ids": [5])"), "'context_ids' is empty"},
        BadRequest{score(R"("context_ids": [5], "continuation_ids": [])"), "an empty continuation"},
        BadRequest{score(R"("context": "a", "continuation": "b")"),
                   "a text (the model's folder holds no tokenizer)"},
        BadRequest{score(R"("context": "a")"), "'continuation' is missing", true},
        BadRequest{score(R"("context": "xa", "continuation": "b")"), "an empty continuation", true},
        BadRequest{score("\"context\": \"x\", \"continuation\": \"" + std::string(65, 'y') + "\""),
                   "a continuation of 65 tokens (the model has 64 positions)", true},
        BadRequest{R"({"id": 1, "type": "loglikelihood_rolling"})", "'text' is missing"},
        BadRequest{generation(R"("until": [])"), "'context' is missing"},
        BadRequest{generation(R"("context_ids": [], "max_tokens": 256)"),
                   "max_tokens = 256 (the model has 64 positions"},
        BadRequest{generation(R"("context_ids": [], "max_tokens": 3)"), "'context_ids' is empty"},
        BadRequest{generation(R"("context_ids": [4], "max_tokens": -3)"),
                   "'max_tokens' = -3 (a whole number from 0 is needed)"},
        BadRequest{generation(R"("context_ids": [4], "max_tokens": 3, "temperature": -1)"),
                   "'temperature' = -1 (a number from 0 is needed)"},
        BadRequest{generation(R"("context_ids": [4], "top_p": 1.5)"), "'top_p' = 1.5 (a probability above 0"},
        BadRequest{generation(R"("context_ids": [4], "top_p": 0)"), "'top_p' = 0 (a probability above 0"},
        BadRequest{generation(R"("context_ids": [4], "top_k": 1.5)"), "'top_k' = 1.5 (a whole number from 0"},
        BadRequest{generation(R"("context_ids": [4], "repetition_penalty": 0)"), "'repetition_penalty' = 0"},
        BadRequest{generation(R"("context_ids": [4], "max_tokens": 3, "seed": "x")"), "'seed' = \"x\""},
        BadRequest{generation(R"("context_ids": [4], "max_tokens": 3, "until": ["a"])"),
                   "'until' (stop strings need a tokenizer"},
        BadRequest{generation(R"("context_ids": [4], "max_tokens": 3, "until": [3])"),
                   "'until' holds 3 (a text is needed)"}));

}  // namespace
}  // namespace fsllm::test
