// SPDX-License-Identifier: Apache-2.0
// What /v1/completions answers, against fsllm_eval with the same model.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "server.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

class Completions : public testing::Test {
 protected:
  Completions() {
    auto const stories = test_data("models/stories260K");
    model_ = stories.empty() ? dir_ / "model" : stories;
    if (stories.empty()) write_chat_model(model_);
    server_ = std::make_unique<Server>(dir_.path(), std::vector<std::string>{"--model", model_.string()});
  }

  /// Greedy and without randomness, unless `more` says otherwise.
  json complete(json const& prompt, int max_tokens, json const& more = json::object()) const {
    json body{
        {"model", model_.filename()}, {"prompt", prompt}, {"max_tokens", max_tokens}, {"temperature", 0}};
    body.update(more);
    return server_->complete(body);
  }

  TempDir dir_;
  fs::path model_;
  std::unique_ptr<Server> server_;
};

double sum(json const& values, size_t from, size_t end) {
  double total = 0;
  for (size_t i = from; i < end; ++i) total += values[i].get<double>();
  return total;
}

/// As lm-evaluation-harness reads it: the largest of top_logprobs is the token itself.
bool is_greedy(json const& logprobs, size_t from, size_t end) {
  bool greedy = true;
  for (size_t i = from; i < end; ++i) {
    auto const& top = logprobs["top_logprobs"][i];
    auto const& token = logprobs["tokens"][i].get_ref<std::string const&>();
    for (auto const& [other, logprob] : top.items())
      greedy = greedy && (other == token || logprob <= top.at(token));
  }
  return greedy;
}

TEST_F(Completions, LogprobsAreThoseOfFsllmEval) {
  std::vector<json> requests;
  auto prompts = json::array();
  for (int i = 0; i < 12; ++i) {
    json context = json::array(), continuation = json::array();
    for (int k = 0; k < 5 + i; ++k) context.push_back((7 * k + 3 * i) % 60 + 3);
    for (int k = 0; k < 1 + i % 4; ++k) continuation.push_back((5 * k + i) % 60 + 3);
    requests.push_back(
        {{"type", "loglikelihood"}, {"context_ids", context}, {"continuation_ids", continuation}});
    auto whole = context;
    whole.insert(whole.end(), continuation.begin(), continuation.end());
    prompts.push_back(whole);
  }
  auto const expected = evaluated(dir_.path(), model_, requests);
  bool greedy = false;
  for (int const max_tokens : {0, 1}) {
    auto const answer = complete(prompts, max_tokens, {{"echo", true}, {"logprobs", 1}});
    ASSERT_EQ(answer["choices"].size(), prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      auto const& choice = answer["choices"][i];
      auto const& logprobs = choice["logprobs"];
      EXPECT_EQ(choice["index"], i);
      auto const end = prompts[i].size(), from = requests[i]["context_ids"].size();
      ASSERT_EQ(logprobs["tokens"].size(), end + static_cast<size_t>(max_tokens));
      ASSERT_EQ(logprobs["text_offset"].size(), logprobs["tokens"].size());
      EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
      EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
      auto const whole =
          expected[i]["loglikelihood"].get<double>();  // added in fp32: four units in its last place
      EXPECT_NEAR(sum(logprobs["token_logprobs"], from, end), whole, 5e-7 * std::abs(whole));
      EXPECT_EQ(is_greedy(logprobs, from, end), expected[i]["is_greedy"]);
      greedy = greedy || expected[i]["is_greedy"].get<bool>();
    }
  }
  // A continuation that is the greedy one.
  auto const first = complete(prompts[0], 1, {{"logprobs", 1}})["choices"][0]["logprobs"];
  EXPECT_TRUE(is_greedy(first, 0, 1));
  EXPECT_EQ(first["top_logprobs"][0].size(), 1);
}

