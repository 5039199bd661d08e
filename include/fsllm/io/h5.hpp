// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace fsllm::h5 {

/// Owns one HDF5 identifier and closes it.
class Id {
 public:
  Id() = default;
  Id(int64_t id, int (*close)(int64_t)) : id_(id), close_(close) {}
  Id(Id&& other) noexcept;
  Id& operator=(Id&& other) noexcept;
  ~Id();
  int64_t get() const { return id_; }

 private:
  int64_t id_ = -1;
  int (*close_)(int64_t) = nullptr;
};

enum class Mode { read, create };

/// An HDF5 file. Paths inside are absolute ("/train/tokens"). Errors name the file and the path.
/// Element types T: uint8_t, uint16_t, int32_t, uint32_t, int64_t, float, double.
class File {
 public:
  File(std::filesystem::path const& path, Mode mode);

  bool exists(std::string const& object) const;
  std::vector<std::string> children(std::string const& group) const;
  void make_group(std::string const& group);

  /// One-dimensional data sets; write creates them (with missing groups).
  template <class T>
  void write(std::string const& dataset, std::vector<T> const& values);
  template <class T>
  std::vector<T> read(std::string const& dataset) const;
  /// Elements [begin, begin + count).
  template <class T>
  std::vector<T> read(std::string const& dataset, int64_t begin, int64_t count) const;
  int64_t length(std::string const& dataset) const;
  /// "uint16", "int64", "float32", ... of a data set.
  std::string type_of(std::string const& dataset) const;

  void set_attribute(std::string const& object, std::string const& name, std::string const& value);
  void set_attribute(std::string const& object, std::string const& name, int64_t value);
  std::string text_attribute(std::string const& object, std::string const& name) const;
  int64_t int_attribute(std::string const& object, std::string const& name) const;
  bool has_attribute(std::string const& object, std::string const& name) const;

  /// Flushes and closes; a full disk shows here as an Error.
  void close();

 private:
  std::filesystem::path path_;
  Id file_;
};

}  // namespace fsllm::h5
