// SPDX-License-Identifier: Apache-2.0
// Names that the evaluation harness and other programs give to fields, ids as they were written, stop
// strings.
#include <nlohmann/json.hpp>
#include <set>

#include "character_tokenizer.hpp"
#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/eval/requests.hpp"
#include "fsllm/model/generate.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

/// Token 95 ("ab") is the special token <|end|>.
struct SpecialTokenizer final : Tokenizer {
  CharacterTokenizer letters;
  int32_t special = 95;
  std::vector<int32_t> encode(std::string_view text, bool add) const override {
    return letters.encode(text, add);
  }
  std::vector<int32_t> prefix() const override { return letters.prefix(); }
  std::string decode(std::vector<int32_t> const& ids, bool skip_special_tokens) const override {
    std::string text;
    for (auto const id : ids)
      text += id != special ? letters.piece(id) : skip_special_tokens ? "" : "<|end|>";
    return text;
  }
  int64_t vocab_size() const override { return 96; }
  std::optional<int32_t> bos_id() const override { return letters.bos; }
  std::optional<int32_t> eos_id() const override { return letters.eos; }
  std::optional<int32_t> pad_id() const override { return {}; }
  std::optional<int32_t> token_id(std::string_view) const override { return {}; }
  std::string piece(int32_t id) const override { return id == special ? "" : letters.piece(id); }
  std::string sha256() const override { return ""; }
};

class RequestFields : public testing::Test {
 protected:
  RequestFields() : model_(load_model(load_reference("llama").dir)) {}
  std::string line(std::string const& request) {
    return answer_requests(*model_, &tokenizer_, {{"in.jsonl:1", request}}).front();
  }
  json generated(std::string const& fields) {
    return json::parse(line(R"({"id":1,"type":"generate_until",)" + fields + "}"));
  }
  std::unique_ptr<CausalLM> model_;
  SpecialTokenizer tokenizer_;
};

std::string const kScore = R"("type":"loglikelihood","context_ids":[5],"continuation_ids":[6])";

