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

ServedModel serve_adapter(ModelSession& session, ServedAdapter const& adapter, fs::path const& model_dir,
                          std::optional<TemplateConfig> const& prompt) {
  size_t number = 0;
  if (adapter.dir.empty())
    session.use(0);
  else
    number = session.add(adapter.dir);
  auto const& config = session.model().config();
  return {adapter.id,          number,
          session.tokenizer(), chat_template(adapter.id, model_dir, prompt),
          config.vocab_size,   config.max_positions,
          session.stop_ids()};
}

}  // namespace fsllm
