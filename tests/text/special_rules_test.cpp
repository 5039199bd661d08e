// SPDX-License-Identifier: Apache-2.0
// What tokenizer_config.json and the files beside it say of special tokens. Expected: transformers 5.24.
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/text/encode.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;
using nlohmann::json;

/// a b x y and the blank are 0 to 4, <s> </s> <sep> 5 to 7, ab is 8.
json document(json const& sep) {
  json added = json::array();
  for (auto const& [id, content] : {std::pair{5, "<s>"}, {6, "</s>"}})
    added.push_back({{"id", id}, {"content", content}, {"special", true}});
  if (!sep.is_null()) added.push_back(sep);
  return {{"added_tokens", added},
          {"decoder", {{"type", "Fuse"}}},
          {"model",
           {{"type", "BPE"},
            {"vocab",
             {{"a", 0},
              {"b", 1},
              {"x", 2},
              {"y", 3},
              {" ", 4},
              {"<s>", 5},
              {"</s>", 6},
              {"<sep>", 7},
              {"ab", 8}}},
            {"merges", {"a b"}}}}};
}

json sep_token(json flags = json::object()) {
  flags.update({{"id", 7}, {"content", "<sep>"}});
  if (!flags.contains("special")) flags["special"] = true;
  return flags;
}

std::unique_ptr<Tokenizer> load_with(json const& sep, json config,
                                     std::map<std::string, json> const& files = {}) {
  test::TempDir folder;
  if (config.is_null()) config = json::object();
  config["bos_token"] = config.value("bos_token", json("<s>"));
  config["eos_token"] = config.value("eos_token", json("</s>"));
  write_file_atomic(folder / "tokenizer.json", document(sep).dump());
  write_file_atomic(folder / "tokenizer_config.json", config.dump());
  for (auto const& [name, content] : files) write_file_atomic(folder / name, content.dump());
  return load_tokenizer(folder.path());
}

json decoder(json flags, int id = 7) {
  flags["content"] = "<sep>";
  if (!flags.contains("special")) flags["special"] = true;
  return {{"added_tokens_decoder", {{std::to_string(id), flags}}}};
}

TEST(SpecialRules, FlagsOfTheConfigurationReplaceThoseOfTokenizerJson) {
  auto const text = " a <sep> b x<sep>y ";
  auto const ids = [&](json const& sep, json const& config, std::map<std::string, json> const& files = {}) {
    return load_with(sep, config, files)->encode(text, false);
  };
  Ids const plain{4, 0, 4, 7, 4, 1, 4, 2, 7, 3, 4}, both{4, 0, 7, 1, 4, 2, 7, 3, 4},
      left{4, 0, 7, 4, 1, 4, 2, 7, 3, 4};
  EXPECT_EQ(ids(sep_token(), {}), plain);
  EXPECT_EQ(ids(sep_token(), decoder({{"lstrip", true}, {"rstrip", true}})), both);
  EXPECT_EQ(ids(sep_token({{"lstrip", true}, {"rstrip", true}}), decoder({})), plain);
  EXPECT_EQ(ids(sep_token({{"rstrip", true}}), decoder({{"lstrip", true}})), left);
  EXPECT_EQ(ids(sep_token(), decoder({{"lstrip", true}}, 12)), left) << "by text, whatever the id";
  EXPECT_EQ(ids(sep_token({{"lstrip", true}}), {}, {{"added_tokens.json", {{"<sep>", 7}}}}), left)
      << "added_tokens.json says nothing of flags";
  EXPECT_EQ(load_with(sep_token(), decoder({{"single_word", true}}))->encode("x<sep>", false).size(), 1U)
      << "< > and p have no tokens here";
  EXPECT_EQ(load_with(sep_token(), decoder({{"special", false}}))->decode({0, 7}, true), "a");
  EXPECT_EQ(load_with(sep_token({{"special", false}}), decoder({}))->decode({0, 7}, true), "a");
}

