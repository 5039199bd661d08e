// SPDX-License-Identifier: Apache-2.0
#include "hand_files.hpp"

#include <set>
#include <system_error>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kLargest = std::uintmax_t{64} << 20;

/// Names and texts, one after another with their lengths.
std::string packed(std::map<std::string, std::string> const& texts) {
  std::string all;
  for (auto const& [name, text] : texts)
    all += std::to_string(name.size()) + ' ' + std::to_string(text.size()) + '\n' + name + text;
  return all;
}

std::map<std::string, std::string> unpacked(std::string const& all) {
  std::map<std::string, std::string> texts;
  for (size_t at = 0; at < all.size();) {
    size_t next = 0;
    auto const name = std::stoull(all.substr(at, 48), &next);
    at += next + 1;
    auto const size = std::stoull(all.substr(at, 24), &next);
    at += next + 1;
    texts.emplace(all.substr(at, name), all.substr(at + name, size));
    at += name + size;
  }
  return texts;
}

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
    all = packed(texts);
  }
  node.broadcast(all, 0);
  handed.add(unpacked(all));
}

}  // namespace fsllm
