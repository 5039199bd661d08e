// SPDX-License-Identifier: Apache-2.0
#include "public_name.hpp"

#include <fstream>

#include "fsllm/io/gguf_writer.hpp"
#include "model_card.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

class PublicName : public testing::Test {
 protected:
  PublicName() { fs::create_directories(model()); }
  fs::path model() const { return dir_ / "tiny-model"; }
  std::string named(ordered_json const& config) const {
    std::ofstream(model() / "config.json") << config;
    return public_name(model());
  }
  std::string of_gguf(ordered_json const& metadata) const {
    auto const file = dir_ / "a b.Q4_1.gguf";
    GgufWriter(file, metadata, {}).commit();
    return public_name(file);
  }
  TempDir dir_;
};

TEST_F(PublicName, IsWhatConfigJsonSaysUnlessThatIsAPath) {
  EXPECT_EQ(named({{"_name_or_path", "acme/tiny"}}), "acme/tiny");
  EXPECT_EQ(named({{"_name_or_path", "tiny"}}), "tiny");
  for (auto const* path : {"/home/me/tiny", "./tiny", "../tiny", "~/tiny", "a/b/c", "configs/tiny.json", ""})
    EXPECT_EQ(named({{"_name_or_path", path}}), "tiny-model") << path;
  EXPECT_EQ(named({{"_name_or_path", 3}}), "tiny-model");
  EXPECT_EQ(named(ordered_json::object()), "tiny-model");
  EXPECT_EQ(public_name(model(), "acme/chosen"), "acme/chosen");
}

TEST_F(PublicName, IsThatOfAFolderOfTheHubsCache) {
  auto const snapshot = dir_ / "models--acme--tiny-chat/snapshots/0123abcd";
  fs::create_directories(snapshot);
  std::ofstream(snapshot / "config.json") << "{}";
  EXPECT_EQ(public_name(snapshot), "acme/tiny-chat");
}

TEST_F(PublicName, OfAGgufFileIsInItsMetadata) {
  EXPECT_EQ(of_gguf({{"general.source.huggingface.repository", "acme/a"}, {"general.name", "B"}}), "acme/a");
  EXPECT_EQ(of_gguf({{"general.source.url", "https://huggingface.co/acme/b"}}), "acme/b");
  EXPECT_EQ(of_gguf({{"general.base_model.0.repo_url", "https://huggingface.co/acme/c"}}), "acme/c");
  EXPECT_EQ(of_gguf({{"general.name", "Tiny Llama 2"}}), "Tiny-Llama-2");
  EXPECT_EQ(of_gguf({{"general.name", "/content/models"}}), "a-b.Q4_1");
  EXPECT_EQ(of_gguf({{"general.name", 1}}), "a-b.Q4_1");
  EXPECT_EQ(of_gguf({{"general.architecture", "llama"}}), "a-b.Q4_1");
}

TEST_F(PublicName, TheLicenceIsWhatTheFolderSays) {
  EXPECT_EQ(license_of(model()), "");
  std::ofstream(model() / "LICENSE") << "Our own words\n";
  EXPECT_EQ(license_of(model()), "other");
  std::ofstream(model() / "LICENSE") << "                 Apache License\n           Version 2.0\n";
  EXPECT_EQ(license_of(model()), "apache-2.0");
  std::ofstream(model() / "README.md") << "---\ntags:\n- x\nlicense: \"mit\"\n---\nlicense: no\n";
  EXPECT_EQ(license_of(model()), "mit");
  std::ofstream(model() / "README.md") << "# A page\nlicense: no\n";
  EXPECT_EQ(license_of(model()), "apache-2.0");
}

TEST(ModelCard, SaysNothingOfATrainingThatIsNotKnown) {
  auto const card = model_card(CardKind::adapter, {.base_model_name = "acme/tiny"});
  EXPECT_THAT(card, testing::HasSubstr("base_model: acme/tiny\nlibrary_name: peft\n"));
  EXPECT_THAT(card, testing::Not(testing::HasSubstr("ederated")));
  EXPECT_THAT(card, testing::HasSubstr("AutoModelForCausalLM.from_pretrained(\"acme/tiny\")"));
  EXPECT_THAT(model_card(CardKind::own_adapter, {.base_model_name = "x", .license = "odd: \"one\""}),
              testing::HasSubstr("license: \"odd: \\\"one\\\"\"\n"));
}

}  // namespace
}  // namespace fsllm::test
