// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/core/config.hpp"

namespace fsllm {

/// What becomes of a key (or section) of DeepSpeed's JSON.
struct DeepSpeedKey {
  enum class Use { mapped, unread, refused };
  char const* path;
  Use use;
  char const* what;           ///< our key, or why it has no effect here, or why it is not available
  char const* off = nullptr;  ///< of refused ones: values that ask for nothing, separated by '|'
};

/// All that are known, by their names in DeepSpeed 0.16 (docs/DEEPSPEED.md has the same table; a test holds
/// it to this one). A section stands for what is below it, unless that has a row of its own.
std::vector<DeepSpeedKey> const& deepspeed_keys();

/// The row of a key: its own, or that of the nearest section around it; null where nothing is known.
DeepSpeedKey const* find_deepspeed_key(std::string const& path);

/// Is a switch on, in a configuration whose keys are not declared yet?
bool is_on(Config const& config, std::string const& key);
/// The file that a key names, as given (from the working directory, as FS-LLM) or else beside `yaml`; empty
/// where it names none.
std::filesystem::path file_beside(Config const& config, std::string const& key, std::string const& yaml);

/// That of `llm.deepspeed.ds_config`; "" while llm.deepspeed.use is off. The Error says what is missing.
std::string deepspeed_file(Config const& config, std::string const& yaml);

/// `config` with what the JSON text of `source` says as our own keys, at their lines there, and
/// `llm.deepspeed.use` off. `ranks` of the world train a client where the JSON asks for a stage of ZeRO and
/// hpc.ranks_per_client is not given. Unknown keys, keys that are not available, and values that contradict
/// those of `config` are an Error that names all of them.
Config with_deepspeed(Config const& config, std::string_view json, std::string const& source, int64_t ranks);

}  // namespace fsllm
