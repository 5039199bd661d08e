// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/requests.hpp"

#include <nlohmann/json.hpp>

#include "character_tokenizer.hpp"
#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/eval/scoring.hpp"
#include "fsllm/model/generate.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

class Requests : public testing::Test {
 protected:
  Requests() : reference_(load_reference("llama")), model_(load_model(reference_.dir)) { tokenizer_.bos = 1; }
  std::vector<json> answers(std::vector<json> const& requests, Tokenizer const* tokenizer) {
    std::vector<Request> lines;
    for (auto const& request : requests) lines.push_back({"in.jsonl:1", request.dump()});
    std::vector<json> parsed;
    for (auto const& answer : answer_requests(*model_, tokenizer, lines, 50))
      parsed.push_back(json::parse(answer));
    return parsed;
  }
  json answer(json const& request) { return answers({request}, &tokenizer_).front(); }
  double score(std::vector<int32_t> const& ids, int64_t targets) {
    return score_rows(*model_, {{ids, targets}}, 4096).front().loglikelihood;
  }
  json loglikelihood(std::string const& context, std::string const& continuation) {
    return answer(
        {{"id", 0}, {"type", "loglikelihood"}, {"context", context}, {"continuation", continuation}});
  }
  Reference reference_;
  std::unique_ptr<CausalLM> model_;
  CharacterTokenizer tokenizer_;
};

TEST_F(Requests, AnswersComeInOrderWithTheirIds) {
  auto const all = answers(
      {{{"id", "a"}, {"type", "loglikelihood"}, {"context_ids", {5, 6}}, {"continuation_ids", {7, 8, 9}}},
       {{"id", {{"n", 1}}},
        {"type", "generate_until"},
        {"context_ids", {5, 6}},
        {"until", json::array()},
        {"max_tokens", 4}},
       {{"id", 3}, {"type", "loglikelihood_rolling"}, {"ids", {5, 6, 7}}}},
      nullptr);
  EXPECT_EQ(all[0].at("id"), "a");
  EXPECT_EQ(all[0].at("num_tokens"), 3);
  EXPECT_EQ(all[0].at("is_greedy"), false);
  EXPECT_NEAR(all[0].at("loglikelihood").get<double>(), score({5, 6, 7, 8, 9}, 3), 1e-5);
  EXPECT_EQ(all[1].at("id").at("n"), 1);
  EXPECT_EQ(all[1].at("ids").size(), 4U);
  EXPECT_FALSE(all[1].contains("text"));
  EXPECT_NEAR(all[2].at("loglikelihood").get<double>(), score({5, 6, 7}, 2), 1e-5);
  EXPECT_EQ(all[2].size(), 2U);
}

TEST_F(Requests, TextIsEncodedWholeAndSplitWhereTheContextEnds) {
  auto const plain = loglikelihood("xy", "zab");
  EXPECT_EQ(plain.at("num_tokens"), 2);
  EXPECT_NEAR(plain.at("loglikelihood").get<double>(), score({88, 89, 90, 95}, 2), 1e-5);
  // "xa" + "bz" is x, ab, z: of three tokens the context has two.
  auto const merged = loglikelihood("xa", "bz");
  EXPECT_EQ(merged.at("num_tokens"), 1);
  EXPECT_NEAR(merged.at("loglikelihood").get<double>(), score({88, 95, 90}, 1), 1e-5);
}

TEST_F(Requests, SpacesAtTheEndOfTheContextBelongToTheContinuation) {
  auto const moved = loglikelihood("xy  ", "z");
  EXPECT_EQ(moved.at("num_tokens"), 3);
  EXPECT_NEAR(moved.at("loglikelihood").get<double>(), score({88, 89, 0, 0, 90}, 3), 1e-5);
  EXPECT_EQ(loglikelihood("xy\xC2\xA0\xE3\x80\x80\n", "z").at("num_tokens"), 1)
      << "other white space has no tokens";
}

TEST_F(Requests, AnEmptyContextIsBosOrElseEos) {
  EXPECT_NEAR(loglikelihood("", "xy").at("loglikelihood").get<double>(), score({1, 88, 89}, 2), 1e-5);
  EXPECT_NEAR(loglikelihood(" ", "x").at("loglikelihood").get<double>(), score({1, 0, 88}, 2), 1e-5);
  tokenizer_.bos.reset();
  tokenizer_.eos = 2;
  EXPECT_NEAR(loglikelihood("", "xy").at("loglikelihood").get<double>(), score({2, 88, 89}, 2), 1e-5);
  tokenizer_.eos.reset();
  EXPECT_ERROR(loglikelihood("", "xy"), "in.jsonl:1: an empty context");
}

