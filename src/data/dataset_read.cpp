// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "data_files.hpp"
#include "fsllm/core/counted.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/data/dataset.hpp"
#include "fsllm/io/delimited.hpp"
#include "fsllm/io/parquet.hpp"
#include "fsllm/io/unpack.hpp"
#include "sample_reader.hpp"
#include "text_blocks.hpp"

namespace fsllm {
namespace {

constexpr int64_t kSkippedShown = 5;

/// One of the fields that data.columns is likely to name is not there.
bool lacks_text(std::string const& why) {
  auto const fields = {"instruction", "output", "prompt", "chosen", "rejected"};
  return std::any_of(fields.begin(), fields.end(), [&](auto const* field) {
    return why.starts_with(fmt::format("field '{}' is missing (", field));
  });
}

/// One pass over all files of a data set.
class DataSetPass {
 public:
  DataSetPass(DataConfig const& config, std::function<void(Sample&&)> const& row,
              std::function<bool(int64_t)> const& wanted)
      : config_(config), row_(row), wanted_(wanted) {
    for (auto const& [field, column] : config.columns) unmet_.insert(column);
  }

  void read(DataFile const& file, DataFormat const& format) {
    format_ = format;
    file_ = file.path.filename().string() + (file.entry.empty() ? "" : ":" + file.entry);
    if (is_parquet(file.path.string())) return read_parquet(file);
    auto const source = file.path.string() + (file.entry.empty() ? "" : ":" + file.entry);
    auto const bad = [this](std::string const& why, RecordPlace const& place) { reject(why, place); };
    auto const wanted = [this] { return is_wanted(records_++); };
    if (format_.plain_text) {
      TextBlocks blocks(
          source, [this](std::string&& text, RecordPlace const& place) { take_text(std::move(text), place); },
          bad, wanted, config_.limits);
      stream(file, blocks);
    } else if (format_.delimited) {
      names_.clear();
      DelimitedRecords records(
          source, 0, [this](auto&& fields, auto const& place) { take_fields(std::move(fields), place); }, bad,
          config_.limits);
      stream(file, records);
    } else {
      JsonRecords records(
          source, [this](nlohmann::json const& record, RecordPlace const& place) { take(record, place); },
          bad, wanted, config_.limits);
      stream(file, records);
    }
  }

  ReadCounts finish(std::string const& name) const {
    if (counts_.bad > 0)
      log_warning("{}: {} skipped, {} read.", name, counted(counts_.bad, "bad row"), counts_.rows);
    FSLLM_CHECK(counts_.rows + passed_over_ > 0, "{} has no rows (it is empty{}). Check the file.", name,
                counts_.bad > 0 ? ", or every row is bad" : "");
    FSLLM_CHECK(wanted_ || unmet_.empty() || counts_.rows == 0,
                "no row of {} has the field '{}' (data.columns names it). Correct it.", name,
                *unmet_.begin());
    return counts_;
  }

 private:
  template <class Reader>
  void stream(DataFile const& file, Reader& reader) {
    auto const feed = [&](std::string_view piece) { reader.feed(piece); };
    if (!file.entry.empty() && archive_path_ != file.path) {
      archive_ = std::make_unique<ZipArchive>(file.path);
      archive_path_ = file.path;
    }
    reader.finish(file.entry.empty() ? unpack_file(file.path, feed) : archive_->unpack(file.entry, feed));
  }

  void read_parquet(DataFile const& file) {
    auto const before = records_;
    ParquetRows rows;
    rows.row = [&](nlohmann::json const& record, RecordPlace const& place) {
      records_ = before + place.line;
      take(record, place);
    };
    rows.bad = [this](auto const& why, auto const& place, int64_t lost) { reject(why, place, lost); };
    if (wanted_) rows.wanted = [&](int64_t row) { return is_wanted(before + row); };
    records_ = before + for_each_parquet_row(file.path, sample_fields(format_, config_), rows);
  }

