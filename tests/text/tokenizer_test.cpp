// SPDX-License-Identifier: Apache-2.0
// Rules beside the vocabulary (BOS, EOS, pad), broken UTF-8, many threads, malformed files.
#include "fsllm/text/tokenizer.hpp"

#include <nlohmann/json.hpp>
#include <thread>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;
using nlohmann::json;

fs::path golden(std::string const& name) {
  return test::source_file("tests/text/golden/" + name);
}

/// A copy of a golden tokenizer with further files.
std::unique_ptr<Tokenizer> load_with(std::string const& name,
                                     std::map<std::string, std::string> const& files) {
  test::TempDir folder;
  for (auto const* file : {"tokenizer.json", "tokenizer.model"})
    if (fs::exists(golden(name) / file)) fs::copy_file(golden(name) / file, folder / file);
  for (auto const& [file, content] : files) write_file_atomic(folder / file, content);
  return load_tokenizer(folder.path());
}

/// Loads a tokenizer.json with this text.
void load_text(std::string const& text) {
  test::TempDir folder;
  write_file_atomic(folder / "tokenizer.json", text);
  load_tokenizer(folder.path());
}

json small_document() {
  return {{"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}}, {"merges", {"a b"}}}}};
}

TEST(Tokenizer, MissingFilesAreNamed) {
  test::TempDir const folder;
  EXPECT_FALSE(has_tokenizer(folder.path()));
  EXPECT_ERROR(
      load_tokenizer(folder.path()),
      "has no tokenizer (neither tokenizer.json nor tokenizer.model, nor vocab.json with merges.txt)");
}

TEST(Tokenizer, TokenizerConfigDecidesOnBosAndEos) {
  auto const bos_by_template = load_with("llama3", {});
  auto const bos = *bos_by_template->token_id("<|begin|>"), eos = *bos_by_template->token_id("<|end|>");
  EXPECT_EQ(bos_by_template->encode("").front(), bos);
  auto const config = [](char const* flags) {
    return std::string(R"({"bos_token":{"content":"<|begin|>"},"eos_token":"<|end|>",)") + flags + "}";
  };
  auto const only_eos = load_with("llama3", {{"tokenizer_config.json", config(R"("add_eos_token":true)")}});
  EXPECT_EQ(only_eos->encode(""), Ids{eos});
  auto const both = load_with(
      "llama3", {{"tokenizer_config.json", config(R"("add_bos_token":true,"add_eos_token":true)")}});
  EXPECT_EQ(both->encode(""), (Ids{bos, eos}));
  EXPECT_EQ(both->encode("", false), Ids{});
  EXPECT_EQ(both->bos_id(), bos);
  EXPECT_EQ(both->eos_id(), eos);
  EXPECT_EQ(both->pad_id(), std::nullopt);
}

TEST(Tokenizer, SentencePieceAddsBosUnlessToldOtherwise) {
  EXPECT_EQ(load_with("sentencepiece_bpe", {})->encode(""), Ids{1});
  auto const changed = load_with(
      "sentencepiece_bpe", {{"tokenizer_config.json", R"({"add_bos_token":false,"add_eos_token":true})"}});
  EXPECT_EQ(changed->encode(""), Ids{2});
}

TEST(Tokenizer, SpecialTokensComeFromTheFirstFileThatNamesThem) {
  auto const from_map =
      load_with("gpt2", {{"special_tokens_map.json", R"({"eos_token":"<|end|>"})"},
                         {"config.json", R"({"eos_token_id":5,"bos_token_id":[7,8],"pad_token_id":null})"}});
  EXPECT_EQ(from_map->eos_id(), from_map->token_id("<|end|>"));
  EXPECT_EQ(from_map->bos_id(), 7);
  EXPECT_EQ(from_map->pad_id(), std::nullopt);
  EXPECT_ERROR(load_with("gpt2", {{"tokenizer_config.json", R"({"eos_token":3})"}}),
               "eos_token = 3 (it must be a text)");
  EXPECT_ERROR(load_with("gpt2", {{"config.json", R"({"eos_token_id":"x"})"}}),
               "eos_token_id = \"x\" (it must be a token id)");
}

/// transformers 5.23 on the same files: AutoTokenizer(...).decode(ids, skip_special_tokens=True).
TEST(Tokenizer, ANamedTokenIsSkippedWhateverTokenizerJsonCallsIt) {
  auto const end = *load_with("phi3", {})->token_id("</s>");
  auto const text = "sheep</s>  sheep";
  auto const ordinary = load_with("phi3", {{"tokenizer_config.json", R"({"eos_token":"<|end|>"})"}});
  EXPECT_EQ(ordinary->decode({end}, true), "</s>") << "tokenizer.json says special: false";
  auto const named = load_with("phi3", {{"tokenizer_config.json", R"({"eos_token":"</s>"})"}});
  EXPECT_EQ(named->decode({end}, true), "");
  EXPECT_EQ(named->decode({end}, false), "</s>");
  EXPECT_EQ(named->encode(text), ordinary->encode(text)) << "it still takes the space behind it (rstrip)";
  auto const listed = load_with(
      "phi3",
      {{"tokenizer_config.json",
        json{{"added_tokens_decoder", {{std::to_string(end), {{"content", "</s>"}, {"special", true}}}}}}
            .dump()}});
  EXPECT_EQ(listed->decode({end}, true), "");
}

TEST(Tokenizer, ANamedTokenOfTheVocabularyIsParsedInText) {
  auto const named = load_with("smollm", {{"tokenizer_config.json", R"({"eos_token":"ing"})"}});
  auto const ing = named->eos_id();
  ASSERT_TRUE(ing);
  EXPECT_EQ(named->encode("xing", false).back(), *ing);
  EXPECT_EQ(named->encode("1ing2", false)[1], *ing);
  EXPECT_EQ(named->decode({*ing}, true), "");
  EXPECT_EQ(named->decode({*ing}, false), "ing");
  EXPECT_EQ(load_with("smollm", {})->decode({*ing}, true), "ing") << "an ordinary token unless it is named";
}

TEST(Tokenizer, SentencePieceParsesSpecialTokensInText) {
  auto const tokenizer = load_tokenizer(golden("sentencepiece_bpe"));
  auto const hello = tokenizer->encode("the sheep", false);
  Ids expected{1};
  expected.insert(expected.end(), hello.begin(), hello.end());
  expected.push_back(2);
  EXPECT_EQ(tokenizer->encode("the sheep</s>"), expected);
  auto const behind = tokenizer->encode("</s>the", false);
  EXPECT_EQ(tokenizer->decode(behind), "</s>the") << "no prefix space behind a special token";
  EXPECT_EQ(tokenizer->decode(expected), "<s> the sheep</s>");
  EXPECT_EQ(tokenizer->decode(expected, true), "the sheep");
}

TEST(Tokenizer, FingerprintFollowsVocabularyAndRules) {
  auto const plain = load_with("gpt2", {});
  EXPECT_EQ(plain->sha256(), load_with("gpt2", {})->sha256());
  EXPECT_EQ(plain->sha256(),
            load_with("gpt2", {{"tokenizer_config.json", R"({"chat_template":"x"})"}})->sha256());
  EXPECT_NE(plain->sha256(),
            load_with("gpt2", {{"tokenizer_config.json", R"({"add_eos_token":true})"}})->sha256());
  EXPECT_NE(plain->sha256(), load_with("smollm", {})->sha256());
}

TEST(Tokenizer, BrokenUtf8IsReplaced) {
  for (auto const* name : {"gpt2", "mistral", "sentencepiece_bpe"}) {
    auto const tokenizer = load_tokenizer(golden(name));
    // Maximal broken parts: a stray byte, an overlong form (two parts), a cut sequence, a surrogate (three).
    EXPECT_EQ(tokenizer->encode("a\xFF"
                                "b\xC0\xAF"
                                "c\xE4\xBD"
                                "d\xED\xA0\x80"),
              tokenizer->encode("a\uFFFD"
                                "b\uFFFD\uFFFD"
                                "c\uFFFD"
                                "d\uFFFD\uFFFD\uFFFD"))
        << name;
  }
}

TEST(Tokenizer, PiecesAddUpToTheText) {
  for (auto const* name : {"gpt2", "mistral", "sentencepiece_bpe"}) {
    auto const tokenizer = load_tokenizer(golden(name));
    std::string joined;
    for (int32_t const id : tokenizer->encode(" the \u4F60\u00DF!")) joined += tokenizer->piece(id);
    EXPECT_THAT(joined, testing::HasSubstr(" the \u4F60\u00DF!")) << name;
    EXPECT_EQ(tokenizer->piece(-1) + tokenizer->piece(1 << 20), "");
  }
}

TEST(Tokenizer, LongWordsMergeAsShortOnes) {
  auto const tokenizer = load_tokenizer(golden("gpt2"));
  std::string const word = "singing";
  auto const ids = tokenizer->encode(word, false);
  std::string text;
  Ids expected;
  for (int i = 0; i < 2000; ++i) {
    text += "  " + word;  // one more space than belongs to a word
    expected.push_back(*tokenizer->token_id("\u0120"));
    auto const spaced = tokenizer->encode(" " + word, false);
    expected.insert(expected.end(), spaced.begin(), spaced.end());
  }
  EXPECT_EQ(tokenizer->encode(text, false), expected);
  std::string const letters(100000, 'a');
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(letters)), letters);
}

