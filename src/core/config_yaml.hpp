// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm::detail {

/// One value of the document, addressed by its dotted path.
struct YamlEntry {
  enum class Kind { null, scalar, list } kind = Kind::null;
  std::string text;                ///< scalar
  std::vector<std::string> items;  ///< list of scalars
  std::string source;              ///< file, or "command line"
  int line = 0;                    ///< from 1; 0 on the command line
  std::string problem;             ///< why the text is no list or map although it begins as one
};

/// A YAML document as a flat table: maps become dotted paths, entries of lists of maps `path[i]`.
struct FlatYaml {
  std::map<std::string, YamlEntry> entries;
  std::map<std::string, int64_t> list_sizes;    ///< of lists of maps
  std::vector<std::string> order;               ///< paths as they stand in the file
  std::map<std::string, std::string> literals;  ///< values of the command line as they were typed
};

/// "run.yaml:12: train.optimizer.lr": where the value of a key stands.
std::string place_of(std::string const& path, YamlEntry const& entry);

/// Does `path` lie below `prefix`?
bool is_under(std::string_view path, std::string_view prefix);
/// Removes a key with everything below it.
void erase_tree(FlatYaml& given, std::string const& path);

/// Parses a document; `prefix` is put before every path. Broken YAML is an Error with file and line.
FlatYaml flatten_yaml(std::string_view yaml, std::string const& source, std::string const& prefix);

/// A value of the command line: a list or a map where it reads as one in YAML's flow style ("[a, b]",
/// "{type: SGD}"), else the text itself. A string key takes the text in either case, from `literals`.
FlatYaml flatten_argument(std::string_view text, std::string const& path);

/// Values as a message lists them; as in a YAML file, nothing is ''.
std::string listed(std::vector<std::string> const& choices);

/// Nested YAML text of dotted paths; each value is YAML itself ("3", "[1, 2]", "'text'").
std::string nest_yaml(std::vector<std::pair<std::string, std::string>> const& values);

/// A string as a YAML scalar that reads back as the same string.
std::string quote_yaml(std::string const& text);

}  // namespace fsllm::detail