TEST(SpecialRules, AdditionalTokensAreSpecialWhereverTheyAreNamed) {
  auto const check = [](json const& config, std::map<std::string, json> const& files = {}) {
    auto const tokenizer = load_with(nullptr, config, files);
    EXPECT_EQ(tokenizer->encode("a<sep>b", false), (Ids{0, 7, 1})) << config;
    EXPECT_EQ(tokenizer->decode({0, 7, 1}, true), "ab") << config;
    EXPECT_EQ(tokenizer->vocab_size(), 9);
  };
  check({{"additional_special_tokens", {"<sep>"}}});
  check({{"additional_special_tokens", {{{"content", "<sep>"}}, ""}}});
  check({{"extra_special_tokens", {"<sep>", "<sep>"}}});
  check({{"extra_special_tokens", {{"image_token", "<sep>"}}}});
  check({{"sep_token", "<sep>"}, {"cls_token", ""}});
  check({}, {{"special_tokens_map.json", {{"additional_special_tokens", {"<sep>"}}}}});
  auto const stripping =
      load_with(nullptr, {{"additional_special_tokens", {{{"content", "<sep>"}, {"lstrip", true}}}}});
  EXPECT_EQ(stripping->encode("a <sep>b", false), (Ids{0, 7, 1}));
}

TEST(SpecialRules, AdditionalTokensThatTheVocabularyLacksFollowIt) {
  auto const tokenizer = load_with(
      nullptr,
      {{"mask_token", "<mask>"}, {"additional_special_tokens", {"<two>", "ab"}}, {"pad_token", "<pad>"}});
  EXPECT_EQ(tokenizer->token_id("<pad>"), 9) << "roles come first";
  EXPECT_EQ(tokenizer->token_id("<mask>"), 10);
  EXPECT_EQ(tokenizer->token_id("<two>"), 11);
  EXPECT_EQ(tokenizer->encode("x<two>ab", false), (Ids{2, 11, 8}));
  EXPECT_EQ(tokenizer->decode({2, 11, 8}, true), "x");
  EXPECT_EQ(tokenizer->vocab_size(), 12);
}

TEST(SpecialRules, NewTokensOfTheRunFollowTheAdditionalOnes) {
  test::TempDir folder, saved;
  write_file_atomic(folder / "tokenizer.json", document(nullptr).dump());
  write_file_atomic(folder / "tokenizer_config.json",
                    json{{"eos_token", "</s>"},
                         {"additional_special_tokens", {"<two>"}},
                         {"added_tokens_decoder", decoder({{"lstrip", true}}).at("added_tokens_decoder")}}
                        .dump());
  TokenAdditions additions;
  additions.pad = "<pad>";
  auto const grown = load_tokenizer(folder.path(), additions);
  EXPECT_EQ(grown->token_id("<two>"), 9);
  EXPECT_EQ(grown->pad_id(), 10);
  save_tokenizer(folder.path(), additions, saved.path());
  auto const again = load_tokenizer(saved.path());
  for (auto const* text : {"a<two>b<pad>", "a <sep> b"})
    EXPECT_EQ(again->encode(text, false), grown->encode(text, false)) << text;
  EXPECT_EQ(again->encode("a <sep>b", false), (Ids{0, 7, 1})) << "flags are saved";
}

TEST(SpecialRules, AnEmptyTextIsNoToken) {
  auto const tokenizer = load_with(nullptr, {{"bos_token", ""}, {"eos_token", ""}, {"unk_token", ""}});
  EXPECT_EQ(tokenizer->eos_id(), 6) << "by the usual name";
  EXPECT_EQ(tokenizer->vocab_size(), 9);
  test::TempDir folder;
  fs::copy_file(test::source_file("tests/text/golden/sentencepiece_bpe/tokenizer.model"),
                folder / "tokenizer.model");
  write_file_atomic(folder / "tokenizer_config.json",
                    R"({"bos_token":"","eos_token":{"content":""},"unk_token":""})");
  TokenAdditions additions;
  additions.eos = "</s>";
  auto const plain = load_tokenizer(folder.path()), named = load_tokenizer(folder.path(), additions);
  EXPECT_EQ(named->eos_id(), 2);
  EXPECT_EQ(named->vocab_size(), plain->vocab_size());
  EXPECT_EQ(named->encode("a"), plain->encode("a"));
}

TEST(SpecialRules, UnknownOptionsAreRefused) {
  EXPECT_ERROR(load_with(nullptr, {{"split_special_tokens", true}}), "split_special_tokens = true (");
  EXPECT_ERROR(load_with(nullptr, {{"sp_model_kwargs", {{"enable_sampling", true}}}}),
               R"(sp_model_kwargs = {"enable_sampling":true})");
  for (auto const* key : {"5", "12"}) {
    EXPECT_ERROR(load_with(nullptr, {{"added_tokens_decoder", {{key, {{"content", 3}}}}}}),
                 "(its content must be a text)");
    EXPECT_ERROR(
        load_with(nullptr, {{"added_tokens_decoder", {{key, {{"content", "x"}, {"special", "no"}}}}}}),
        "special = \"no\" (true or false is needed)");
  }
  EXPECT_ERROR(load_with(nullptr, {{"extra_special_tokens", {{{"content", "x"}, {"lstrip", 1}}}}}),
               "lstrip = 1 (true or false is needed)");
  EXPECT_ERROR(load_with(nullptr, {{"additional_special_tokens", {3}}}),
               "additional_special_tokens holds 3 (a text is needed)");
  EXPECT_ERROR(load_with(nullptr, {{"additional_special_tokens", "<sep>"}}), "(a list of tokens is needed)");
}

