// SPDX-License-Identifier: Apache-2.0
#include "hand_files.hpp"

#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kLargest = std::uintmax_t{64} << 20;

}  // namespace

std::vector<fs::path> small_files(fs::path const& folder) {
  static std::set<std::string> const kinds{".json", ".jinja", ".model", ".tiktoken", ".txt"};
  std::vector<fs::path> files;
  std::error_code none;
  for (auto const& entry : fs::directory_iterator(folder, none))
    if (kinds.contains(entry.path().extension().string())) files.push_back(folder / entry.path().filename());
  return files;
}

void hand_files(HandedFiles& handed, std::vector<fs::path> const& files, Communicator const& comm) {
  auto const node = comm.split_by_node();
  std::string all;
  if (node.rank() == 0) {
    std::map<std::string, std::string> texts;
    for (auto const& file : files) try {
        std::error_code none;
        if (fs::is_regular_file(file, none) && fs::file_size(file, none) <= kLargest)
          texts.emplace(file.string(), read_file(file));
      } catch (Error const&) {  // told where the file is needed
      }
    auto const bytes = nlohmann::json::to_cbor(texts);  // texts of any bytes
    all.assign(bytes.begin(), bytes.end());
  }
  node.broadcast(all, 0);
  handed.add(nlohmann::json::from_cbor(all).get<std::map<std::string, std::string>>());
}

}  // namespace fsllm