TEST_F(RequestFields, IdsComeBackAsTheyWereWritten) {
  for (auto const* id :
       {"9007199254740993", "18446744073709551616", "123456789012345678901234567890", "-0", "1.50", "1e5",
        "null", "true", R"("a\u00e9\"}")", R"({"b":1,"a":[9007199254740993,"x y"]})"})
    EXPECT_TRUE(line("{\"id\":" + std::string(id) + "," + kScore + "}")
                    .starts_with("{\"id\":" + std::string(id) + ","))
        << id;
  EXPECT_TRUE(line("{" + kScore + ", \"id\" : { \"a\" :\n [ 1, \" x\" ] } }")
                  .starts_with(R"({"id":{"a":[1," x"]},)"));
  EXPECT_TRUE(line(R"({"i\u0064":7,)" + kScore + "}").starts_with("{\"id\":7,"));
}

TEST_F(RequestFields, WhatTheNextTokenIsDrawnFrom) {
  std::string const hot = R"("context_ids":[5,6],"max_tokens":8,"temperature":3,"seed":4)";
  auto const greedy = generated(R"("context_ids":[5,6],"max_tokens":8)"), free = generated(hot);
  EXPECT_NE(free, greedy);
  EXPECT_EQ(generated(hot + R"(,"top_k":1)"), greedy);
  EXPECT_EQ(generated(hot + R"(,"top_p":1e-9)"), greedy);
  EXPECT_EQ(generated(hot + R"(,"top_k":0,"top_p":1,"repetition_penalty":1)"), free);
  auto const once = generated(R"("context_ids":[5,6],"max_tokens":8,"repetition_penalty":1e9)").at("ids");
  std::set<int> const different(once.begin(), once.end());
  EXPECT_EQ(different.size(), once.size()) << "a token came twice: " << once;
}

TEST_F(RequestFields, OtherNamesOfTheSameFields) {
  std::string const context = R"("context_ids":[5,6],)";
  auto const plain = generated(context + R"("max_tokens":4)");
  ASSERT_EQ(plain.at("ids").size(), 4U);
  for (auto const* same :
       {R"("max_gen_toks":4)", R"("max_new_tokens":4)", R"("max_gen_toks":4,"max_tokens":4)",
        R"("max_tokens":4,"do_sample":false,"temperature":0.7)",
        R"("max_tokens":4,"temperature":null,"until":null,"stop":null)", R"("max_tokens":4,"until":[])"})
    EXPECT_EQ(generated(context + same), plain) << same;
  auto const text = plain.at("text").get<std::string>();
  ASSERT_GE(text.size(), 3U);
  auto const stop = json(text.substr(1, 1)).dump();
  auto const stopped = generated(context + R"("max_tokens":4,"until":[)" + stop + "]");
  EXPECT_EQ(stopped.at("text"), text.substr(0, text.find(text[1])));
  EXPECT_EQ(generated(context + R"("max_tokens":4,"stop":)" + stop), stopped);
  EXPECT_ERROR(generated(context + R"("max_tokens":4,"max_gen_toks":5)"), "(they mean the same). Give one.");
  EXPECT_ERROR(generated(context + R"("until":["a"],"stop":["b"])"), "(they mean the same). Give one.");
  EXPECT_ERROR(generated(context + R"("do_sample":true,"temperature":0)"),
               "'do_sample' = true and 'temperature' = 0");
  EXPECT_ERROR(generated(context + R"("do_sample":"yes")"),
               "'do_sample' = \"yes\" (true or false is needed)");
}

TEST_F(RequestFields, UnknownFieldsAreNamed) {
  EXPECT_ERROR(generated(R"("context_ids":[5],"min_p":0.9)"),
               "in.jsonl:1: 'min_p' (no field of a generate_until");
  EXPECT_ERROR(generated(R"("context_ids":[5],"max_token":9)"), "Did you mean 'max_tokens'?");
  EXPECT_ERROR(line("{\"id\":1,\"until\":[\"a\"]," + kScore + "}"),
               "'until' (no field of a loglikelihood request)");
  EXPECT_NO_THROW(line("{\"id\":1,\"until\":null," + kScore + "}"));
}

TEST_F(RequestFields, SpecialTokensStopGeneration) {
  auto const free = generated(R"("context_ids":[5,6],"max_tokens":6)").at("ids").get<std::vector<int32_t>>();
  ASSERT_EQ(free.size(), 6U);
  tokenizer_.special = free[3];
  ASSERT_EQ(std::find(free.begin(), free.end(), free[3]) - free.begin(), 3) << "the third token is a new one";
  std::vector<int32_t> const before(free.begin(), free.begin() + 3), until(free.begin(), free.begin() + 4);
  auto const last = tokenizer_.letters.piece(free[2]);
  for (auto const& stop : {std::string("<|end|>"), std::string("end"), std::string("|>")}) {
    auto const answer = generated(R"("context_ids":[5,6],"max_tokens":6,"until":)" + json{stop}.dump());
    EXPECT_EQ(answer.at("ids"), until) << stop;
    EXPECT_EQ(answer.at("text"), tokenizer_.decode(before, true)) << stop;
  }
  auto const across =
      generated(R"("context_ids":[5,6],"max_tokens":6,"until":)" + json{last + "<|end|>"}.dump());
  EXPECT_EQ(across.at("text"), tokenizer_.decode({free[0], free[1]}, true));
  auto const behind = generated(R"("context_ids":[5,6],"max_tokens":6,"until":)" +
                                json{"<|end|>" + tokenizer_.letters.piece(free[4])}.dump());
  EXPECT_EQ(behind.at("ids").size(), 5U);
  EXPECT_EQ(behind.at("text"), tokenizer_.decode(before, true));
}

TEST_F(RequestFields, AnEndOfTextOfTheTokenizersOwnIsNoPartOfAPrompt) {
  auto const request = R"({"id":1,"type":"loglikelihood","context":"xy","continuation":"z"})";
  auto const expected = line(request);
  tokenizer_.letters.eos = 3;
  tokenizer_.letters.adds_eos = true;
  EXPECT_EQ(line(request), expected);
}

TEST_F(RequestFields, DeepRequestsAreNamed) {
  EXPECT_ERROR(line("{\"id\":" + std::string(200000, '[') + std::string(200000, ']') + "," + kScore + "}"),
               "in.jsonl:1: brackets stand 200001 deep in one another (200 at most)");
}

}  // namespace
}  // namespace fsllm::test