std::unique_ptr<Tokenizer> sentencepiece(char const* config) {
  test::TempDir folder;
  fs::copy_file(test::source_file("tests/text/golden/sentencepiece_bpe/tokenizer.model"),
                folder / "tokenizer.model");
  write_file_atomic(folder / "tokenizer_config.json", config);
  return load_tokenizer(folder.path());
}

TEST(SpecialRules, LegacySentencePiecePutsASpaceBehindEachSpecialToken) {
  auto const modern = sentencepiece("{}"), legacy = sentencepiece(R"({"legacy":true})");
  auto const the = modern->encode("the", false), more = modern->encode("</s>the", false);
  EXPECT_EQ(legacy->encode("the", false), the);
  Ids expected{2};
  expected.insert(expected.end(), the.begin(), the.end());
  EXPECT_EQ(legacy->encode("</s>the", false), expected);
  EXPECT_NE(more, expected);
  EXPECT_EQ(sentencepiece(R"({"legacy":false})")->encode("</s>the", false), more);
  EXPECT_NE(legacy->sha256(), modern->sha256());
  auto const bare = sentencepiece(R"({"add_prefix_space":false})");
  EXPECT_EQ(bare->encode("</s>the", false), more);
  EXPECT_EQ(bare->encode("the", false), Ids(more.begin() + 1, more.end()));
}

/// The ids of a row and its target marks, whatever the tokenizer puts behind a text.
TEST(SpecialRules, PromptsHaveNoEndOfText) {
  Sample sample;
  sample.instruction = "ab";
  sample.output = "x";
  PromptTemplate prompt;
  prompt.prompt = [](Sample const& s) { return s.instruction + " "; };
  json const by_template{{"type", "TemplateProcessing"},
                         {"single",
                          {{{"SpecialToken", {{"id", "<s>"}}}},
                           {{"Sequence", {{"id", "A"}}}},
                           {{"SpecialToken", {{"id", "</s>"}}}}}},
                         {"special_tokens", {{"<s>", {{"ids", {5}}}}, {"</s>", {{"ids", {6}}}}}}};
  json const roberta{{"type", "RobertaProcessing"}, {"cls", {"<s>", 5}}, {"sep", {"</s>", 6}}};
  struct Case {
    json processor, config;
    Ids expected;
  };
  for (auto const& [processor, config, expected] :
       {Case{nullptr, {{"add_eos_token", true}}, {8, 4, 2, 6}},
        Case{nullptr, {{"add_eos_token", true}, {"add_bos_token", true}}, {5, 8, 4, 2, 6}},
        Case{by_template, json::object(), {5, 8, 4, 2, 6}}, Case{roberta, json::object(), {5, 8, 4, 2, 6}}}) {
    test::TempDir folder;
    auto all = document(nullptr);
    all["post_processor"] = processor;
    auto rules = config;
    rules.update({{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    write_file_atomic(folder / "tokenizer.json", all.dump());
    write_file_atomic(folder / "tokenizer_config.json", rules.dump());
    auto const tokenizer = load_tokenizer(folder.path());
    EXPECT_EQ(tokenizer->encode("a").back(), 6) << "transformers' rule, as --tokenize shows it";
    auto const encoded = encode_sample(sample, prompt, tokenizer.get());
    EXPECT_EQ(encoded.ids, expected);
    std::vector<uint8_t> marks(expected.size(), 0);
    std::fill(marks.end() - 2, marks.end(), uint8_t{1});
    EXPECT_EQ(encoded.is_target, marks) << "the answer's one token is learnt";
    Sample text;
    text.kind = SampleKind::text;
    text.output = "ab";
    auto const whole = encode_sample(text, prompt, tokenizer.get()).ids;
    EXPECT_EQ(std::count(whole.begin(), whole.end(), 6), 1);
  }
}

}  // namespace
}  // namespace fsllm
