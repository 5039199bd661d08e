// SPDX-License-Identifier: Apache-2.0
// Every row of the family table, one after the other: a new row without a fixture fails here.
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/tensor_map.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

/// How a family spells what every config.json must say.
struct Keys {
  std::string hidden, layers, heads;
  std::string activation;  ///< empty: the family has but one
};

std::map<std::string, Keys> const& keys() {
  static Keys const llama{"hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act"};
  static Keys const gpt2{"n_embd", "n_layer", "n_head", "activation_function"};
  static std::map<std::string, Keys> const table{
      {"llama", llama},
      {"mistral", llama},
      {"qwen2", llama},
      {"qwen3", llama},
      {"phi3", llama},
      {"gpt_neox", llama},
      {"gemma", llama},
      {"falcon", {"hidden_size", "num_hidden_layers", "num_attention_heads", "activation"}},
      {"gemma2", {"hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_activation"}},
      {"opt", {"hidden_size", "num_hidden_layers", "num_attention_heads", "activation_function"}},
      {"gpt2", gpt2},
      {"gptj", gpt2},
      {"gpt_neo", {"hidden_size", "num_layers", "num_heads", "activation_function"}},
      {"bloom", {"hidden_size", "n_layer", "n_head", ""}}};
  return table;
}

/// A folder with a fixture's config.json, which tests spoil.
class Config {
 public:
  explicit Config(std::string const& name) : good(read_json(load_reference(name).dir / "config.json")) {}
  ModelConfig load(json const& config) const {
    std::ofstream(dir_ / "config.json") << config;
    return load_model_config(dir_.path());
  }
  ModelConfig load(std::string const& key, json const& value) const {
    auto config = good;
    config[key] = value;
    return load(config);
  }
  /// One message that begins with the file and holds `problem`.
  void expect_refused(std::string const& key, json const& value, std::string const& problem) const {
    SCOPED_TRACE(good.at("model_type").get<std::string>() + ": " + key + " = " + value.dump());
    EXPECT_ERROR(load(key, value), (dir_ / "config.json").string() + ": " + problem);
  }
  json const good;

 private:
  TempDir dir_;
};

TEST(FamilyTable, EveryRowHasAFixture) {
  for (auto const& family : known_model_families()) {
    ASSERT_FALSE(references_of(family).empty())
        << family << ": add it to tests/reference/make_model_goldens.py and run that";
    ASSERT_EQ(keys().count(family), 1U) << family << ": add its keys to this test";
    for (auto const& name : references_of(family)) {
      auto const reference = load_reference(name);
      auto const model = load_model(reference.dir);
      EXPECT_EQ(model->config().family, family);
      EXPECT_EQ(num_parameters(model->parameters()), reference.parameters)
          << name << ": as transformers counts";
    }
  }
}

/// The tensors go out under the names of the file, bit by bit, and what was written is a model like the
/// first.
TEST(FamilyTable, EveryRowSavesWhatItLoaded) {
  for (auto const& family : known_model_families())
    for (auto const& name : references_of(family)) {
      SCOPED_TRACE(name);
      auto const reference = load_reference(name);
      TempDir dir;
      auto const first = load_model(reference.dir);
      save_model(dir / "out", *first, reference.dir, "fp32");
      auto const before = SafetensorsReader(reference.dir).tensors(),
                 after = SafetensorsReader(dir / "out").tensors();
      ASSERT_EQ(before.size(), after.size());
      for (auto const& [tensor, values] : before) EXPECT_TRUE(at::equal(after.at(tensor), values)) << tensor;
      auto const second = load_model(dir / "out");
      EXPECT_EQ(second->config(), first->config());
      EXPECT_TRUE(at::equal(all_logits(*second, reference.rows), all_logits(*first, reference.rows)));
    }
}

TEST(FamilyTable, EveryRowNamesWhatIsMissingInItsConfig) {
  for (auto const& family : known_model_families()) {
    Config const config(references_of(family).front());
    auto const& row = keys().at(family);
    for (auto const& key : {std::string("vocab_size"), row.hidden, row.layers, row.heads}) {
      config.expect_refused(key, nullptr, "'" + key + "' is missing");
      config.expect_refused(key, "many", "'" + key + "' = \"many\" (a whole number is needed)");
      config.expect_refused(key, 0, "'" + key + "' = 0 (must be in 1 ..");
    }
  }
}

TEST(FamilyTable, EveryRowRefusesWhatItCannotCompute) {
  for (auto const& family : known_model_families()) {
    Config const config(references_of(family).front());
    auto const& row = keys().at(family);
    if (!row.activation.empty())
      config.expect_refused(
          row.activation, "gelo",
          "'" + row.activation + "' = 'gelo' (not a known activation). Did you mean 'gelu'?");
    if (config.good.contains("head_dim"))
      config.expect_refused("num_key_value_heads", 3,
                            "4 attention heads (not a multiple of 3 key/value heads)");
    else
      config.expect_refused(row.heads, 5, "hidden size 32 (not a multiple of 5 heads)");
    auto const rope =
        std::string(config.good.contains("rope_parameters") ? "rope_parameters" : "rope_scaling");
    if (config.load(config.good).position == PositionKind::rope && family != "gptj")
      config.expect_refused(rope, {{"rope_type", "spiral"}},
                            rope + ": rope_type = 'spiral' (known: default,");
  }
}

/// Whatever stands behind a key: it does not matter, or the message names file and key.
TEST(FamilyTable, EveryKeyOfAWrongTypeIsNamedOrUnread) {
  for (auto const& name : reference_names()) {
    Config const config(name);
    auto const expected = config.load(config.good);
    size_t refused = 0;
    for (auto const& [key, value] : config.good.items()) {
      if (key == "model_type") continue;
      for (json const& wrong : {value.is_structured() ? json(3) : json{{"x", 1}}, json("spiral")}) try {
          EXPECT_EQ(config.load(key, wrong), expected) << name << ": " << key << " = " << wrong;
        } catch (Error const& error) {
          ++refused;
          EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("config.json: "),
                                                   testing::HasSubstr("'" + key + "'")));
        }
    }
    EXPECT_GE(refused, 10U) << name;
  }
}

/// A copy of a fixture that lacks one tensor after the other.
TEST(FamilyTable, EveryTensorIsNamedWhereItDoesNotFit) {
  for (auto const& family : known_model_families()) {
    auto const reference = load_reference(references_of(family).front());
    auto const whole = SafetensorsReader(reference.dir).tensors();
    TempDir dir;
    copy_model(reference.dir, dir.path());
    auto const expect = [&](TensorMap const& tensors, std::string const& problem) {
      write_safetensors(dir / "model.safetensors", tensors);
      EXPECT_ERROR(load_model(dir.path()), problem);
    };
    for (auto const& [name, tensor] : whole) {
      auto tensors = whole;
      tensors[name] = at::zeros({3, 1, 2});
      expect(tensors, name + " has shape [3, 1, 2] (config.json asks for [");
      tensors.erase(name);
      expect(tensors, "missing: " + name);
      tensors[name] = tensor;
      tensors[name + ".more"] = tensor;
      expect(tensors, "unexpected: " + name + ".more");
    }
  }
}

}  // namespace
}  // namespace fsllm::test
