// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/handed_files.hpp"

namespace fsllm {
namespace {

HandedFiles const* living = nullptr;

}  // namespace

HandedFiles::HandedFiles() {
  living = this;
}

HandedFiles::~HandedFiles() {
  living = nullptr;
}

std::string const* HandedFiles::find(std::string const& path) {
  if (living == nullptr) return nullptr;
  auto const found = living->texts_.find(path);
  return found == living->texts_.end() ? nullptr : &found->second;
}

}  // namespace fsllm
