// SPDX-License-Identifier: Apache-2.0
// Text requests on a real trained model with its real tokenizer.
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "fixture.hpp"
#include "fsllm/eval/requests.hpp"
#include "fsllm/io/jsonl.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

TEST(StoriesRequests, TextScoresAgreeWithTheReference) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  auto const dir = test_data("models/stories260K");
  auto const model = load_model(dir);
  auto const tokenizer = load_tokenizer(dir);
  std::vector<Request> requests;
  std::vector<double> golden;
  auto const forward = read_json(dir / "golden/forward.json");
  for (auto const& item : forward.at("cases")) {
    auto const nll = item.at("nll").get<std::vector<double>>();
    golden.push_back(-std::accumulate(nll.begin(), nll.end(), 0.0));
    requests.push_back(
        {"golden", json{{"id", 0}, {"type", "loglikelihood_rolling"}, {"text", item.at("text")}}.dump()});
    golden.push_back(golden.back());
    requests.push_back(
        {"golden",
         json{{"id", 0}, {"type", "loglikelihood"}, {"context", ""}, {"continuation", item.at("text")}}
             .dump()});
  }
  ASSERT_EQ(requests.size(), 10U);
  auto const answers = answer_requests(*model, tokenizer.get(), requests, 60);
  for (size_t i = 0; i < answers.size(); ++i)
    EXPECT_NEAR(json::parse(answers[i]).at("loglikelihood").get<double>(), golden[i],
                1e-5 * std::abs(golden[i]) + 1e-4)
        << requests[i].json;
}

TEST(StoriesRequests, StopStringsCutTheStory) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  auto const dir = test_data("models/stories260K");
  auto const model = load_model(dir);
  auto const tokenizer = load_tokenizer(dir);
  json const request = {{"id", 0},
                        {"type", "generate_until"},
                        {"context", "Once upon a time"},
                        {"until", {"."}},
                        {"max_tokens", 60}};
  auto const answers = answer_requests(*model, tokenizer.get(), {{"line", request.dump()}});
  EXPECT_EQ(json::parse(answers[0]).at("text"), ", there was a little girl named Lily");
}

}  // namespace
}  // namespace fsllm::test
