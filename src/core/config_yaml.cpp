// SPDX-License-Identifier: Apache-2.0
#include "config_yaml.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "fsllm/core/error.hpp"

namespace fsllm::detail {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxEntries = 4096;

std::string place(std::string const& source, int line) {
  return line > 0 ? fmt::format("{}:{}", source, line) : source;
}

/// `<<` without quotes, which yaml-cpp gives the tag "?".
bool is_merge_key(YAML::Node const& key) {
  return key.IsScalar() && key.Scalar() == "<<" && key.Tag() != "!";
}

class Flattener {
 public:
  Flattener(FlatYaml& out, std::string source, bool from_file)
      : out_(out), source_(std::move(source)), from_file_(from_file) {}

  void add(YAML::Node const& node, std::string const& path, int depth) {
    int const line = from_file_ ? node.Mark().line + 1 : 0;
    FSLLM_CHECK(depth < kMaxDepth && out_.entries.size() < kMaxEntries,
                "{}: {} (nested too deeply, too many keys, or an alias that contains itself). Flatten it.",
                place(source_, line), path.size() > 60 ? path.substr(0, 60) + "..." : path);
    if (node.IsMap())
      add_map(node, path, depth, line);
    else if (node.IsSequence() && node.size() > 0 && node[0].IsMap())
      add_list_of_maps(node, path, depth, line);
    else
      put(path, leaf(node, path, line));
  }

 private:
  void add_map(YAML::Node const& node, std::string const& path, int depth, int line) {
    std::set<std::string> keys;
    add_keys(node, path, depth, line, keys);
    for (auto const& item : node)
      if (is_merge_key(item.first)) merge(item.second, path, depth, line, keys);
    if (node.size() == 0 && !path.empty()) out_.list_sizes.emplace(path, 0);
  }

  /// The keys of one map, without those of the maps that it merges.
  void add_keys(YAML::Node const& node, std::string const& path, int depth, int line,
                std::set<std::string>& keys) {
    for (auto const& item : node) {
      FSLLM_CHECK(item.first.IsScalar(), "{}: {} has a key that is not plain text. Write KEY: VALUE.",
                  place(source_, line), path.empty() ? "the document" : path);
      auto const& key = item.first.Scalar();
      auto const child = path.empty() ? key : path + "." + key;
      FSLLM_CHECK(keys.insert(key).second, "{}: {} stands twice. Keep one of them.",
                  place(source_, from_file_ ? item.first.Mark().line + 1 : 0), child);
      if (!is_merge_key(item.first)) add(item.second, child, depth + 1);
    }
  }

  /// YAML 1.1's `<<`, as PyYAML has it: keys of the map win over those of the maps that it merges, and those
  /// of earlier ones over later ones.
  void merge(YAML::Node const& value, std::string const& path, int depth, int line,
             std::set<std::string>& keys) {
    FSLLM_CHECK(depth < kMaxDepth && ++merged_ < kMaxEntries,
                "{}: << merges too many maps, or one that contains itself. Flatten it.",
                place(source_, line));
    if (value.IsSequence()) {
      for (auto const& map : value) {
        FSLLM_CHECK(map.IsMap(), "{}: << merges what is no map. Name maps, as <<: [*a, *b].",
                    place(source_, line));
        merge(map, path, depth + 1, line, keys);
      }
      return;
    }
    FSLLM_CHECK(value.IsMap(), "{}: << merges what is no map. Name one, as <<: *a.", place(source_, line));
    YAML::Node rest(YAML::NodeType::Map);
    for (auto const& item : value)
      if (!item.first.IsScalar() || is_merge_key(item.first) || keys.count(item.first.Scalar()) == 0)
        rest.force_insert(item.first, item.second);
    std::set<std::string> own;
    add_keys(rest, path, depth + 1, line, own);
    keys.insert(own.begin(), own.end());
    for (auto const& item : value)
      if (is_merge_key(item.first)) merge(item.second, path, depth + 1, line, keys);
  }

  void add_list_of_maps(YAML::Node const& node, std::string const& path, int depth, int line) {
    bool const fresh = out_.list_sizes.emplace(path, static_cast<int64_t>(node.size())).second;
    FSLLM_CHECK(fresh, "{}: {} stands twice. Keep one of them.", place(source_, line), path);
    for (size_t i = 0; i < node.size(); ++i) {
      FSLLM_CHECK(node[i].IsMap(), "{}: {}[{}] is not a map as the entries before it. Write a list of maps.",
                  place(source_, line), path, i);
      add(node[i], fmt::format("{}[{}]", path, i), depth + 1);
    }
  }

