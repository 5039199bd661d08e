// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace fsllm::test {

/// A gzip member, or a zip archive of (name, content), as bytes.
std::string gzip(std::string const& text);
std::string zip(std::vector<std::pair<std::string, std::string>> const& files);

}  // namespace fsllm::test