TEST_F(Completions, GreedyTextIsGenerateUntils) {
  auto const texts = std::vector<std::string>{"Once upon a time", "Lily and Tom", "A", "The end? No, the"};
  std::vector<json> requests;
  for (auto const& text : texts)
    for (auto const& until : {json::array(), json{"e", "Q"}, json{"a t"}})
      requests.push_back(
          {{"type", "generate_until"}, {"context", text}, {"until", until}, {"max_tokens", 30}});
  auto const expected = evaluated(dir_.path(), model_, requests);
  std::set<std::string> reasons;
  for (size_t i = 0; i < requests.size(); ++i) {
    json more;
    if (!requests[i]["until"].empty()) more["stop"] = requests[i]["until"];
    auto const answer = complete(requests[i]["context"], 30, more.is_null() ? json::object() : more);
    EXPECT_EQ(answer["choices"][0]["text"], expected[i]["text"]) << requests[i];
    reasons.insert(answer["choices"][0]["finish_reason"].get<std::string>());
    // The same in pieces, none of which has to be taken back.
    std::string pieces;
    auto body = json{{"prompt", requests[i]["context"]}, {"max_tokens", 30}, {"temperature", 0}};
    body.update(more.is_null() ? json::object() : more);
    for (auto const& event : server_->stream("/v1/completions", body)) {
      pieces += event["choices"][0]["text"].get<std::string>();
      ASSERT_EQ(expected[i]["text"].get<std::string>().rfind(pieces, 0), 0) << pieces;
    }
    EXPECT_EQ(pieces, expected[i]["text"]);
  }
  EXPECT_EQ(reasons, (std::set<std::string>{"length", "stop"}));
}

TEST_F(Completions, GreedyChoicesNeedNoComparison) {
  auto const alone = complete("Once upon", 6)["choices"];
  EXPECT_EQ(complete("Once upon", 6, {{"best_of", 5}})["choices"], alone);
  server_->post("/v1/completions", {{"prompt", "Once"}, {"temperature", 1}, {"best_of", 5}}, 400);
}

TEST_F(Completions, TakePromptsInFourForms) {
  auto const text = complete("Once upon", 6), another = complete("Tom", 6);
  auto const list = complete({"Once upon", "Tom"}, 6);
  ASSERT_EQ(list["choices"].size(), 2);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(list["choices"][i]["index"], i);
    EXPECT_EQ(list["choices"][i]["text"], (i == 0 ? text : another)["choices"][0]["text"]);
  }
  auto const count = text["usage"]["prompt_tokens"].get<int>() + another["usage"]["prompt_tokens"].get<int>();
  EXPECT_EQ(list["usage"]["prompt_tokens"], count);
  EXPECT_EQ(list["usage"]["completion_tokens"], 12);
  EXPECT_EQ(list["usage"]["total_tokens"], count + 12);
  auto const ids = complete(json{5, 9, 17, 30}, 6);
  EXPECT_EQ(ids["usage"]["prompt_tokens"], 4) << "ids are taken as they are";
  auto const lists = complete(json{{5, 9, 17, 30}, {8}}, 6);
  EXPECT_EQ(lists["choices"][0]["text"], ids["choices"][0]["text"]);
  EXPECT_EQ(lists["choices"][1]["text"], complete(json{8}, 6)["choices"][0]["text"]);
  EXPECT_EQ(text["object"], "text_completion");
  EXPECT_TRUE(text["choices"][0]["logprobs"].is_null());
}

