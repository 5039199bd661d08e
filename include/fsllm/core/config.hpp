// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fsllm {

/// The allowed values of a key: a sentence for people, and the test.
struct Constraint {
  std::string text;                    ///< "at least 1", "in [0, 1)", "" for any value
  std::function<bool(double)> allows;  ///< for numbers, and for each entry of a list of numbers
  std::vector<std::string> choices;    ///< for strings, and for each entry of a list of strings
  std::optional<double> low = {}, high = {};
  bool above_low = false, below_high = false;  ///< without the bound itself
};
Constraint at_least(double low);
Constraint more_than(double low);
Constraint within(double low, double high);       ///< low <= x <= high
Constraint within_open(double low, double high);  ///< low <= x < high
Constraint one_of(std::vector<std::string> choices);

/// What --describe, --print-schema and docs/config.md say about one key.
struct KeyInfo {
  std::string path;
  std::string type;  ///< bool, int, float, string, list of float, map of numbers, ...
  std::string default_text;
  Constraint constraint;
  std::string doc;
  /// The default as Config::text() writes a value.
  std::optional<std::string> default_value() const;
};

/// A key or section that is accepted and not read: with any value, or with these alone.
struct AcceptedKey {
  std::string path;
  std::optional<std::vector<std::string>> values;
};

/// The parsed YAML of a run plus every key that the program has asked for.
///
/// A key is declared where it is read: get(path, default, sentence, constraint). Paths are dotted;
/// entries of lists of maps are written `llm.adapter.args[0].r`. When all modules have read their keys,
/// finish() rejects what nobody asked for, with the nearest known key. Errors carry file and line.
/// T of get: bool, int64_t, double, std::string, std::vector<T> of the last three.
class Config {
 public:
  /// `source` is the file's name in messages. Accepts YAML 1.1 as yaml-cpp reads it; duplicate keys,
  /// anchors that do not resolve, and non-map documents are errors. The document may stand for the value of
  /// the key `at`.
  static Config parse(std::string_view yaml, std::string const& source, std::string const& at = "");
  Config(Config const& other);
  Config(Config&&) noexcept;
  Config& operator=(Config other) noexcept;
  ~Config();

  /// Command-line override. A key of strings takes `text` as it is ("*.jsonl", "run #2"); lists and maps are
  /// written in YAML's flow style ("[0.9, 0.1]", "{type: SGD}").
  void set(std::string const& path, std::string_view text);

  template <class T>
  T get(std::string const& path, T const& default_value, std::string const& doc, Constraint constraint = {});
  std::string get(std::string const& path, char const* default_value, std::string const& doc,
                  Constraint c = {}) {
    return get<std::string>(path, std::string(default_value), doc, std::move(c));
  }

  /// A map of numbers below `path`, in file order; dots belong to the names. Declared as one key.
  std::vector<std::pair<std::string, double>> numbers(std::string const& path, std::string const& doc,
                                                      Constraint const& constraint = {});
  /// A map of lists below `path`, in file order, likewise; their items as they were written. `NAME: {choices:
  /// [...]}` is NAME: [...].
  std::vector<std::pair<std::string, std::vector<std::string>>> lists(std::string const& path,
                                                                      std::string const& doc);

  /// True if the file or the command line gives this key (or anything under it).
  bool has(std::string const& path) const;
  /// The value as it was written: a scalar's text, or a list as "[a, b]"; empty for what is not given or is a
  /// section.
  std::optional<std::string> text(std::string const& path) const;
  /// Entries of a list of plain values; empty for what is none.
  std::vector<std::string> items(std::string const& path) const;
  /// The value was written as a list, not as a text that looks like one ("[qv]_proj").
  bool is_list(std::string const& path) const;
  /// Number of entries of a list of maps (0 when absent or empty).
  int64_t list_size(std::string const& path) const;
  /// Paths of all values that the file or the command line gives, in file order.
  std::vector<std::string> given_keys() const;
  /// Names the type of a declared key whose value may be of several, for --describe and the schema.
  void describe_as(std::string const& path, std::string const& type);
  /// Records what a declared key came to mean ("auto" → "fp32"), for dump().
  void set_resolved(std::string const& path, std::string const& value);
  /// Child names given under a map, in file order.
  std::vector<std::string> children(std::string const& path) const;
  /// "run.yaml:12: train.optimizer.lr" – where a key was given, for messages; just the path if it was not.
  std::string where(std::string const& path) const;

  /// Marks everything under `prefix` as known without reading it (accepted keys that mean nothing here).
  void accept_all_under(std::string const& prefix);
  /// Reads some keys. What is wrong with a value is kept for report(), and its default goes on; another Error
  /// ends the part and is kept where no value was wrong, which may be its cause.
  void part(std::function<void()> const& read);
  /// Fails with all that was kept.
  void report() const;
  /// Whether an Error ended a part before it had declared its keys.
  bool was_cut_short() const;
  /// Declares what only `other` has.
  void declare_as(Config const& other);
  /// report(), with the keys that no get() asked for.
  void finish();
  /// Says that nothing reads what lies at or under `prefix`, as this run is set. dump() leaves it out unless
  /// it is given.
  void leave_out(std::string const& prefix);

  /// A copy in which the values of `over` take precedence (per-client overrides).
  Config overridden_by(Config const& over) const;
  /// The configuration below one key of the document as a configuration of its own (`client_3:` of
  /// --client_cfg).
  Config below(std::string const& key) const;

  /// Declared keys with their values, as nested YAML that parse() and other readers of YAML read back to the
  /// same values. Without those that leave_out() named.
  std::string dump() const;
  std::vector<KeyInfo> keys() const;
  /// Human-readable description of keys whose path contains `filter`; "" means all.
  std::string describe(std::string const& filter) const;
  /// One Markdown table a section of all declared keys.
  std::string markdown() const;
  /// JSON Schema draft-07 of all declared keys, and of those that are accepted beside them. Numbers such as
  /// 1e-4, which YAML 1.1 takes for texts, are allowed.
  std::string json_schema(std::vector<AcceptedKey> const& accepted = {}) const;

 private:
  struct Entry;
  struct State;
  Config();
  bool holds_no_map(std::string const& path) const;
  bool is_read(std::string const& path) const;
  void keep_mistake(std::string const& message);
  void check_known(std::string const& path, std::vector<std::string> const& known) const;
  void declare_map(KeyInfo const& key, std::vector<std::string> const& shown);
  std::unique_ptr<State> state_;
};

}  // namespace fsllm
