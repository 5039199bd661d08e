// SPDX-License-Identifier: Apache-2.0
// Prompt tuning (Lester et al. 2021): the embeddings of virtual tokens are learned themselves.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include "fsllm/core/error.hpp"
#include "methods.hpp"
#include "prompt_learning.hpp"

namespace fsllm::detail {
namespace {

constexpr char const* kEmbeddings = "prompt_embeddings";

struct PromptOptions {
  int64_t tokens = 20;
  std::string init = "RANDOM", text, tokenizer;
};

/// The embeddings of the text's tokens, repeated or cut to `tokens` rows.
at::Tensor text_embeddings(std::vector<int32_t> const& ids, int64_t tokens, CausalLM& model) {
  std::vector<int64_t> rows;
  for (size_t i = 0; std::cmp_less(i, tokens); ++i) rows.push_back(ids[i % ids.size()]);
  return model.embeddings(at::tensor(rows, at::kLong)).to(at::kFloat);
}

class Prompt final : public PromptEncoder {
 public:
  Prompt(PeftConfig const& config, CausalLM& model)
      : PromptEncoder("PROMPT_TUNING", options_of<PromptOptions>(config).tokens, model),
        options_(options_of<PromptOptions>(config)) {
    add(kEmbeddings, {count(), model.config().hidden_size});
    if (options_.init != "TEXT" || !config.init_from.empty()) return;
    FSLLM_CHECK(
        !config.init_ids.empty(),
        "{}.prompt_tuning_init_text = '{}' (prompt_tuning_init: TEXT needs a text with tokens). Write "
        "one.",
        kArgs, options_.text);
    from_text_ = text_embeddings(config.init_ids, count(), model);
  }

  at::Tensor prompt(TensorMap const& parameters, Pass const&) const override {
    return parameters.at(kEmbeddings);
  }

  void initialize(uint64_t seed) const override {
    draw(seed);
    at::NoGradGuard const no_grad;
    if (from_text_.defined()) parameters().at(kEmbeddings).copy_(from_text_);
  }

  void describe(nlohmann::ordered_json& json, std::string const& base_model) const override {
    json["prompt_tuning_init"] = options_.init;
    json["prompt_tuning_init_text"] = nullptr;
    json["tokenizer_name_or_path"] = nullptr;
    if (options_.init != "TEXT") return;
    json["prompt_tuning_init_text"] = options_.text;
    json["tokenizer_name_or_path"] = options_.tokenizer.empty() ? base_model : options_.tokenizer;
  }

 private:
  PromptOptions options_;
  at::Tensor from_text_;
};

}  // namespace

std::any read_prompt(Arguments& arguments, PeftConfig& shared) {
  PromptOptions prompt;
  prompt.tokens = read_virtual_tokens(arguments, shared);
  for (auto const* name : {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"})
    arguments.forget_saved(name);
  prompt.init =
      arguments.get("prompt_tuning_init", prompt.init,
                    "Virtual tokens start as noise, or as the tokens of a text.", one_of({"RANDOM", "TEXT"}));
  prompt.text = arguments.get("prompt_tuning_init_text", "", "The text for prompt_tuning_init: TEXT.");
  prompt.tokenizer =
      arguments.get("tokenizer_name_or_path", "", "Accepted; the model's own tokenizer is used.");
  if (prompt.init == "TEXT") shared.init_text = prompt.text;
  return prompt;
}

std::unique_ptr<Peft> make_prompt(PeftConfig const& config, CausalLM& model) {
  return std::make_unique<PromptLearning>(std::make_shared<Prompt>(config, model), model.config());
}

}  // namespace fsllm::detail
