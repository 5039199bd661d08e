// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/model_session.hpp"

#include "fsllm/app/merge.hpp"
#include "fsllm/app/vocabulary.hpp"
#include "fsllm/core/log.hpp"

namespace fsllm {

ModelSession::ModelSession(std::filesystem::path model_dir, LoadOptions const& options)
    : model_dir_(std::move(model_dir)),
      model_(load_model(model_dir_, options)),
      vocabulary_(model_->vocabulary()) {
  use_adapter("");
}

void ModelSession::use_adapter(std::filesystem::path const& adapter) {
  if (peft_) peft_->detach(*model_);
  peft_.reset();
  model_->set_vocabulary(vocabulary_);
  if (!adapter.empty()) peft_ = make_peft(read_adapter_config(adapter), *model_, 0);
  if (!adapter.empty() && std::filesystem::exists(update_file(adapter)))
    log_info(
        "{} is the best adapter of its rank for what was trained; the whole is what fsllm_export --merge "
        "writes",
        adapter.string());
  auto const source = tokenizer_source(model_dir_, adapter);
  if (source == tokenizer_source_) return;
  tokenizer_ = has_tokenizer(source) ? load_tokenizer(source) : nullptr;
  tokenizer_source_ = source;
}

}  // namespace fsllm
