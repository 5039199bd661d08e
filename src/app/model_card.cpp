// SPDX-License-Identifier: Apache-2.0
#include "model_card.hpp"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "fsllm/io/jsonl.hpp"
#include "public_name.hpp"

namespace fsllm {
namespace {

/// A scalar of YAML: in quotes where it is not a plain word.
std::string yaml(std::string const& text) {
  return is_hub_name(text) ? text : nlohmann::json(text).dump();
}

char const* library_of(CardKind kind) {
  switch (kind) {
    case CardKind::adapter:
      return "peft";
    case CardKind::model:
      return "transformers";
    case CardKind::gguf:
    case CardKind::gguf_adapter:
      return "gguf";
    case CardKind::own_adapter:
      break;
  }
  return nullptr;
}

/// Is it known what was trained, and how? An adapter of other programs says nothing.
bool is_trained(TrainingFacts const& facts) {
  return !facts.algorithm.empty();
}

std::string front_matter(CardKind kind, TrainingFacts const& facts) {
  auto text = fmt::format("---\nbase_model: {}\n", yaml(facts.base_model_name));
  if (auto const* library = library_of(kind)) text += fmt::format("library_name: {}\n", library);
  if (!facts.license.empty()) text += fmt::format("license: {}\n", yaml(facts.license));
  text += "pipeline_tag: text-generation\ntags:\n- fsllm_hpc\n";
  if (is_trained(facts)) text += "- federated-learning\n";
  if (!facts.adapter.empty()) text += fmt::format("- {}\n", facts.adapter);
  return text + "---\n";
}

std::string training(TrainingFacts const& facts) {
  if (!is_trained(facts)) return "";
  auto text = fmt::format(
      "\n## Training\n\n| | |\n|---|---|\n| data | {}, split by `{}` |\n| clients | {} |\n"
      "| rows to learn from | {} ({} tokens) |\n| algorithm | `{}`, {} |\n| rounds | {} |\n",
      facts.data, facts.splitter, facts.clients, facts.rows, facts.tokens, facts.algorithm,
      facts.adapter.empty() ? "all parameters" : "adapter `" + facts.adapter + "`", facts.round);
  for (auto const* split : {"train", "val", "test"})
    if (auto const loss = facts.losses.find(split); loss != facts.losses.end())
      text += fmt::format("| loss a {}, {} | {:.4f} |\n", facts.loss_unit, split, loss->second);
  return text;
}

std::string python(std::string const& code) {
  return "```python\n" + code + "```\n";
}

std::string loading(CardKind kind, TrainingFacts const& facts) {
  auto const base = nlohmann::json(facts.base_model_name).dump();
  switch (kind) {
    case CardKind::adapter:
      return python(
          "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
          "base = AutoModelForCausalLM.from_pretrained(" +
          base + ")\nmodel = PeftModel.from_pretrained(base, \"PATH/OF/THIS/FOLDER\")\n");
    case CardKind::model:
      return python(
          "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
          "model = AutoModelForCausalLM.from_pretrained(\"PATH/OF/THIS/FOLDER\")\n"
          "tokenizer = AutoTokenizer.from_pretrained(\"PATH/OF/THIS/FOLDER\")\n");
    case CardKind::gguf:
      return "```sh\nllama-cli -m model.gguf\n```\n";
    case CardKind::gguf_adapter:
      return fmt::format(
          "BASE.gguf is {} in GGUF:\n\n```sh\nllama-cli -m BASE.gguf --lora adapter.gguf\n```\n",
          facts.base_model_name);
    case CardKind::own_adapter:
      break;
  }
  return "peft has no adapter of this type; fsllm_hpc's programs load it:\n\n"
         "```sh\nfsllm_eval --model MODEL --adapter PATH/OF/THIS/FOLDER --tasks gsm8k --data DATA --out "
         "OUT\n```\n";
}

}  // namespace

std::string model_card(CardKind kind, TrainingFacts const& facts) {
  bool const is_adapter = kind != CardKind::model && kind != CardKind::gguf;
  auto title = facts.base_model_name;
  if (is_adapter)
    title = "An adapter of " + title;
  else if (is_trained(facts))
    title += ", fine-tuned";
  return front_matter(kind, facts) + "\n# " + title + "\n\n" +
         (is_trained(facts) ? "Trained with fsllm_hpc, by federated fine-tuning.\n"
                            : "Written by fsllm_export.\n") +
         training(facts) + "\n## Loading\n\n" + loading(kind, facts) +
         (facts.license.empty() ? "\nThe base model's files name no licence: ask its publisher.\n"
                                : "\nThe licence is the base model's.\n");
}

CardKind card_kind_of_adapter(std::filesystem::path const& dir) {
  auto const type = read_json(dir / "adapter_config.json").value("peft_type", "");
  return type == "BOTTLENECK" || type == "MAM" ? CardKind::own_adapter : CardKind::adapter;
}

}  // namespace fsllm
