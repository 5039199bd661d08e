// SPDX-License-Identifier: Apache-2.0
// The tiny models of tests/reference as GGUF files (make_gguf_fixtures.py), and the cache of converted
// weights.
#include <ATen/ATen.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "gguf_builder.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

fs::path gguf(std::string const& name) {
  return source_file("tests/reference/gguf/" + name + ".gguf");
}

/// The fixture's folder; windows that GGUF does not know are taken out of its configuration.
fs::path same_in_hugging_face(std::string const& name, TempDir const& dir) {
  copy_model(source_file("tests/reference/" + name), dir / name);
  auto config = read_json(dir / name / "config.json");
  config["use_sliding_window"] = false;
  write_file_atomic(dir / name / "config.json", config.dump());
  return dir / name;
}

/// The one folder of converted weights in a cache.
fs::path copy_in(fs::path const& cache) {
  std::vector<fs::path> folders;
  for (auto const& entry : fs::directory_iterator(cache))
    if (entry.is_directory()) folders.push_back(entry.path());
  EXPECT_EQ(folders.size(), 1U);
  return folders.empty() ? cache : folders.front();
}

ino_t inode(fs::path const& file) {
  struct stat info {};
  return ::stat(file.c_str(), &info) == 0 ? info.st_ino : 0;
}

class GgufModel : public testing::TestWithParam<char const*> {};

TEST_P(GgufModel, LogitsAreThoseOfTheHuggingFaceFiles) {
  TempDir dir;
  auto const reference = load_reference(GetParam());
  auto const expected = all_logits(*load_model(same_in_hugging_face(GetParam(), dir)), reference.rows);
  EXPECT_TRUE(at::equal(all_logits(*load_model(gguf(GetParam())), reference.rows), expected));
  auto const cached = load_model(gguf(GetParam()), {.cache_dir = dir / "cache"});
  EXPECT_TRUE(at::equal(all_logits(*cached, reference.rows), expected));
}

TEST_P(GgufModel, ConfigurationIsThatOfTheHuggingFaceFiles) {
  TempDir dir;
  auto const read = load_model_config(gguf(GetParam()));
  auto const expected = load_model_config(same_in_hugging_face(GetParam(), dir));
  auto const facts = [](ModelConfig const& c) {
    return std::tuple(c.family, c.architecture, c.vocab_size, c.hidden_size, c.intermediate_size,
                      c.num_layers, c.num_heads, c.num_kv_heads, c.head_dim, c.max_positions, c.norm_eps,
                      c.rope_theta, c.qkv_bias, c.tied_embeddings, c.bos_id, c.eos_ids, c.layer_windows);
  };
  EXPECT_EQ(facts(read), facts(expected));
}

INSTANTIATE_TEST_SUITE_P(Families, GgufModel, testing::Values("llama", "mistral", "qwen2", "gpt2"));

TEST(GgufModels, AreSavedInHuggingFaceLayout) {
  TempDir dir;
  auto const reference = load_reference("llama");
  save_model(dir / "out", *load_model(gguf("llama")), gguf("llama"), "fp32");
  auto const read = SafetensorsReader(dir / "out").tensors();
  auto const expected = SafetensorsReader(reference.dir).tensors();
  ASSERT_EQ(read.size(), expected.size());
  for (auto const& [name, values] : expected) EXPECT_TRUE(at::equal(read.at(name), values)) << name;
  EXPECT_TRUE(at::equal(all_logits(*load_model(dir / "out"), reference.rows),
                        all_logits(*load_model(reference.dir), reference.rows)));
}

TEST(GgufModels, AreCheckedWithoutValues) {
  auto const model = load_model(gguf("llama"), {.storage_dtype = "bf16", .values = false});
  for (auto const& [name, tensor] : model->parameters())
    EXPECT_EQ(tensor.scalar_type(), at::kBFloat16) << name;
  TempDir dir;
  load_model(gguf("llama"), {.cache_dir = dir / "cache", .values = false});
  EXPECT_FALSE(fs::exists(dir / "cache"));
}

TEST(GgufModels, RefuseWhatThisVersionLacks) {
  TempDir dir;
  auto const config_of = [&](GgufBuilder const& builder) {
    std::ofstream(dir / "x.gguf") << builder.bytes();
    load_model_config(dir / "x.gguf");
  };
  auto const architecture = [](std::string const& name, uint64_t keys, uint64_t tensors = 0) {
    GgufBuilder builder;
    builder.header(tensors, keys).key("general.architecture", 8).text(name);
    return builder;
  };
  EXPECT_ERROR(config_of(architecture("lama", 1)), "x.gguf: general.architecture = 'lama'");
  EXPECT_ERROR(config_of(architecture("lama", 1)), "Did you mean 'llama'?");
  EXPECT_ERROR(config_of(architecture("llama", 1)), "has no tensor 'token_embd.weight'");
  auto experts = architecture("llama", 2, 1).key("llama.expert_count", 4).number(uint32_t{8});
  experts.tensor("token_embd.weight", {4, 8}, 0, 0).pad().data(128);
  EXPECT_ERROR(config_of(experts), "llama.expert_count = 8 (mixtures of experts are not available");
  auto sizes = architecture("llama", 1, 1);
  sizes.tensor("token_embd.weight", {4, 8}, 0, 0).pad().data(128);
  EXPECT_ERROR(config_of(sizes), "x.gguf: 'llama.embedding_length' is missing");
}

