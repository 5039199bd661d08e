// SPDX-License-Identifier: Apache-2.0
// config.json of a model and adapter_config.json of an adapter: an Error, or numbers that can be.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "fsllm/core/error.hpp"
#include "fsllm/model/config.hpp"
#include "fsllm/peft/peft.hpp"

namespace {

/// A folder for the two files, removed at exit.
struct Folder {
  std::filesystem::path path;
  Folder() {
    auto name = (std::filesystem::temp_directory_path() / "fsllm_fuzz_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  static Folder const folder;
  std::string_view const bytes(reinterpret_cast<char const*>(data), size);
  for (auto const* name : {"config.json", "adapter_config.json"})
    std::ofstream(folder.path / name, std::ios::binary) << bytes;
  try {
    auto const config = fsllm::load_model_config(folder.path);
    if (config.num_layers < 1 || config.num_heads < 1 || config.head_dim < 1 || config.vocab_size < 1 ||
        config.num_heads % config.num_kv_heads != 0)
      std::abort();
  } catch (fsllm::Error const&) {
  }
  try {
    if (fsllm::read_adapter_config(folder.path).method.empty()) std::abort();
  } catch (fsllm::Error const&) {
  }
  return 0;
}