  YamlEntry leaf(YAML::Node const& node, std::string const& path, int line) const {
    YamlEntry entry;
    entry.source = source_;
    entry.line = line;
    if (node.IsScalar()) {
      entry.kind = YamlEntry::Kind::scalar;
      entry.text = node.Scalar();
    } else if (node.IsSequence()) {
      entry.kind = YamlEntry::Kind::list;
      for (auto const& item : node) {
        FSLLM_CHECK(item.IsScalar(),
                    "{}: {} holds lists or maps inside a list. Write a list of plain values.",
                    place(source_, line), path);
        entry.items.push_back(item.Scalar());
      }
    }
    return entry;
  }

  void put(std::string const& path, YamlEntry entry) {
    FSLLM_CHECK(!path.empty(), "{} is not a map of keys (it holds a single value). Write KEY: VALUE lines.",
                source_);
    int const line = entry.line;
    bool const fresh = out_.entries.emplace(path, std::move(entry)).second;
    FSLLM_CHECK(fresh, "{}: {} stands twice. Keep one of them.", place(source_, line), path);
    out_.order.push_back(path);
  }

  FlatYaml& out_;
  std::string source_;
  bool from_file_;
  size_t merged_ = 0;  ///< maps that << named
};

/// Splits "a.b[2].c" into "a", "b", "[2]", "c".
std::vector<std::string> path_parts(std::string const& path) {
  std::vector<std::string> parts(1);
  for (char const c : path) {
    if (c == '.')
      parts.emplace_back();
    else if (c == '[')
      parts.emplace_back("[");
    else
      parts.back().push_back(c);
  }
  return parts;
}

/// Only the first document would be read. A marker "---" in the first column is never part of a value.
void check_one_document(std::string_view yaml, std::string const& source) {
  bool content = false;
  int line_number = 0;
  while (!yaml.empty()) {
    auto const end = yaml.find('\n');
    auto const line = yaml.substr(0, end);
    ++line_number;
    FSLLM_CHECK(!(content && line.starts_with("---")),
                "{} starts a second document (one is read). Remove the line '---'.",
                place(source, line_number));
    content =
        content || line.starts_with("---") || (!line.empty() && line.front() != '#' && line.front() != '%');
    yaml = end == std::string_view::npos ? std::string_view() : yaml.substr(end + 1);
  }
}

/// A section, a list of maps, or a value.
struct Tree {
  std::string name, value;
  std::vector<Tree> children;

  Tree& child(std::string const& wanted) {
    for (auto& tree : children)
      if (tree.name == wanted) return tree;
    children.push_back({wanted, "", {}});
    return children.back();
  }
};

/// Reads as another type than a string in YAML 1.1 or 1.2, or is no plain scalar at all.
bool needs_quotes(std::string const& text) {
  static std::set<std::string> const words{"true", "false", "yes", "no", "on", "off", "y", "n", "null"};
  auto const is_inside = [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("_-./@+").find(static_cast<char>(c)) != std::string_view::npos;
  };
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  bool const begins = !text.empty() && (std::isalpha(static_cast<unsigned char>(text.front())) != 0 ||
                                        text.front() == '/' || text.front() == '_');
  return !begins || words.contains(lower) || !std::all_of(text.begin(), text.end(), is_inside);
}

/// In flow style, and on one line.
std::string flow(YAML::Node const& node) {
  if (node.IsScalar()) {
    bool const is_text = node.Tag() == "!";  // written with quotes
    return is_text && needs_quotes(node.Scalar()) ? quote_yaml(node.Scalar()) : node.Scalar();
  }
  std::string text;
  for (auto const& item : node) {
    if (!text.empty()) text += ", ";
    text += node.IsMap() ? fmt::format("{}: {}", flow(item.first), flow(item.second)) : flow(item);
  }
  return node.IsMap() ? "{" + text + "}" : "[" + text + "]";
}

void write_nested(Tree const& tree, size_t depth, bool in_item, std::string& text) {
  bool first = in_item;  // "- " stands before the first key of a list's item
  for (auto const& child : tree.children) {
    auto const& name = child.name;
    if (name.front() == '[') {
      text += std::string(2 * depth, ' ') + "- ";
      write_nested(child, depth + 1, true, text);
      continue;
    }
    text += (first ? "" : std::string(2 * depth, ' ')) + (needs_quotes(name) ? quote_yaml(name) : name) + ":";
    first = false;
    text += child.children.empty() ? " " + child.value + "\n" : "\n";
    write_nested(child, depth + 1, false, text);
  }
}

/// The first line whose indentation holds a tab, from 1; 0: none.
int first_tab(std::string_view yaml) {
  int line = 1;
  bool indenting = true;
  for (char const c : yaml) {
    if (indenting && c == '\t') return line;
    indenting = c == '\n' || (indenting && c == ' ');
    line += c == '\n' ? 1 : 0;
  }
  return 0;
}

}  // namespace

