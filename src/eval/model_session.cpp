// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/model_session.hpp"

namespace fsllm {

ModelSession::ModelSession(std::filesystem::path model_dir, LoadOptions const& options)
    : model_dir_(std::move(model_dir)), model_(load_model(model_dir_, options)) {
  auto const source = tokenizer_source(model_dir_, {});
  adapters_.push_back({nullptr, model_->vocabulary(), source, tokenizer_of(source)});
}

size_t ModelSession::add(std::filesystem::path const& adapter) {
  use(0);
  auto const source = tokenizer_source(model_dir_, adapter);
  auto tokenizer = tokenizer_of(source);
  auto peft = make_peft(read_adapter_config(adapter), *model_, 0);
  adapters_.push_back({std::move(peft), model_->vocabulary(), source, std::move(tokenizer)});
  return used_ = adapters_.size() - 1;
}

void ModelSession::use(size_t adapter) {
  if (adapter == used_) return;
  if (adapters_[used_].peft) adapters_[used_].peft->detach(*model_);
  used_ = adapter;
  model_->set_vocabulary(adapters_[used_].vocabulary);
  if (adapters_[used_].peft) adapters_[used_].peft->attach(*model_);
}

std::vector<int32_t> ModelSession::stop_ids() const {
  auto ids = model_->config().eos_ids;
  if (tokenizer() && tokenizer()->eos_id()) ids.push_back(*tokenizer()->eos_id());
  return ids;
}

std::shared_ptr<Tokenizer const> ModelSession::tokenizer_of(std::filesystem::path const& source) const {
  for (auto const& adapter : adapters_)
    if (adapter.tokenizer_source == source) return adapter.tokenizer;
  return has_tokenizer(source) ? load_tokenizer(source) : nullptr;
}

}  // namespace fsllm
