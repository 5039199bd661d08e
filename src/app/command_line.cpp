// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/command_line.hpp"

#include <algorithm>
#include <boost/program_options.hpp>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/core/paths.hpp"

#ifndef FSLLM_BUILD_FACTS
#define FSLLM_BUILD_FACTS ""
#endif

namespace fsllm {
namespace {

namespace po = boost::program_options;
using Texts = std::vector<std::string>;

/// Stands for a value that was left out.
constexpr char const* kNoValue = "-";

Texts option_names(Program const& program) {
  Texts names;
  for (auto const& row : program.options) names.push_back(row.name);
  return names;
}

po::options_description visible_options(Program const& program) {
  po::options_description options("Options");
  auto add = options.add_options();
  for (auto const& row : program.options) {
    if (row.value.empty()) {
      add(row.name.c_str(), row.help.c_str());
      continue;
    }
    auto const help =
        row.default_value.empty() ? row.help : row.help + " (default: " + row.default_value + ")";
    if (row.value.ends_with("..."))
      add(row.name.c_str(), po::value<Texts>()->multitoken()->value_name(row.value), help.c_str());
    else if (row.repeated)
      add(row.name.c_str(), po::value<Texts>()->value_name(row.value), help.c_str());
    else
      add(row.name.c_str(), po::value<std::string>()->value_name(row.value), help.c_str());
  }
  add("quiet", "only warnings, errors and what was asked for");
  add("verbose", "more of what goes on");
  add("version", "version and build facts");
  add("help", "this text; -h too");
  return options;
}

bool is_option(std::string const& word) {
  return word.starts_with("--") && word.size() > 2;
}

/// Does the word after an option with an optional value belong to it? Among pairs of KEY VALUE it is the odd
/// one.
bool takes_next(Program const& program, int argc, char const* const* argv, int at) {
  if (at + 1 >= argc || is_option(argv[at + 1])) return false;
  if (program.words != Words::overrides || std::filesystem::is_directory(argv[at + 1])) return true;
  int loose = 0;
  for (int i = at + 1; i < argc && !is_option(argv[i]); ++i)
    loose += std::string(argv[i]).find('=') == std::string::npos ? 1 : 0;
  return loose % 2 == 1 && std::string(argv[at + 1]).find('=') == std::string::npos;
}

/// Optional values in the form --name=value, which leaves nothing to guess.
Texts explicit_arguments(Program const& program, int argc, char const* const* argv) {
  Texts arguments;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "-h") argument = "--help";
    for (auto const& row : program.options)
      if (row.value.starts_with('[') && row.value.ends_with(']') && argument == "--" + row.name)
        argument += std::string("=") + (takes_next(program, argc, argv, i) ? argv[++i] : kNoValue);
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

int64_t open_brackets(std::string const& text) {
  auto const count = [&](char c) { return std::count(text.begin(), text.end(), c); };
  return count('[') + count('{') - count(']') - count('}');
}

/// The value that begins in words[at], which moves on to its last word: a list or a map may hold blanks.
std::string whole_value(Texts const& words, std::string const& begin, size_t& at) {
  if (!begin.starts_with('[') && !begin.starts_with('{')) return begin;
  std::string value = begin;
  for (size_t end = at;; value += " " + words[++end]) {
    if (open_brackets(value) == 0) {
      at = end;
      return value;
    }
    if (end + 1 == words.size()) return begin;
  }
}

std::vector<std::pair<std::string, std::string>> pair_up(Texts const& words, std::string const& program) {
  std::vector<std::pair<std::string, std::string>> overrides;
  for (size_t i = 0; i < words.size(); ++i) {
    auto const& word = words[i];
    FSLLM_CHECK(!word.starts_with('-'), "{} on the command line (no such option, and no key). See {} --help.",
                word, program);
    auto const equals = word.find('=');
    if (equals != std::string::npos && equals > 0) {
      overrides.emplace_back(word.substr(0, equals), whole_value(words, word.substr(equals + 1), i));
      continue;
    }
    FSLLM_CHECK(i + 1 < words.size() || !std::filesystem::is_regular_file(word),
                "{} stands alone on the command line (a file belongs to an option). Write --cfg {}.", word,
                word);
    FSLLM_CHECK(i + 1 < words.size(),
                "{} stands alone on the command line ({}). Write KEY VALUE or KEY=VALUE.", word,
                overrides.empty() ? "a key needs a value"
                                  : fmt::format("the words before it are read as {} = {}",
                                                overrides.back().first, overrides.back().second));
    ++i;
    overrides.emplace_back(word, whole_value(words, words[i], i));
  }
  return overrides;
}

po::variables_map parsed(Program const& program, Texts const& arguments) {
  po::options_description all = visible_options(program);
  all.add_options()("__words", po::value<Texts>());
  po::positional_options_description positional;
  positional.add("__words", -1);
  po::variables_map values;
  try {
    // No short options: "-1" is a value.
    int const style = po::command_line_style::allow_long | po::command_line_style::long_allow_adjacent |
                      po::command_line_style::long_allow_next;
    po::store(po::command_line_parser(arguments).options(all).positional(positional).style(style).run(),
              values);
  } catch (po::unknown_option const& error) {
    auto name = error.get_option_name();
    name.erase(0, name.find_first_not_of('-'));
    auto const known = option_names(program);
    auto const advice = nearest_name(name, known).empty()
                            ? fmt::format(" See {} --help.", program.name)
                            : fmt::format(" Did you mean --{}?", nearest_name(name, known));
    fail(fmt::format("command line: --{} is no option of {}.{}", name, program.name, advice));
  } catch (po::error const& error) {
    fail(fmt::format("command line: {}. See {} --help.", error.what(), program.name));
  }
  return values;
}

bool holds_path(OptionRow const& row) {
  return row.value.find("DIR") != std::string::npos || row.value.find("FILE") != std::string::npos;
}

/// With "~" and variables replaced, which a shell leaves alone in --model=~/tiny and in quotes.
std::string expanded(std::string const& value, OptionRow const& row) {
  bool const named = row.value.starts_with("[NAME=]") && value.find("=~") != std::string::npos;
  auto const begin = named ? value.find("=~") + 1 : 0;
  return value.substr(0, begin) + expand_path(value.substr(begin), "--" + row.name);
}

}  // namespace

std::string CommandLine::text(std::string const& option) const {
  auto const given = values_.find(option);
  if (given != values_.end()) return given->second.empty() ? "" : given->second.front();
  auto const initial = defaults_.find(option);
  return initial == defaults_.end() ? "" : initial->second.front();
}

std::string CommandLine::need(std::string const& option) const {
  auto value = text(option);
  FSLLM_CHECK(!value.empty(), "--{} is missing. See {} --help.", option, program_);
  return value;
}

int64_t CommandLine::number(std::string const& option, std::string const& what) const {
  auto const value = text(option);
  int64_t number = 0;
  auto const [end, problem] = std::from_chars(value.data(), value.data() + value.size(), number);
  FSLLM_CHECK(problem == std::errc() && end == value.data() + value.size() && number >= 0,
              "--{} {} ({} is needed). Write --{} 3.", option, value, what, option);
  return number;
}

std::vector<double> CommandLine::numbers(std::string const& option) const {
  std::vector<double> numbers;
  std::istringstream list(text(option));
  for (std::string word; std::getline(list, word, ',');) {
    double number = 0;
    auto const [end, problem] = std::from_chars(word.data(), word.data() + word.size(), number);
    FSLLM_CHECK(
        problem == std::errc() && end == word.data() + word.size() && number >= 0 && std::isfinite(number),
        "--{} {} ('{}' is no number from 0). Write --{} 3,1,2.", option, text(option), word, option);
    numbers.push_back(number);
  }
  return numbers;
}

Texts CommandLine::all(std::string const& option) const {
  auto const given = values_.find(option);
  return given == values_.end() ? Texts{} : given->second;
}

CommandLine parse_command_line(Program const& program, int argc, char const* const* argv) {
  auto const values = parsed(program, explicit_arguments(program, argc, argv));
  CommandLine line;
  line.program_ = program.name;
  for (auto const& row : program.options) {
    if (!row.default_value.empty()) line.defaults_[row.name] = {row.default_value};
    if (values.count(row.name) == 0) continue;
    auto& given = line.values_[row.name];
    if (row.repeated || row.value.ends_with("..."))
      given = values[row.name].as<Texts>();
    else if (!row.value.empty())
      given = {values[row.name].as<std::string>()};
    if (given == Texts{kNoValue}) given.clear();
    if (holds_path(row))
      for (auto& value : given) value = expanded(value, row);
  }
  for (auto const* name : {"quiet", "verbose", "version", "help"})
    if (values.count(name) != 0) line.values_[name] = {};
  auto words = values.count("__words") != 0 ? values["__words"].as<Texts>() : Texts{};
  if (program.words == Words::overrides) line.overrides = pair_up(words, program.name);
  if (program.words == Words::path && !words.empty()) {
    line.path = expand_path(words.front(), program.name);
    words.erase(words.begin());
  }
  if (program.words == Words::any) {
    line.words = words;
    return line;
  }
  FSLLM_CHECK(program.words == Words::overrides || words.empty(),
              "'{}' on the command line ({} takes {}options only). See {} --help.", words.front(),
              program.name, program.words == Words::path ? "one path and " : "", program.name);
  return line;
}

std::string help_text(Program const& program) {
  std::ostringstream text;
  text << program.usage << "\n" << visible_options(program);
  if (program.words == Words::overrides)
    text << "\nKEY VALUE and KEY=VALUE go before the configuration; texts are taken as they are, lists are "
            "written "
            "[a, b].\n";
  text << "\nExit codes: 0 done, 1 internal error, 2 bad input.\n";
  return text.str();
}

ProgramStart answer_command_line(Program const& program, int argc, char const* const* argv,
                                 std::string (*more_facts)()) {
  ProgramStart start;
  std::string const first = argc == 2 ? argv[1] : "";
  if (first == "--print-man" || first == "--print-completion") {
    std::cout << (first == "--print-man" ? man_page(program, FSLLM_VERSION) : bash_completion(program));
    return start;
  }
  try {
    start.line = parse_command_line(program, argc, argv);
    FSLLM_CHECK(!start.line->has("quiet") || !start.line->has("verbose"),
                "--quiet with --verbose (one asks for less, the other for more). Leave one of them out.");
    if (start.line->has("quiet")) set_verbosity(LogLevel::warning);
    if (start.line->has("verbose")) set_verbosity(LogLevel::debug);
    bool const help = start.line->has("help"), version = start.line->has("version");
    if (!help && !version) return start;
    start.line.reset();
    if (is_silent_rank()) return start;
    if (help)
      std::cout << help_text(program);
    else
      std::cout << program.name << " " << FSLLM_VERSION << "\ncommit: " << source_commit() << "\n"
                << FSLLM_BUILD_FACTS << (more_facts != nullptr ? more_facts() : "");
  } catch (Error const& error) {
    print_error_once(error.what());
    start = {{}, kExitBadInput};
  }
  return start;
}

}  // namespace fsllm
