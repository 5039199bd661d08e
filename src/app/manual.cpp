// SPDX-License-Identifier: Apache-2.0
// Man page and bash completion of a program, from what --help is made of. Needs neither MPI nor LibTorch.
#include <cstdlib>
#include <ctime>
#include <sstream>

#include "fsllm/app/command_line.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// A line of text in man(7): nothing in it is a request.
std::string man_text(std::string const& text) {
  std::string out;
  for (char const c : text) {
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  return out.starts_with('.') || out.starts_with('\'') ? "\\&" + out : out;
}

/// Today, or the day of SOURCE_DATE_EPOCH, as packagers want it.
std::string page_date() {
  char const* const fixed = std::getenv("SOURCE_DATE_EPOCH");
  std::time_t const now = fixed != nullptr ? static_cast<std::time_t>(std::atoll(fixed)) : std::time(nullptr);
  char text[16] = "";
  std::tm day{};
  std::strftime(text, sizeof text, "%Y-%m-%d", ::gmtime_r(&now, &day));
  return text;
}

/// Usage: its first sentence, and the rest, in which lines that begin with blanks are typed as they stand.
std::pair<std::string, std::string> usage_parts(Program const& program) {
  auto const end = program.usage.find("\n\n");
  auto title = program.usage.substr(0, end);
  while (!title.empty() && (title.back() == '.' || title.back() == '\n')) title.pop_back();
  return {title, end == std::string::npos ? "" : program.usage.substr(end + 2)};
}

std::string man_usage(std::string const& text) {
  std::istringstream lines(text);
  std::string out;
  bool verbatim = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    bool const typed = line.starts_with(' ');
    if (typed != verbatim)
      out += std::string(typed || out.empty() ? "" : ".fi\n") + (out.empty() ? "" : ".PP\n") +
             (typed ? ".nf\n" : "");
    verbatim = typed;
    out += man_text(typed ? line.substr(line.find_first_not_of(' ')) : line) + "\n";
  }
  return out + (verbatim ? ".fi\n" : "");
}

std::string man_option(OptionRow const& row) {
  auto const value = row.value.empty() ? "" : " \\fI" + man_text(row.value) + "\\fR";
  return ".TP\n\\fB" + man_text("--" + row.name) + "\\fR" + value + "\n" + man_text(row.help) +
         (row.default_value.empty() ? "" : " (default: " + man_text(row.default_value) + ")") + "\n";
}

bool names_path(OptionRow const& row) {
  return row.value.find("DIR") != std::string::npos || row.value.find("FILE") != std::string::npos;
}

constexpr char const* kExitCodes[][2] = {
    {"0", "done"},
    {"1", "an internal error"},
    {"2", "bad input: configuration, data, model or command line"},
    {"85",
     "fsllm_hpc, fsllm_sweep: stopped by a signal or the job's time limit, with its state saved; start it "
     "again with --resume"},
    {"143", "the same with nothing to keep"}};

std::vector<OptionRow> all_options(Program const& program) {
  auto rows = program.options;
  rows.push_back({"quiet", "", "only warnings, errors and what was asked for"});
  rows.push_back({"verbose", "", "more of what goes on"});
  rows.push_back({"version", "", "version and build facts"});
  rows.push_back({"help", "", "a summary of this page"});
  return rows;
}

}  // namespace

std::string man_page(Program const& program, std::string const& version) {
  auto const [title, usage] = usage_parts(program);
  std::string page = fmt::format(".TH \"{}\" 1 \"{}\" \"fsllm_hpc {}\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n",
                                 program.name, page_date(), version, program.name, man_text(title));
  page += man_usage(usage) + ".SH OPTIONS\n";
  for (auto const& row : all_options(program)) page += man_option(row);
  if (program.words == Words::overrides)
    page +=
        ".SH CONFIGURATION\n\\fIKEY VALUE\\fR and \\fIKEY=VALUE\\fR go before the configuration's file; "
        "lists are "
        "written [a, b].\n\\fBfsllm_hpc \\-\\-describe\\fR tells all keys with type, default, range and "
        "meaning.\n";
  page += ".SH EXIT STATUS\n";
  for (auto const& [code, meaning] : kExitCodes)
    page += fmt::format(".TP\n{}\n{}\n", code, man_text(meaning));
  return page;
}

std::string bash_completion(Program const& program) {
  std::string options, paths, values;  // of the last two "|--name" each
  for (auto const& row : all_options(program)) {
    options += (options.empty() ? "--" : " --") + row.name;
    if (!row.value.empty() && row.value != "[KEY]") (names_path(row) ? paths : values) += "|--" + row.name;
  }
  auto const branch = [](std::string const& names, std::string const& action) {
    return names.empty() ? "" : fmt::format("    {}) {} ;;\n", names.substr(1), action);
  };
  std::string script = fmt::format(
      "# bash completion of {0}\n_{0}() {{\n  local word=${{COMP_WORDS[COMP_CWORD]}} "
      "before=${{COMP_WORDS[COMP_CWORD - 1]}}\n  COMPREPLY=()\n",
      program.name);
  if (auto const cases = branch(paths,
                                "mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); compopt -o filenames 2> "
                                "/dev/null; return") +
                         branch(values, "return");
      !cases.empty())
    script += "  case $before in\n" + cases + "  esac\n";
  script += fmt::format(
      "  if [[ $word == -* ]]; then\n    mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\")\n    "
      "return\n  fi\n",
      options);
  if (program.words == Words::overrides)
    script +=
        "  # Keys of the configuration, asked of the program once a shell.\n"
        "  [[ -n ${_fsllm_keys:-} ]] || _fsllm_keys=$(fsllm_hpc --describe 2> /dev/null | grep '^[a-z]')\n"
        "  if [[ -n $word && -n $_fsllm_keys ]]; then\n"
        "    mapfile -t COMPREPLY < <(compgen -W \"$_fsllm_keys\" -- \"$word\")\n"
        "    ((${#COMPREPLY[@]})) && return\n  fi\n";
  script +=
      "  mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n  compopt -o filenames 2> /dev/null\n  return "
      "0\n}\n";
  return script + fmt::format("complete -F _{0} {0}\n", program.name);
}

}  // namespace fsllm
