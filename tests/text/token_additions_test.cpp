// SPDX-License-Identifier: Apache-2.0
// llm.added_tokens.*: ids, roles, what identifies the tokenizer, and the files that bring it back.
#include "fsllm/text/token_additions.hpp"

#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;
using nlohmann::json;

fs::path golden(std::string const& name) {
  return test::source_file("tests/text/golden/" + name);
}

/// A copy of a golden tokenizer with a tokenizer_config.json of its own.
class Copied {
 public:
  Copied(std::string const& name, json const& config) {
    for (auto const& entry : fs::directory_iterator(golden(name)))
      fs::copy_file(entry.path(), folder_ / entry.path().filename());
    write_file_atomic(folder_ / "tokenizer_config.json", config.dump());
  }
  fs::path path() const { return folder_.path(); }
  std::unique_ptr<Tokenizer> with(TokenAdditions const& additions) const {
    return load_tokenizer(folder_.path(), additions);
  }

 private:
  test::TempDir folder_;
};

TEST(TokenAdditions, NewTokensGetTheNextIdsAndTheirRoles) {
  Copied const base("smollm", json::object());
  auto const plain = base.with({});
  auto const first = static_cast<int32_t>(plain->vocab_size());
  ASSERT_FALSE(plain->eos_id());
  auto const grown = base.with({.eos = "</s>", .pad = "[PAD]", .additional = {"<user>", "<bot>"}});
  EXPECT_EQ(grown->vocab_size(), first + 4);
  EXPECT_EQ(grown->pad_id(), first);
  EXPECT_EQ(grown->eos_id(), first + 1);
  EXPECT_EQ(grown->token_id("<user>"), first + 2);
  EXPECT_EQ(grown->token_id("<bot>"), first + 3);
  auto const ids = grown->encode("the<user> sheep</s>", false);
  EXPECT_EQ(ids.back(), first + 1);
  EXPECT_EQ(grown->decode(ids), "the<user> sheep</s>");
  EXPECT_EQ(grown->decode(ids, true), "the sheep");
  EXPECT_EQ(grown->encode("the sheep"), plain->encode("the sheep"));
  EXPECT_NE(grown->sha256(), plain->sha256());
}

TEST(TokenAdditions, AKnownTokenOnlyTakesTheRole) {
  Copied const base("smollm", json::object());
  auto const plain = base.with({});
  for (std::string const token : {"ing", "<|end|>"}) {
    auto const named = base.with({.eos = token});
    EXPECT_EQ(named->vocab_size(), plain->vocab_size());
    EXPECT_EQ(named->eos_id(), plain->token_id(token));
    EXPECT_EQ(named->encode("1" + token + "2", false).at(1), *named->eos_id());
    EXPECT_EQ(named->decode({*named->eos_id()}, true), "");
    EXPECT_NE(named->sha256(), plain->sha256());
  }
}

TEST(TokenAdditions, WhatTheFilesNameButLackComesFirst) {
  Copied const base("smollm", {{"pad_token", "[PAD]"}, {"bos_token", "<s>"}});
  auto const first = static_cast<int32_t>(base.with({})->vocab_size());
  auto const grown = base.with({.eos = "</s>"});
  EXPECT_EQ(grown->bos_id(), first);
  EXPECT_EQ(grown->pad_id(), first + 1);
  EXPECT_EQ(grown->eos_id(), first + 2);
}

TEST(TokenAdditions, FsLlmAddsTheFourRolesThatNothingHas) {
  TokenAdditions const fs_llm{.fs_llm = true};
  Copied const bare("smollm", json::object());
  auto const first = static_cast<int32_t>(bare.with({})->vocab_size());
  auto const all = bare.with(fs_llm);
  EXPECT_EQ(
      (Ids{*all->token_id("[PAD]"), *all->token_id("</s>"), *all->token_id("<s>"), *all->token_id("<unk>")}),
      (Ids{first, first + 1, first + 2, first + 3}));
  EXPECT_EQ((Ids{*all->pad_id(), *all->eos_id(), *all->bos_id()}), (Ids{first, first + 1, first + 2}));
  Copied const llama("sentencepiece_bpe", json::object());
  EXPECT_EQ(llama.with(fs_llm)->vocab_size(), llama.with({})->vocab_size() + 1) << "only [PAD]";
  Copied const complete("smollm",
                        {{"pad_token", "a"}, {"bos_token", "b"}, {"eos_token", "c"}, {"unk_token", "d"}});
  EXPECT_EQ(complete.with(fs_llm)->sha256(), complete.with({})->sha256());
  auto const own = bare.with({.eos = "<end>", .fs_llm = true});
  EXPECT_EQ(own->eos_id(), first + 1);
  EXPECT_FALSE(own->token_id("</s>"));
}

