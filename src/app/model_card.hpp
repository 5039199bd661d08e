// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>

#include "fsllm/app/adapter_info.hpp"

namespace fsllm {

/// What lies in the folder that a card describes.
enum class CardKind {
  adapter,       ///< in PEFT's format
  own_adapter,   ///< of a type that PEFT has not
  model,         ///< in Hugging Face layout
  gguf,          ///< model.gguf
  gguf_adapter,  ///< adapter.gguf
};

/// The model card (README.md, with the front matter of Hugging Face's hub) of what was trained. It says
/// nothing of machines and times, so that the same training gives the same card.
std::string model_card(CardKind kind, TrainingFacts const& facts);

/// Is this adapter_config.json of a type that peft loads?
CardKind card_kind_of_adapter(std::filesystem::path const& dir);

}  // namespace fsllm