  /// The first record of a table names the fields of the others.
  void take_fields(std::vector<std::string>&& fields, RecordPlace const& place) {
    if (names_.empty()) {
      names_ = std::move(fields);
      for (size_t i = 0; i < names_.size(); ++i)
        FSLLM_CHECK(
            !names_[i].empty() && std::find(names_.begin(), names_.begin() + static_cast<int64_t>(i),
                                            names_[i]) == names_.begin() + static_cast<int64_t>(i),
            "{}: column {} is called '{}' ({}). The first line has to name the columns; add or correct it.",
            place.text(), i + 1, names_[i],
            names_[i].empty() ? "a column without name" : "a name that stands twice");
      return;
    }
    if (!is_wanted(records_++)) return;
    if (fields.size() != names_.size())
      return reject(fmt::format("{} fields, where the first line names {}", fields.size(), names_.size()),
                    place);
    auto record = nlohmann::json::object();
    for (size_t i = 0; i < fields.size(); ++i) record[names_[i]] = std::move(fields[i]);
    take(record, place);
  }

  bool is_wanted(int64_t record) {
    bool const yes = !wanted_ || wanted_(record);
    passed_over_ += yes ? 0 : 1;
    return yes;
  }

  void reject(std::string const& why, RecordPlace const& place, int64_t rows = 1) {
    bool const names_columns = why.find("Write data.columns: {") != std::string::npos;
    FSLLM_CHECK(config_.on_bad_row == "skip" || !names_columns, "{}: {}.", place.text(), why);
    bool damaged = false;
    for (auto const* container : {"the gzip stream", "the zip archive", "the Parquet rows"})
      damaged = damaged || why.starts_with(container);
    FSLLM_CHECK(config_.on_bad_row == "skip", "{}: {}. {}, or set data.on_bad_row: skip.", place.text(), why,
                damaged ? "Copy the file again" : "Correct the row");
    if (counts_.bad < kSkippedShown)
      log_warning("{}: {}. {} skipped.", place.text(), why, rows == 1 ? "The row is" : "They are");
    counts_.bad += rows;
  }

  void take(nlohmann::json const& record, RecordPlace const& place) {
    std::erase_if(unmet_, [&](auto const& column) { return record.contains(column); });
    Sample sample;
    auto why = read_sample(record, format_, config_, sample);
    if (counts_.rows == 0 && format_.custom && lacks_text(why)) why += columns_to_write(record, config_);
    if (!why.empty()) return reject(why, place);
    if (format_.keep != nullptr && !format_.keep(sample, config_)) return;
    hand_over(std::move(sample), place);
  }

  void take_text(std::string&& text, RecordPlace const& place) {
    Sample sample;
    sample.kind = SampleKind::text;
    sample.output = std::move(text);
    hand_over(std::move(sample), place);
  }

  void hand_over(Sample&& sample, RecordPlace const& place) {
    sample.place = place.text();
    sample.record = records_ - 1;
    if (config_.splitter == "by_file") sample.owner = file_;
    ++counts_.rows;
    row_(std::move(sample));
  }

  DataConfig const& config_;
  DataFormat format_;
  std::function<void(Sample&&)> const& row_;
  std::function<bool(int64_t)> const& wanted_;
  std::unique_ptr<ZipArchive> archive_;
  std::filesystem::path archive_path_;
  std::string file_;
  ReadCounts counts_;
  std::vector<std::string> names_;  ///< of the columns of a table
  std::set<std::string> unmet_;     ///< of data.columns: no row had it yet
  int64_t records_ = 0, passed_over_ = 0;
};

}  // namespace

ReadCounts for_each_sample(DataConfig const& config, std::function<void(Sample&&)> const& row,
                           std::function<bool(int64_t)> const& wanted) {
  if (config.types.empty()) data_format("", "data.type");  // which says so
  DataSetPass pass(config, row, wanted);
  std::vector<DataFile> all;
  for (auto const& type : config.types) {
    auto const format = data_format(type, "data.type");
    for (auto const& file : find_data_files(config, type, format)) {
      pass.read(file, format);
      all.push_back(file);
    }
  }
  return pass.finish(all.size() == 1 ? all.front().path.string() : config.type());
}

std::vector<Sample> read_samples(DataConfig const& config, int64_t* skipped) {
  std::vector<Sample> samples;
  auto const counts = for_each_sample(config, [&](Sample&& sample) { samples.push_back(std::move(sample)); });
  if (skipped != nullptr) *skipped = counts.bad;
  return samples;
}

}  // namespace fsllm
