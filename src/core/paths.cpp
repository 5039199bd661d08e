// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/paths.hpp"

#include <pwd.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

/// Of the user, or of whoever runs the program.
std::string home_of(std::string const& user) {
  char const* home = std::getenv("HOME");
  if (user.empty() && home != nullptr) return home;
  auto const* entry = user.empty() ? ::getpwuid(::getuid()) : ::getpwnam(user.c_str());
  return entry == nullptr || entry->pw_dir == nullptr ? "" : entry->pw_dir;
}

std::string with_home(std::string const& path, std::string const& where) {
  if (!path.starts_with('~')) return path;
  auto const end = std::min(path.find('/'), path.size());
  auto const user = path.substr(1, end - 1);
  auto const home = home_of(user);
  FSLLM_CHECK(!home.empty(), "{} = '{}' (no home folder of {} is known). Write the path out.", where, path,
              user.empty() ? "this user" : "a user '" + user + "'");
  return (home == "/" && end < path.size() ? "" : home) + path.substr(end);
}

}  // namespace

std::string expand_path(std::string const& path, std::string const& where) {
  auto const given = with_home(path, where);
  std::string expanded;
  for (size_t at = 0; at < given.size();) {
    bool const braces = given.compare(at, 2, "${") == 0;
    size_t const begin = at + (braces ? 2 : 1);
    size_t end = begin;
    if (braces)
      end = given.find('}', begin);
    else if (given[at] == '$')
      while (end < given.size() && is_word(given[end])) ++end;
    if (given[at] != '$' || end == std::string::npos || end == begin) {
      expanded += given[at++];
      continue;
    }
    auto const name = given.substr(begin, end - begin);
    char const* value = std::getenv(name.c_str());
    FSLLM_CHECK(value != nullptr,
                "{} = '{}' (the environment has no variable {}). Set it, or write the path out.", where, path,
                name);
    expanded += value;
    at = end + (braces ? 1 : 0);
  }
  return expanded;
}

std::string get_path(Config& config, std::string const& key, std::string const& fallback,
                     std::string const& doc) {
  return expand_path(config.get(key, fallback, doc), config.where(key));
}

std::vector<std::string> get_paths(Config& config, std::string const& key, std::string const& doc) {
  auto paths = config.get<std::vector<std::string>>(key, {}, doc);
  for (auto& path : paths) path = expand_path(path, config.where(key));
  return paths;
}

}  // namespace fsllm