TEST(WeightCache, IsReadByTheNextRun) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  load_model(gguf("llama"), options);
  auto const file = copy_in(dir / "cache") / "model.safetensors";
  auto const first = inode(file);
  auto const model = load_model(gguf("llama"), options);
  EXPECT_EQ(inode(file), first);
  EXPECT_EQ(model->parameters().size(), 21U);
}

TEST(WeightCache, BeginsItsDataOnAPage) {
  TempDir dir;
  load_model(gguf("llama"), {.cache_dir = dir / "cache"});
  auto const bytes = read_file(copy_in(dir / "cache") / "model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  EXPECT_EQ((length + sizeof length) % 4096, 0U);
}

TEST(WeightCache, IsMadeAgainWhenDamaged) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  load_model(gguf("llama"), options);
  auto const expected = load_model(gguf("llama"))->parameters();
  auto const folder = copy_in(dir / "cache");
  auto const good = read_file(folder / "model.safetensors");
  for (auto const& [name, damage] : std::vector<std::pair<std::string, std::string>>{
           {"model.safetensors", good.substr(0, good.size() - 1) + '\x7F'},
           {"model.safetensors", good.substr(0, 5000)},
           {"model.safetensors", ""},
           {"stamp.json", "{"},
           {"stamp.json", "[]"},
           {"stamp.json", R"({"checksum": 5, "identity": 3})"}}) {
    std::ofstream(folder / name) << damage;
    auto const read = load_model(gguf("llama"), options)->parameters();
    for (auto const& [key, values] : expected) EXPECT_TRUE(at::equal(read.at(key), values)) << name << key;
    EXPECT_EQ(read_file(folder / "model.safetensors"), good) << name;
  }
  fs::remove(folder / "model.safetensors");
  EXPECT_NO_THROW(load_model(gguf("llama"), options));
}

TEST(WeightCache, IsMadeAgainForAnotherSource) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  fs::copy_file(gguf("llama"), dir / "model.gguf");
  load_model(dir / "model.gguf", options);
  fs::copy_file(gguf("mistral"), dir / "model.gguf", fs::copy_options::overwrite_existing);
  auto const read = load_model(dir / "model.gguf", options)->parameters();
  EXPECT_TRUE(
      at::equal(read.at("lm_head.weight"), load_model(gguf("mistral"))->parameters().at("lm_head.weight")));
  EXPECT_NO_THROW(copy_in(dir / "cache"));
}

TEST(WeightCache, HoldsSafetensorsInAnotherType) {
  TempDir dir;
  auto const reference = load_reference("llama");
  auto const converted = all_logits(*load_model(reference.dir, {.storage_dtype = "bf16"}), reference.rows);
  LoadOptions options{.storage_dtype = "bf16", .cache_dir = dir / "cache"};
  EXPECT_TRUE(at::equal(all_logits(*load_model(reference.dir, options), reference.rows), converted));
  EXPECT_EQ(SafetensorsReader(copy_in(dir / "cache")).dtype("model.norm.weight"), "BF16");
  options.storage_dtype = "auto";
  options.cache_dir = dir / "none";
  load_model(reference.dir, options);
  EXPECT_FALSE(fs::exists(dir / "none")) << "a file that fits is mapped as it is";
}

TEST(WeightCache, ProcessesAtOnceMakeOneCopy) {
  TempDir dir;
  constexpr int kProcesses = 4;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    pid_t const child = ::fork();
    if (child == 0) {
      bool good = false;
      try {
        auto const model = load_model(gguf("llama"), {.cache_dir = dir / "cache"});
        good = model->parameters().size() == 21;
      } catch (std::exception const&) {
      }
      ::_exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (pid_t const child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  int entries = 0;
  for (auto const& entry : fs::directory_iterator(dir / "cache")) entries += entry.exists() ? 1 : 0;
  EXPECT_EQ(entries, 2) << "the copy and its lock";
}

TEST(WeightCache, AFolderThatCannotBeWrittenIsNamed) {
  TempDir dir;
  std::ofstream(dir / "file") << "x";
  EXPECT_ERROR(load_model(gguf("llama"), {.cache_dir = dir / "file" / "cache"}), "file/cache");
}

TEST(WeightCache, LeftoversOfKilledProcessesAreRemoved) {
  TempDir dir;
  LoadOptions const options{.cache_dir = dir / "cache"};
  load_model(gguf("llama"), options);
  auto const folder = copy_in(dir / "cache");
  fs::create_directories(folder.string() + ".partial.host.1");
  fs::remove(folder / "stamp.json");
  load_model(gguf("llama"), options);
  EXPECT_FALSE(fs::exists(folder.string() + ".partial.host.1"));
}

}  // namespace
}  // namespace fsllm::test
