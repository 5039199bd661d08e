// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

namespace fsllm {

/// What `--list WHAT` prints: names with a sentence each, of the tables that the program works by. Without
/// WHAT: what there is to list.
std::string listing(std::string const& what);

/// An example configuration that is built in (configs/examples), as its file says it. An unknown name is an
/// Error with the nearest one.
std::string const& example(std::string const& name);

/// `--cfg example:NAME` names a built-in example.
inline constexpr char const* kExamplePrefix = "example:";

}  // namespace fsllm
