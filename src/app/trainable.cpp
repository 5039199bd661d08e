// SPDX-License-Identifier: Apache-2.0
#include "trainable.hpp"

#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/io/gguf.hpp"
#include "fsllm/text/gguf_tokenizer.hpp"

namespace fsllm {
namespace {

/// Where converted weights of this run lie.
std::filesystem::path weight_cache(Setup const& s) {
  return s.run.stage_dir.empty() ? s.directory.root / "weights" : std::filesystem::path(s.run.stage_dir);
}

}  // namespace

std::unique_ptr<CausalLM> load_grown(Setup const& s, LoadOptions const& options) {
  auto model = load_model(s.model_dir, options);
  if (model->config().vocab_size < s.model.vocab_size)
    model->set_vocabulary(grown_vocabulary(model->vocabulary(), s.model.vocab_size));
  return model;
}

Trainable load_trainable(Setup const& s) {
  Trainable t;
  auto options = s.load;
  options.cache_dir = weight_cache(s);
  t.model = load_grown(s, options);
  if (s.run.peft.method.empty()) {
    t.model->make_trainable("fp32");
    t.parameters = t.model->parameters();
    return t;
  }
  t.peft = make_peft(s.run.peft, *t.model, s.run.fed.seed);
  t.parameters = t.peft->state();
  auto const& start = s.run.peft.init_from;
  bool const brought = !start.empty() && adapter_vocab_size(start, s.model) > 0;
  if (brought || s.model.vocab_size != load_model_config(s.model_dir).vocab_size)
    t.vocabulary = t.model->vocabulary();
  return t;
}

void save_values(Setup const& s, Trainable& t, std::filesystem::path const& dir, TensorMap const& values) {
  write_adapter_info(dir, s.info);
  if (t.peft) {
    save_adapter(dir, *t.peft, values, s.model_dir.string(), t.vocabulary);
  } else {
    auto const live = clone(t.parameters);
    copy_values(t.parameters, values);
    save_model(dir, *t.model, s.model_dir, "fp32");
    if (is_gguf(s.model_dir)) export_gguf_tokenizer(s.model_dir, dir);
    copy_values(t.parameters, live);
  }
  if (!s.vocabulary.is_own) return;
  save_tokenizer(s.vocabulary.source, s.run.data.added_tokens, dir);
  if (!t.peft) write_special_ids(dir, *s.vocabulary.tokenizer);
}

void warn_of_memory(int64_t weights) {
  int64_t const available = available_memory();
  if (available > 0 && weights > available)
    log_warning(
        "{:.0f} MiB of weights ({:.0f} MiB of memory are available): every step will read some from disk. "
        "Use another train.storage_dtype, or a machine with more memory.",
        static_cast<double>(weights) / 1048576, static_cast<double>(available) / 1048576);
}

}  // namespace fsllm
