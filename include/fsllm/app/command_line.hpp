// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fsllm {

/// One option of a program.
struct OptionRow {
  std::string name;  ///< without the dashes
  /// What --help calls its value: N; [DIR] may be left out; "DIR..." takes all words up to the next option;
  /// "": a flag. DIR and FILE are paths, in which "~" and variables are replaced.
  std::string value;
  std::string help;
  std::string default_value = {};
  bool repeated = false;
};

/// What a program takes beside its options.
enum class Words { none, overrides, path, any };

/// A program's command line; --help and --version come by themselves.
struct Program {
  std::string name;
  std::string usage;  ///< what it does, and examples
  std::vector<OptionRow> options;
  Words words = Words::none;
};

/// What the user typed.
class CommandLine {
 public:
  bool has(std::string const& option) const { return values_.count(option) != 0; }
  /// The option's value or default; "" where it has neither, and where a value in brackets was left out.
  std::string text(std::string const& option) const;
  /// The same; "" is an Error.
  std::string need(std::string const& option) const;
  /// A whole number from 0; `what` says in messages what it is.
  int64_t number(std::string const& option, std::string const& what = "a whole number from 0") const;
  /// Numbers from 0 with commas between them; empty where the option has neither value nor default.
  std::vector<double> numbers(std::string const& option) const;
  std::vector<std::string> all(std::string const& option) const;

  std::vector<std::pair<std::string, std::string>> overrides;  ///< KEY, VALUE
  std::string path;
  std::vector<std::string> words;  ///< of Words::any

 private:
  friend CommandLine parse_command_line(Program const& program, int argc, char const* const* argv);
  std::string program_;
  std::map<std::string, std::vector<std::string>> values_, defaults_;
};

/// Errors name the argument. Words are taken as they are; `KEY VALUE` and `KEY=VALUE` may be mixed, and a
/// list or map may hold blanks: data.splits [0.9, 0.1, 0].
CommandLine parse_command_line(Program const& program, int argc, char const* const* argv);
std::string help_text(Program const& program);
/// A page of man(7), and a script for bash, of the same declarations as --help. cmake --install writes what
/// the programs print of them (--print-man, --print-completion).
std::string man_page(Program const& program, std::string const& version);
std::string bash_completion(Program const& program);

/// The commit that this program was made of; "unknown" where neither Git nor an archive's .commit tells.
std::string source_commit();

/// The beginning of a main.
struct ProgramStart {
  std::optional<CommandLine> line;  ///< empty: the program is done
  int exit_code = 0;
};
/// Prepares the process, parses, and answers --help and --version, on rank 0 of a launcher alone.
ProgramStart start_program(Program const& program, int argc, char const* const* argv);
/// The same for a program that computes nothing: without the preparation. `more_facts` are lines of
/// --version.
ProgramStart answer_command_line(Program const& program, int argc, char const* const* argv,
                                 std::string (*more_facts)() = nullptr);

}  // namespace fsllm
