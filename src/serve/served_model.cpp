// SPDX-License-Identifier: Apache-2.0
#include "fsllm/serve/served_model.hpp"

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// The template that chats are written in. A model without one, or with one that cannot be read here, still
/// answers completions.
std::optional<PromptTemplate> chat_template(std::string const& id, fs::path const& model_dir,
                                            std::optional<TemplateConfig> const& given) {
  if (given) return make_prompt_template(*given);
  if (read_chat_template(model_dir).empty()) return std::nullopt;
  try {
    return make_prompt_template({.name = "model", .model = model_dir.string()});
  } catch (Error const& error) {
    log_warning("{}: no chats, completions alone ({})", id, error.what());
    return std::nullopt;
  }
}

}  // namespace

ModelWithAdapters::ModelWithAdapters(fs::path model_dir, LoadOptions const& load)
    : model_dir_(std::move(model_dir)),
      model_(load_model(model_dir_, load)),
      vocabulary_(model_->vocabulary()) {}

void ModelWithAdapters::add(ServedAdapter const& adapter, std::optional<TemplateConfig> const& prompt) {
  for (auto const& other : served_)
    FSLLM_CHECK(other.id != adapter.id,
                "two models are called '{}' (requests name them). Give the adapter another name.",
                adapter.id);
  if (!adapters_.empty() && adapters_[used_].peft) adapters_[used_].peft->detach(*model_);
  model_->set_vocabulary(vocabulary_);
  auto peft = adapter.dir.empty() ? nullptr : make_peft(read_adapter_config(adapter.dir), *model_, 0);
  adapters_.push_back({std::move(peft), model_->vocabulary()});
  used_ = adapters_.size() - 1;
  ServedModel served{adapter.id,
                     tokenizer_of(tokenizer_source(model_dir_, adapter.dir)),
                     chat_template(adapter.id, model_dir_, prompt),
                     model_->config().vocab_size,
                     model_->config().max_positions,
                     model_->config().eos_ids};
  if (served.tokenizer && served.tokenizer->eos_id()) served.stop_ids.push_back(*served.tokenizer->eos_id());
  served_.push_back(std::move(served));
}

std::shared_ptr<Tokenizer const> ModelWithAdapters::tokenizer_of(fs::path const& source) {
  for (auto const& [path, tokenizer] : tokenizers_)
    if (path == source) return tokenizer;
  auto tokenizer = has_tokenizer(source) ? load_tokenizer(source) : nullptr;
  return tokenizers_.emplace_back(source, std::move(tokenizer)).second;
}

void ModelWithAdapters::use(size_t index) {
  if (index == used_) return;
  if (adapters_[used_].peft) adapters_[used_].peft->detach(*model_);
  used_ = index;
  model_->set_vocabulary(adapters_[index].vocabulary);
  if (adapters_[index].peft) adapters_[index].peft->attach(*model_);
}

}  // namespace fsllm