TEST_F(Completions, EchoShowsThePrompt) {
  auto const plain = complete("Once upon", 5), echoed = complete("Once upon", 5, {{"echo", true}});
  auto const text = echoed["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text.rfind("Once upon", 0), 0);
  EXPECT_NE(text.find(plain["choices"][0]["text"].get<std::string>()), std::string::npos);
  auto const nothing = complete("Once upon", 0, {{"echo", true}});
  EXPECT_EQ(nothing["choices"][0]["text"], "Once upon");
  EXPECT_EQ(nothing["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(nothing["usage"]["completion_tokens"], 0);
  EXPECT_EQ(complete("Once upon", 0)["choices"][0]["text"], "");
  auto const logprobs = complete("Once upon", 3, {{"echo", true}, {"logprobs", 0}})["choices"][0]["logprobs"];
  EXPECT_TRUE(std::is_sorted(logprobs["text_offset"].begin(), logprobs["text_offset"].end()));
  EXPECT_EQ(logprobs["text_offset"][0], 0);
}

TEST_F(Completions, DrawsFollowTheSeed) {
  auto const draw = [&](int seed, int n, json more = json::object()) {
    more.update({{"temperature", 1.5}, {"seed", seed}, {"n", n}});
    std::vector<std::string> texts;
    auto const answer = complete("Once", 12, more);
    for (auto const& choice : answer["choices"]) texts.push_back(choice["text"]);
    return texts;
  };
  auto const four = draw(7, 4);
  ASSERT_EQ(four.size(), 4);
  EXPECT_EQ(draw(7, 4), four);
  EXPECT_EQ(draw(7, 1).front(), four.front());
  EXPECT_EQ(std::set<std::string>(four.begin(), four.end()).size(), 4);
  auto const greedy = complete("Once", 12)["choices"][0]["text"];
  EXPECT_EQ(draw(7, 1, {{"top_k", 1}}).front(), greedy);
  EXPECT_EQ(draw(7, 1, {{"top_p", 1e-6}}).front(), greedy);
  json const open{{"temperature", 1.5}};  // no seed: another draw each time
  EXPECT_NE(complete("Once", 30, open)["choices"][0]["text"],
            complete("Once", 30, open)["choices"][0]["text"]);
}

TEST_F(Completions, StreamsHoldWholeCharacters) {
  // Nearly uniform draws: most tokens of a vocabulary with byte tokens are parts of characters.
  json const wild{
      {"temperature", 1000}, {"seed", 3}, {"n", 3}, {"stop", {"z", "ing", "\n\n"}}, {"logprobs", 2}};
  auto const whole = complete("A", 120, wild);
  auto body = wild;
  body.update({{"prompt", "A"}, {"max_tokens", 120}, {"stream_options", {{"include_usage", true}}}});
  std::vector<std::string> texts(3), reasons(3);
  std::vector<json> logprobs(3, json::array());
  json usage;
  for (auto const& event : server_->stream("/v1/completions", body)) {
    if (!event["usage"].is_null()) usage = event["usage"];
    for (auto const& choice : event["choices"]) {
      auto const index = choice["index"].get<size_t>();
      texts[index] += choice["text"].get<std::string>();
      for (auto const& one : choice["logprobs"]["token_logprobs"]) logprobs[index].push_back(one);
      if (!choice["finish_reason"].is_null()) reasons[index] = choice["finish_reason"];
    }
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(texts[i], whole["choices"][i]["text"]);
    EXPECT_EQ(reasons[i], whole["choices"][i]["finish_reason"]);
    auto const& expected = whole["choices"][i]["logprobs"]["token_logprobs"];
    ASSERT_EQ(logprobs[i].size(), expected.size());
    // What runs beside a row changes the last bits.
    for (size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR(logprobs[i][k], expected[k], 1e-4);
  }
  EXPECT_EQ(usage, whole["usage"]);
}

/// The reference model and its LoRA adapter, which have no tokenizer: token ids alone.
TEST(Adapters, AreChosenByName) {
  TempDir dir;
  auto const model = source_file("tests/reference/llama");
  auto const adapter = (model / "adapter").string();
  Server const server(dir.path(), {"--model", model.string(), "--adapter", "tuned=" + adapter, "--adapter",
                                   "again=" + adapter});
  auto const ids = server.get("/v1/models")["data"];
  ASSERT_EQ(ids.size(), 3);
  EXPECT_EQ(ids[0]["id"], "llama");
  EXPECT_EQ(ids[1]["id"], "tuned");
  EXPECT_EQ(server.get("/v1/models/tuned")["id"], "tuned");
  json const context{3, 5, 7, 11}, continuation{13, 17, 19};
  json const whole{3, 5, 7, 11, 13, 17, 19};
  json const request{{"type", "loglikelihood"}, {"context_ids", context}, {"continuation_ids", continuation}};
  auto const score = [&](char const* name) {
    auto const answer = server.complete(
        {{"model", name}, {"prompt", whole}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 1}});
    return sum(answer["choices"][0]["logprobs"]["token_logprobs"], 4, 7);
  };
  double const base = evaluated(dir.path(), model, {request})[0]["loglikelihood"];
  double const tuned = evaluated(dir.path(), model, {request}, {"--adapter", adapter})[0]["loglikelihood"];
  EXPECT_GT(std::abs(base - tuned), 1e-3);
  for (int time = 0; time < 3; ++time) {
    EXPECT_NEAR(score("llama"), base, 1e-5);
    EXPECT_NEAR(score("tuned"), tuned, 1e-5);
    EXPECT_NEAR(score("again"), tuned, 1e-5);
  }
  auto const text = json{{"model", "tuned"}, {"prompt", "a text"}};
  EXPECT_NE(
      server.post("/v1/completions", text, 400)["error"]["message"].get<std::string>().find("tokenizer"),
      std::string::npos);
}

TEST(Chats, AreTheTemplatesText) {
  TempDir dir;
  write_chat_model(dir / "talker");
  Server const server(dir.path(), {"--model", (dir / "talker").string()});
  json const messages{
      {{"role", "system"}, {"content", "Be short."}},
      {{"role", "user"},
       {"content", {{{"type", "text"}, {"text", "Who"}}, {{"type", "text"}, {"text", "?"}}}}}};
  json const chat{{"model", "talker"}, {"messages", messages}, {"max_tokens", 12},
                  {"temperature", 0},  {"logprobs", true},     {"top_logprobs", 2}};
  auto const answer = server.post("/v1/chat/completions", chat);
  auto const text = server.complete({{"prompt", "<s>system: Be short.\nuser: Who?\nassistant: "},
                                     {"max_tokens", 12},
                                     {"temperature", 0},
                                     {"logprobs", 2}});
  EXPECT_EQ(answer["object"], "chat.completion");
  auto const& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], text["choices"][0]["text"]);
  EXPECT_EQ(answer["usage"], text["usage"]);
  auto const& content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), 12);
  for (size_t i = 0; i < content.size(); ++i) {
    EXPECT_NEAR(content[i]["logprob"], text["choices"][0]["logprobs"]["token_logprobs"][i], 1e-5);
    EXPECT_EQ(content[i]["top_logprobs"].size(), 2);
  }
  std::string pieces;
  auto const events = server.stream("/v1/chat/completions", chat);
  EXPECT_EQ(events.front()["choices"][0]["delta"]["role"], "assistant");
  for (auto const& event : events) pieces += event["choices"][0]["delta"].value("content", "");
  EXPECT_EQ(pieces, choice["message"]["content"]);
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], choice["finish_reason"]);
  // raise_exception of the template is the client's mistake.
  json const wrong{{"messages", {messages[1], messages[0]}}};
  EXPECT_NE(server.post("/v1/chat/completions", wrong, 400)["error"]["message"].get<std::string>().find(
                "system comes first"),
            std::string::npos);
  json const open{{"messages", {messages[1]}}, {"temperature", 0}};  // to the last position
  auto const used = server.post("/v1/chat/completions", open)["usage"]["total_tokens"].get<int64_t>();
  EXPECT_LE(used, server.get("/v1/models")["data"][0]["max_model_len"]);
}

}  // namespace
}  // namespace fsllm::test