TEST(Tokenizer, IsSafeFromManyThreads) {
  auto const tokenizer = load_tokenizer(golden("qwen"));
  std::vector<std::string> texts;
  for (int i = 0; i < 500; ++i)
    texts.push_back("sheep " + std::to_string(i * 7919) + " caf\u00E9 <|end|> " + std::string(i % 9, ' '));
  std::vector<Ids> expected;
  for (auto const& text : texts) expected.push_back(tokenizer->encode(text));
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < texts.size(); ++i) wrong[t] += tokenizer->encode(texts[i]) != expected[i];
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(Tokenizer, MalformedFilesNameTheConstruct) {
  EXPECT_NO_THROW(load_text(small_document().dump()));
  EXPECT_ERROR(load_text("{\"model\": "), "tokenizer.json:1:");
  EXPECT_ERROR(load_text("[]"), "not a tokenizer.json of Hugging Face tokenizers");
  auto const with = [](char const* path, json const& value) {
    auto document = small_document();
    document[json::json_pointer(path)] = value;
    return document.dump();
  };
  EXPECT_ERROR(load_text(with("/model/type", "WordPiece")), "model type 'WordPiece' is not supported");
  EXPECT_ERROR(load_text(with("/model/end_of_word_suffix", "</w>")),
               "end_of_word_suffix = \"</w>\" is not supported");
  EXPECT_ERROR(load_text(with("/model/dropout", 0.1)), "dropout = 0.1 would make ids random");
  EXPECT_ERROR(load_text(with("/model/vocab", json::array())), "vocab is not a map");
  EXPECT_ERROR(load_text(with("/model/vocab/c", -1)), "the id of token 'c' is -1");
  EXPECT_ERROR(load_text(with("/model/vocab/c", "x")), "the id of token 'c' is \"x\"");
  EXPECT_ERROR(load_text(with("/model/vocab/c", int64_t{1} << 40)), "the id of token 'c' is 1099511627776");
  EXPECT_ERROR(load_text(with("/model/merges", {"a b", "ab"})), "merge 1 is \"ab\" (it must be two tokens");
  EXPECT_ERROR(load_text(with("/model/merges", {"a c"})), "merge 0 needs 'a', 'c' and 'ac'");
  EXPECT_ERROR(load_text(with("/model/merges", 3)), "merges is not a list");
  EXPECT_ERROR(load_text(with("/model/unk_token", "?")), "unk_token \"?\" is not in vocab");
  EXPECT_ERROR(load_text(with("/normalizer", {{"type", "NFQ"}})),
               "normalizer type = 'NFQ' (not a known name)");
  EXPECT_ERROR(load_text(with("/pre_tokenizer", {{"type", "ByteLvl"}})), "Did you mean 'ByteLevel'?");
  EXPECT_ERROR(load_text(with("/pre_tokenizer",
                              {{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}})),
               "pre_tokenizer Split: the regular expression ( is not understood");
  EXPECT_ERROR(load_text(with("/pre_tokenizer",
                              {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Cut"}})),
               "behavior = 'Cut'");
  EXPECT_ERROR(load_text(with("/decoder", {{"type", "CTC"}})), "decoder type = 'CTC'");
  EXPECT_ERROR(load_text(with("/post_processor", {{"type", "Other"}})),
               "post_processor type 'Other' is not supported");
  EXPECT_ERROR(load_text(with("/added_tokens", {{{"id", -3}, {"content", "x"}}})),
               "added token 'x' has the id -3");
  EXPECT_ERROR(load_text(with("/added_tokens", {{{"id", 3}}})), "not a tokenizer.json");
  test::TempDir const folder;
  write_file_atomic(folder / "tokenizer.model", "not protobuf");
  EXPECT_ERROR(load_tokenizer(folder.path()), "not a SentencePiece model");
}

}  // namespace
}  // namespace fsllm