TEST(TokenAdditions, FsLlmKnowsTheRolesOfGpt2) {
  test::TempDir folder;
  for (auto const& [vocabulary_and_end, wanted] : {std::pair("<|endoftext|>", 1), {"other", 4}}) {
    json const document{
        {"model",
         {{"type", "BPE"}, {"vocab", {{"a", 0}, {vocabulary_and_end, 1}}}, {"merges", json::array()}}}};
    write_file_atomic(folder / "tokenizer.json", document.dump());
    write_file_atomic(folder / "config.json", R"({"model_type":"gpt2"})");
    EXPECT_EQ(load_tokenizer(folder.path(), {.fs_llm = true})->vocab_size(), 2 + wanted)
        << vocabulary_and_end;
  }
}

class Saved : public testing::TestWithParam<char const*> {};
INSTANTIATE_TEST_SUITE_P(TokenAdditions, Saved,
                         testing::Values("gpt2", "opt", "smollm", "llama3", "tiktoken", "bloom", "llama2",
                                         "phi3", "t5", "sentencepiece_bpe", "sentencepiece_unigram"),
                         [](auto const& test) { return std::string(test.param); });

TEST_P(Saved, ComesBackWithTheSameIds) {
  TokenAdditions const additions{.eos = "<|stop|>", .pad = "<|fill|>", .additional = {"<tool>", "the"}};
  auto const tokenizer = load_tokenizer(golden(GetParam()), additions);
  test::TempDir out, again;
  save_tokenizer(golden(GetParam()), additions, out.path());
  save_tokenizer(out.path(), {}, again.path());
  for (auto const* folder : {&out, &again}) {
    auto const saved = load_tokenizer(folder->path());
    EXPECT_EQ(saved->vocab_size(), tokenizer->vocab_size());
    EXPECT_EQ((std::tuple(saved->bos_id(), saved->eos_id(), saved->pad_id())),
              (std::tuple(tokenizer->bos_id(), tokenizer->eos_id(), tokenizer->pad_id())));
    for (auto const* token : {"<|stop|>", "<|fill|>", "<tool>", "the"})
      EXPECT_EQ(saved->token_id(token), tokenizer->token_id(token)) << token;
    for_each_json_record(golden(GetParam()) / "cases.jsonl", [&](json const& row, RecordPlace const&) {
      auto const text = "<tool>" + row.at("text").get<std::string>() + "<|stop|>";
      auto const ids = tokenizer->encode(text);
      EXPECT_EQ(saved->encode(text), ids) << text;
      EXPECT_EQ(saved->decode(ids, true), tokenizer->decode(ids, true));
    });
  }
}

TEST(TokenAdditions, BadKeysAreNamed) {
  auto const load = [](std::string const& tokens) {
    auto config = Config::parse("llm: {added_tokens: " + tokens + "}", "run.yaml");
    return load_token_additions(config);
  };
  EXPECT_EQ(load("{additional: [a, b], eos_token: c}").additional, (std::vector<std::string>{"a", "b"}));
  EXPECT_ERROR(load("{additional: [a, '']}"),
               "run.yaml:1: llm.added_tokens.additional holds '' (a token needs a text)");
  EXPECT_ERROR(load("{additional: [a, b, a]}"), "holds 'a' twice");
  EXPECT_ERROR(load("{additional: [a], eos_token: a}"),
               "holds 'a' (llm.added_tokens.eos_token adds it already)");
  EXPECT_ERROR(load("{additional: [a], pad_token: a}"),
               "holds 'a' (llm.added_tokens.pad_token adds it already)");
}

}  // namespace
}  // namespace fsllm
