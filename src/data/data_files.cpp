// SPDX-License-Identifier: Apache-2.0
#include "data_files.hpp"

#include <fmt/ranges.h>
#include <glob.h>

#include <algorithm>
#include <memory>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/unpack.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// part_2 before part_10.
bool shorter_then_smaller(std::string const& a, std::string const& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

bool is_json_lines(std::string_view name) {
  return name.ends_with(".jsonl") || name.ends_with(".jsonl.gz");
}

std::vector<DataFile> in_order(std::vector<std::string> names) {
  std::sort(names.begin(), names.end(), shorter_then_smaller);
  std::vector<DataFile> files;
  for (auto const& name : names) files.push_back({name, ""});
  return files;
}

std::vector<DataFile> files_of_folder(fs::path const& folder) {
  std::vector<std::string> names;
  for (auto const& entry : fs::directory_iterator(folder))
    if (is_json_lines(entry.path().filename().string())) names.push_back(entry.path().string());
  return in_order(std::move(names));
}

std::vector<DataFile> files_of_archive(fs::path const& archive, std::string const& folder) {
  std::vector<std::string> names;
  ZipArchive const zip(archive);
  for (auto const& name : zip.names())
    if (is_json_lines(name) && name.find(folder) != std::string::npos) names.push_back(name);
  std::sort(names.begin(), names.end(), shorter_then_smaller);
  FSLLM_CHECK(!names.empty(), "{}: no .jsonl or .jsonl.gz under {} in this archive. Copy the published one.",
              archive.string(), folder);
  std::vector<DataFile> files;
  for (auto const& name : names) files.push_back({archive, name});
  return files;
}

/// CodeSearchNet's layout: PART.zip, or what is in it unpacked; training rows only.
std::vector<DataFile> files_of_part(fs::path const& root, std::string const& part) {
  std::string const inside = "final/jsonl/train";
  if (auto const folder = root / part / inside; fs::is_directory(folder)) return files_of_folder(folder);
  if (auto const zip = root / (part + ".zip"); fs::is_regular_file(zip))
    return files_of_archive(zip, inside + "/");
  return {};
}

[[noreturn]] void missing(DataConfig const& config, std::string const& type, DataFormat const& format,
                          std::string const& file) {
  auto const name = type.substr(0, type.find('@'));
  fail(fmt::format(
      "data file {} is missing (data.type = {}). {}", (fs::path(config.root) / file).string(), type,
      format.source.empty()
          ? std::string("Correct data.root or data.type.")
          : fmt::format("Put it there under this name; it is published at {}. On a machine with internet, "
                        "datasets/fetch.sh {} does it.",
                        format.source, name)));
}

std::vector<DataFile> files_of_parts(DataConfig const& config, std::string const& type,
                                     DataFormat const& format) {
  std::vector<DataFile> files;
  std::vector<std::string> absent;
  for (auto const& part : format.parts) {
    auto const of_part = files_of_part(config.root, part);
    if (of_part.empty()) absent.push_back(part);
    files.insert(files.end(), of_part.begin(), of_part.end());
  }
  if (files.empty()) missing(config, type, format, format.parts.front() + ".zip");
  if (!absent.empty())
    log_warning("{}: without {}, for there is no .zip of these names in {}.", type, fmt::join(absent, ", "),
                config.root);
  return files;
}

/// Under data.root, else where the program started.
std::vector<DataFile> files_by_pattern(DataConfig const& config, std::string const& name) {
  for (auto const& pattern : {(fs::path(config.root) / name).string(), name}) {
    glob_t found{};
    int const code = glob(pattern.c_str(), 0, nullptr, &found);
    std::unique_ptr<glob_t, decltype(&globfree)> const guard(&found, &globfree);
    if (code == 0 && found.gl_pathc > 0) return in_order({found.gl_pathv, found.gl_pathv + found.gl_pathc});
  }
  fail(fmt::format("no file matches {} (data.type = {}). Correct data.root or data.type.",
                   (fs::path(config.root) / name).string(), name));
}

/// The names under which a file may lie: as it is, packed, or of a known data set as the hub's Parquet.
std::vector<std::string> names_of(std::string const& name, DataFormat const& format) {
  if (is_parquet(name)) return {name};
  std::vector<std::string> names{name, name + ".gz"};
  if (!format.custom) names.push_back(fs::path(name).stem().string() + ".parquet");
  return names;
}

}  // namespace

bool is_parquet(std::string_view name) {
  return name.ends_with(".parquet");
}

std::vector<DataFile> find_data_files(DataConfig const& config, std::string const& type,
                                      DataFormat const& format) {
  if (!format.parts.empty()) return files_of_parts(config, type, format);
  auto const is_file = [](fs::path const& path) { return fs::exists(path) && !fs::is_directory(path); };
  for (auto const& name : format.files)
    for (auto const& known_as : names_of(name, format)) {
      if (auto const path = fs::path(config.root) / known_as; is_file(path)) return {{path, ""}};
      if (format.custom && is_file(known_as)) return {{known_as, ""}};
    }
  auto const& name = format.files.front();
  if (format.custom && name.find_first_of("*?[") != std::string::npos) return files_by_pattern(config, name);
  missing(config, type, format, name);
}

}  // namespace fsllm