FlatYaml flatten_yaml(std::string_view yaml, std::string const& source, std::string const& prefix) {
  FlatYaml flat;
  try {
    check_one_document(yaml, source);
    auto const document = YAML::Load(std::string(yaml));
    FSLLM_CHECK(!prefix.empty() || !document.IsSequence(),
                "{} is a list (a configuration is a map of keys). Write KEY: VALUE lines without '-'.",
                place(source, document.Mark().line + 1));
    if (prefix.empty() && (document.IsNull() || !document.IsDefined())) return flat;
    Flattener(flat, source, source != "command line").add(document, prefix, 0);
  } catch (YAML::Exception const& error) {
    if (int const line = first_tab(yaml); line > 0)
      fail(fmt::format("{} is not valid YAML (it is indented by a tab). Indent by spaces.",
                       place(source, line)));
    fail(fmt::format("{} is not valid YAML ({}). Correct it there.", place(source, error.mark.line + 1),
                     error.msg));
  }
  return flat;
}

FlatYaml flatten_argument(std::string_view text, std::string const& path) {
  auto const begin = text.find_first_not_of(" \t\n");
  FlatYaml flat;
  std::string problem;
  if (begin != std::string_view::npos && (text[begin] == '[' || text[begin] == '{')) {
    try {
      flat = flatten_yaml(text, "command line", path);
    } catch (Error const& error) {
      flat = {};
      problem = error.what();
    }
  }
  if (flat.entries.empty() && flat.list_sizes.empty()) {
    static std::set<std::string_view> const nothing{"", "~", "null", "Null", "NULL"};
    auto const value =
        begin == std::string_view::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
    auto const kind = nothing.count(value) != 0 ? YamlEntry::Kind::null : YamlEntry::Kind::scalar;
    flat.entries.emplace(path, YamlEntry{kind, std::string(value), {}, "command line", 0, problem});
    flat.order.push_back(path);
  }
  flat.literals.emplace(path, text);
  return flat;
}

std::string nest_yaml(std::vector<std::pair<std::string, std::string>> const& values) {
  Tree root;
  for (auto const& [path, value] : values) {
    Tree* at = &root;
    for (auto const& part : path_parts(path)) at = &at->child(part);
    at->value = flow(YAML::Load(value));
  }
  std::string text;
  write_nested(root, 0, false, text);
  return text;
}

std::string place_of(std::string const& path, YamlEntry const& entry) {
  if (entry.line > 0) return fmt::format("{}:{}: {}", entry.source, entry.line, path);
  return fmt::format("{}: {}", entry.source, path);
}

bool is_under(std::string_view path, std::string_view prefix) {
  return path.size() > prefix.size() && path.starts_with(prefix) &&
         (path[prefix.size()] == '.' || path[prefix.size()] == '[');
}

void erase_tree(FlatYaml& given, std::string const& path) {
  auto const in_tree = [&](std::string const& other) { return other == path || is_under(other, path); };
  std::erase_if(given.entries, [&](auto const& item) { return in_tree(item.first); });
  std::erase_if(given.list_sizes, [&](auto const& item) { return in_tree(item.first); });
  std::erase_if(given.literals, [&](auto const& item) { return in_tree(item.first); });
  std::erase_if(given.order, in_tree);
}

std::string quote_yaml(std::string const& text) {
  YAML::Emitter emitter;
  emitter << YAML::DoubleQuoted << text;
  return emitter.c_str();
}

}  // namespace fsllm::detail
