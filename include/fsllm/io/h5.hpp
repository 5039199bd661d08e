// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm::h5 {

/// Owns one HDF5 identifier and closes it.
class Id {
 public:
  Id() = default;
  Id(int64_t id, int (*closer)(int64_t)) : id_(id), close_(closer) {}
  Id(Id&& other) noexcept;
  Id& operator=(Id&& other) noexcept;
  ~Id();
  int64_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  /// Closes now; false where HDF5 reports a problem. Nothing is owned afterwards.
  bool close();

 private:
  int64_t id_ = -1;
  int (*close_)(int64_t) = nullptr;
};

enum class Mode { read, create };

/// An HDF5 file. Paths inside are absolute ("/train/tokens"). Errors name the file and the path.
/// Element types T: uint8_t, uint16_t, int32_t, uint32_t, int64_t, float, double; reading demands that the
/// stored type is T (HDF5 would clip what does not fit without a word).
/// Files hold no time stamps: the same content gives the same bytes. HDF5's file locks are not used, as
/// parallel file systems often lack them and finished files never change.
/// What a file holds, it holds itself: external links, external storage and virtual data sets are refused.
class File {
 public:
  File(std::filesystem::path const& path, Mode mode);
  File(File&&) noexcept = default;
  File& operator=(File&&) = delete;
  /// A created file that was not closed is emptied, so that it gives its disk space back.
  ~File();

  bool exists(std::string const& object) const;
  /// Names of the links in a group, sorted.
  std::vector<std::string> children(std::string const& group) const;
  void make_group(std::string const& group);

  /// One-dimensional data sets; write creates them (with missing groups).
  template <class T>
  void write(std::string const& dataset, std::vector<T> const& values) {
    write_span<T>(dataset, values);
  }
  void write_text(std::string const& dataset, std::string_view text);
  /// Creates a data set of `length` elements, to be filled by write_at.
  template <class T>
  void allocate(std::string const& dataset, int64_t length);
  template <class T>
  void write_at(std::string const& dataset, int64_t begin, std::span<T const> values);

  template <class T>
  std::vector<T> read(std::string const& dataset) const;
  /// Elements [begin, begin + count).
  template <class T>
  std::vector<T> read(std::string const& dataset, int64_t begin, int64_t count) const;
  /// Elements from `begin` on into memory of the caller.
  template <class T>
  void read_into(std::string const& dataset, int64_t begin, std::span<T> values) const;
  /// Whole numbers of any stored type (truth values too); one that T cannot hold is an Error.
  template <class T>
  std::vector<T> integers(std::string const& dataset) const;
  std::string read_text(std::string const& dataset) const;
  int64_t length(std::string const& dataset) const;
  /// "uint16", "int64", "float32", ... of a data set; "other" for what is not a plain number.
  std::string type_of(std::string const& dataset) const;

  void set_attribute(std::string const& object, std::string const& name, std::string const& value);
  void set_attribute(std::string const& object, std::string const& name, int64_t value);
  std::string text_attribute(std::string const& object, std::string const& name) const;
  int64_t int_attribute(std::string const& object, std::string const& name) const;
  bool has_attribute(std::string const& object, std::string const& name) const;

  /// Flushes and closes; a full disk shows here, or in the writes before, as an Error.
  void close();

 private:
  template <class T>
  void write_span(std::string const& dataset, std::span<T const> values);
  /// Converted from the stored type by HDF5.
  template <class T>
  void read_as(std::string const& dataset, int64_t begin, std::span<T> values) const;
  Id open_dataset(std::string const& dataset) const;
  Id open_attribute(std::string const& object, std::string const& name) const;
  Id make_attribute(std::string const& object, std::string const& name, Id const& type);
  /// `what` and HDF5's own reason, as an Error.
  [[noreturn]] void fail_reading(std::string const& what) const;
  [[noreturn]] void fail_writing(std::string const& what) const;

  std::filesystem::path path_;
  Mode mode_;
  Id file_;
};

}  // namespace fsllm::h5