TEST_F(Requests, ATokenizerThatAddsBosPutsItOnce) {
  tokenizer_.adds_bos = true;
  EXPECT_NEAR(loglikelihood("x", "y").at("loglikelihood").get<double>(), score({1, 88, 89}, 1), 1e-5);
  EXPECT_NEAR(loglikelihood("", "y").at("loglikelihood").get<double>(), score({1, 89}, 1), 1e-5);
  auto const rolling = answer({{"id", 0}, {"type", "loglikelihood_rolling"}, {"text", "xy"}});
  EXPECT_NEAR(rolling.at("loglikelihood").get<double>(), score({1, 88, 89}, 2), 1e-5);
}

TEST_F(Requests, LongTextsRollThroughWindows) {
  std::string text;
  std::vector<int32_t> ids = {1};
  for (int i = 0; i < 150; ++i) {
    text += static_cast<char>('A' + i * 7 % 40);
    ids.push_back(text.back() - 32);
  }
  double expected = 0;  // 64 positions: tokens 1 .. 64, 65 .. 128, then 129 .. 150 behind as many as fit
  expected += score({ids.begin(), ids.begin() + 65}, 64);
  expected += score({ids.begin() + 64, ids.begin() + 129}, 64);
  expected += score({ids.begin() + 86, ids.end()}, 22);
  auto const rolling = answer({{"id", 0}, {"type", "loglikelihood_rolling"}, {"text", text}});
  EXPECT_NEAR(rolling.at("loglikelihood").get<double>(), expected, 1e-3);
  EXPECT_EQ(answer({{"id", 0}, {"type", "loglikelihood_rolling"}, {"text", ""}}).at("loglikelihood"), 0);
}

TEST_F(Requests, GenerationStopsAtStringsIdsAndLimits) {
  auto const& golden = reference_.greedy[0];
  std::vector<int32_t> const prompt(reference_.rows[0].begin(), reference_.rows[0].end());
  json request = {{"id", 0},
                  {"type", "generate_until"},
                  {"context_ids", prompt},
                  {"until", json::array()},
                  {"max_tokens", 12}};
  auto const whole = answer(request);
  EXPECT_EQ(whole.at("ids"), golden);
  auto const text = tokenizer_.decode(golden, true);
  EXPECT_EQ(whole.at("text"), text);
  auto const stop = text.substr(4, 2);
  request["until"] = {"never in it", stop};
  auto const cut = answer(request);
  EXPECT_EQ(cut.at("text"), text.substr(0, text.find(stop)));
  EXPECT_EQ(cut.at("ids").size(), text.find(stop) + 2);
  request["until"] = stop;
  EXPECT_EQ(answer(request), cut) << "one stop string instead of a list";
  tokenizer_.eos = golden[2];
  request["until"] = json::array();
  EXPECT_EQ(answer(request).at("ids").size(), 2U);
  request.erase("max_tokens");
  tokenizer_.eos.reset();
  EXPECT_LE(answer(request).at("ids").size(), 32U) << "half of 64 positions by default";
}

TEST_F(Requests, LongPromptsAreCutFromTheLeft) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < 100; ++i) prompt.push_back(3 + i * 11 % 90);
  auto const cut =
      answer({{"id", 0}, {"type", "generate_until"}, {"context_ids", prompt}, {"max_tokens", 10}});
  auto const expected = generate(*model_, {{.prompt = {prompt.end() - 54, prompt.end()}, .max_tokens = 10}},
                                 {.stop_ids = {2}, .stop = {}});
  EXPECT_EQ(cut.at("ids"), expected.front());
}

TEST_F(Requests, SamplingFollowsTheRequestsSeed) {
  json request = {
      {"id", 0},          {"type", "generate_until"}, {"context", "hello"}, {"until", json::array()},
      {"max_tokens", 12}, {"temperature", 3.0},       {"seed", 4}};
  auto other = request;
  other["seed"] = 5;
  auto const all = answers({request, other, request}, &tokenizer_);
  EXPECT_EQ(all[0], all[2]);
  EXPECT_NE(all[0], all[1]);
  EXPECT_EQ(answer(request), all[0]);
}

}  // namespace
}  // namespace fsllm::test
