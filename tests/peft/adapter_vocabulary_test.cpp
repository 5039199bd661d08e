// SPDX-License-Identifier: Apache-2.0
// Embeddings that an adapter's folder brings along.
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/safetensors.hpp"
#include "peft_fixture.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

constexpr int64_t kNew = 3;

/// An adapter on a model with kNew more tokens, saved with its embeddings.
class GrownAdapter {
 public:
  GrownAdapter(std::string const& name, std::string const& args) : reference_(load_reference(name)) {
    auto const model = load_model(reference_.dir);
    model->set_vocabulary(grown_vocabulary(model->vocabulary(), model->config().vocab_size + kNew));
    auto const peft = make_peft(peft_of(args), *model, 3);
    save_adapter(dir_.path(), *peft, peft->state(), "base", model->vocabulary());
    logits_ = all_logits(*model, reference_.rows);
  }
  TensorMap tensors() const { return SafetensorsReader(dir_.path(), "adapter_model").tensors(); }
  void write(TensorMap const& tensors) const {
    write_safetensors(dir_ / "adapter_model.safetensors", clone(tensors));
  }
  /// Logits of the base model with the adapter of the folder.
  at::Tensor loaded_logits() const {
    auto const model = load_model(reference_.dir);
    auto const peft = make_peft(read_adapter_config(dir_.path()), *model, 0);
    return all_logits(*model, reference_.rows);
  }
  at::Tensor const& logits() const { return logits_; }

 private:
  Reference reference_;
  TempDir dir_;
  at::Tensor logits_;
};

struct Case {
  char const *model, *args;
  std::vector<std::string> names;  ///< of the embeddings in the file, as peft 0.21 writes them
};

TEST(AdapterVocabulary, HasPeftsNamesAndComesBack) {
  std::vector<Case> const cases{
      {"llama",
       "adapter_method: lora",
       {"base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"}},
      {"llama",
       "adapter_method: prompt",
       {"base_model.model.embed_tokens.weight", "base_model.lm_head.weight"}},
      {"llama",
       "adapter_method: prefix",
       {"base_model.model.embed_tokens.weight", "base_model.lm_head.weight"}},
      {"gpt2", "adapter_method: lora", {"base_model.model.transformer.wte.weight"}},
      {"gptj",
       "adapter_method: lora, bias: all",
       {"base_model.model.transformer.wte.weight", "base_model.model.lm_head.weight",
        "base_model.model.lm_head.bias"}}};
  for (auto const& [model, args, names] : cases) {
    SCOPED_TRACE(std::string(model) + ": " + args);
    GrownAdapter const adapter(model, args);
    auto const tensors = adapter.tensors();
    for (auto const& name : names) EXPECT_EQ(tensors.count(name), 1U) << name;
    EXPECT_TRUE(at::equal(adapter.loaded_logits(), adapter.logits()));
  }
}

TEST(AdapterVocabulary, ATiedHeadMayStandTwice) {
  GrownAdapter const adapter("gpt2", "adapter_method: lora");
  auto tensors = adapter.tensors();
  tensors["base_model.model.lm_head.weight"] = tensors.at("base_model.model.transformer.wte.weight");
  adapter.write(tensors);
  EXPECT_TRUE(at::equal(adapter.loaded_logits(), adapter.logits()));
  auto other = clone(tensors);
  other.at("base_model.model.lm_head.weight").add_(1);
  adapter.write(other);
  EXPECT_ERROR(adapter.loaded_logits(), "base_model.model.lm_head.weight is not the embedding");
}

TEST(AdapterVocabulary, PartsThatDoNotFitAreNamed) {
  GrownAdapter const adapter("llama", "adapter_method: lora");
  auto const whole = adapter.tensors();
  std::string const head = "base_model.model.lm_head.weight",
                    embedding = "base_model.model.model.embed_tokens.weight";
  auto const spoiled = [&](std::string const& name, at::Tensor const& tensor) {
    auto tensors = whole;
    tensors[name] = tensor;
    adapter.write(tensors);
  };
  int64_t const rows = whole.at(head).size(0), width = whole.at(head).size(1);
  spoiled(head, at::zeros({rows - 1, width}));
  EXPECT_ERROR(adapter.loaded_logits(), head + " has shape [98, 32] (this model needs [99, 32])");
  spoiled(embedding, at::zeros({rows, width + 1}));
  EXPECT_ERROR(adapter.loaded_logits(), embedding + " has shape [99, 33] (this model needs [99, 32])");
  auto tensors = whole;
  tensors.erase(head);
  adapter.write(tensors);
  EXPECT_ERROR(adapter.loaded_logits(), "holds an embedding but no lm_head.weight");
  tensors = whole;
  tensors.erase(embedding);
  adapter.write(tensors);
  EXPECT_ERROR(adapter.loaded_logits(), "unexpected tensor " + head);
}

TEST(AdapterVocabulary, IsMergedWithTheAdapter) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  model->set_vocabulary(grown_vocabulary(model->vocabulary(), model->config().vocab_size + kNew));
  auto const peft = make_peft(peft_of("adapter_method: lora, bias: all"), *model, 3);
  auto const logits = all_logits(*model, reference.rows);
  peft->merge_into(*model);
  TempDir out;
  save_model(out.path(), *model, reference.dir, "fp32");
  EXPECT_TRUE(tensors_near(all_logits(*load_model(out.path()), reference.rows), logits, 1e-5));
}

}  // namespace
}  // namespace fsllm::test
