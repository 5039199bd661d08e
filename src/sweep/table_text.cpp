// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <map>

#include "fsllm/core/csv_field.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/sweep/report.hpp"

namespace fsllm {
namespace {

constexpr int kMostDecimals = 12;

int leading_digit(double value) {
  return static_cast<int>(std::floor(std::log10(std::abs(value))));
}

std::string escaped_markdown(std::string const& text) {
  std::string out;
  for (char const c : text) {
    if (c == '|' || c == '*' || c == '<') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string escaped_latex(std::string const& text) {
  static std::map<char, std::string> const special{
      {'\\', "\\textbackslash{}"}, {'~', "\\textasciitilde{}"}, {'^', "\\textasciicircum{}"}, {'\n', " "}};
  std::string out;
  for (char const c : text) {
    if (auto const found = special.find(c); found != special.end()) {
      out += found->second;
      continue;
    }
    if (std::string("&%$#_{}").find(c) != std::string::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string escaped(std::string const& text, TableFormat format) {
  if (format == TableFormat::csv) return csv_field(text);
  return format == TableFormat::latex ? escaped_latex(text) : escaped_markdown(text);
}

std::string joined(std::vector<std::string> const& cells, std::string const& between) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) line += (i > 0 ? between : "") + cells[i];
  return line;
}

}  // namespace

Measure measure(std::vector<double> const& values) {
  Measure result{values.size()};
  if (values.empty()) return result;
  auto const n = static_cast<double>(values.size());
  for (auto const value : values) result.mean += value / n;
  if (values.size() < 2) return result;
  double squares = 0;
  for (auto const value : values) squares += (value - result.mean) * (value - result.mean);
  result.deviation = std::sqrt(squares / (n - 1));
  return result;
}

TableFormat table_format(std::string const& name) {
  static std::vector<std::string> const names{"markdown", "csv", "latex"};
  auto const found = std::find(names.begin(), names.end(), name);
  FSLLM_CHECK(found != names.end(), "--format {} (not a known format).{}", name, did_you_mean(name, names));
  return static_cast<TableFormat>(found - names.begin());
}

int decimals_of(std::vector<Measure> const& column) {
  int decimals = 3;
  double smallest = 0;
  bool any_deviation = false;
  for (auto const& row : column) {
    if (row.count == 0) continue;
    any_deviation = any_deviation || row.deviation.has_value();
    if (row.deviation && *row.deviation > 0 && (smallest == 0 || *row.deviation < smallest))
      smallest = *row.deviation;
  }
  if (smallest > 0) decimals = std::max(decimals, 1 - leading_digit(smallest));
  if (!any_deviation) {
    decimals = 4;
    for (auto const& row : column)
      if (row.count > 0 && row.mean != 0) decimals = std::max(decimals, 3 - leading_digit(row.mean));
  }
  return std::min(decimals, kMostDecimals);
}

std::string cell_text(Measure const& measured, int decimals, bool is_best, TableFormat format) {
  if (measured.count == 0) return format == TableFormat::latex ? "--" : "–";
  auto mean = fmt::format("{:.{}f}", measured.mean, decimals);
  bool const latex = format == TableFormat::latex;
  if (is_best) mean = latex ? "\\mathbf{" + mean + "}" : "**" + mean + "**";
  if (measured.deviation)
    mean += fmt::format(" {} {:.{}f}", latex ? "\\pm" : "±", *measured.deviation, decimals);
  return latex ? "$" + mean + "$" : mean;
}

std::string csv_number(double value) {
  int const decimals = value == 0 ? 3 : std::clamp(9 - leading_digit(value), 3, 17);
  return fmt::format("{:.{}f}", value, decimals);
}

std::string table_text(std::vector<std::string> const& header,
                       std::vector<std::vector<std::string>> const& rows, TableFormat format,
                       size_t first_made) {
  auto const line = [&](std::vector<std::string> cells, size_t made) {
    for (size_t i = 0; i < std::min(cells.size(), made); ++i) cells[i] = escaped(cells[i], format);
    if (format == TableFormat::csv) return joined(cells, ",") + "\n";
    if (format == TableFormat::latex) return joined(cells, " & ") + " \\\\\n";
    return "| " + joined(cells, " | ") + " |\n";
  };
  std::string text;
  if (format == TableFormat::latex)
    text += "\\begin{tabular}{" + std::string(header.size(), 'l') + "}\n\\hline\n";
  text += line(header, header.size());
  if (format == TableFormat::latex) text += "\\hline\n";
  if (format == TableFormat::markdown)
    text += "|" + joined(std::vector<std::string>(header.size(), "---"), "|") + "|\n";
  for (auto const& row : rows) text += line(row, first_made);
  if (format == TableFormat::latex) text += "\\hline\n\\end{tabular}\n";
  return text;
}

}  // namespace fsllm
