// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "fsllm/core/config.hpp"

namespace fsllm {

/// The path with a "~" or "~user" at its front and every $NAME and ${NAME} replaced, as Python's
/// os.path.expanduser and os.path.expandvars do it; but a variable that is not set, or an unknown user, is an
/// Error. `where` is what messages call the path.
std::string expand_path(std::string const& path, std::string const& where);

/// Keys of the configuration that hold paths; the resolved configuration keeps them as they were written.
std::string get_path(Config& config, std::string const& key, std::string const& fallback,
                     std::string const& doc);
std::vector<std::string> get_paths(Config& config, std::string const& key, std::string const& doc);

}  // namespace fsllm
