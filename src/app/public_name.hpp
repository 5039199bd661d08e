// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>

namespace fsllm {

/// The name under which others find a model (a folder or a GGUF file): `chosen`, else what its files say,
/// else the last part of its path. Never a path of this machine.
std::string public_name(std::filesystem::path const& model, std::string const& chosen = {});

/// What the model's folder or GGUF metadata says of its licence, as a model card has it ("apache-2.0"); ""
/// where it says nothing, "other" for a text that is not known.
std::string license_of(std::filesystem::path const& model);

/// "owner/name" or "name", as a hub of models takes it.
bool is_hub_name(std::string const& name);

}  // namespace fsllm
