// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace fsllm {

/// Whole file as bytes; a missing or unreadable one is an Error that names it.
std::string read_file(std::filesystem::path const& path);
/// For libraries that open by name and would wait for the other end of a pipe: what is there, but is no
/// regular file, is an Error.
void refuse_special_file(std::filesystem::path const& path);
/// Who may read a new file: what the umask says, or the owner alone (clients' data and state).
enum class FileAccess { by_umask, owner_only };
/// Writes a temporary file, flushes it to disk, renames it: readers see the old or the new file, never half
/// of one. A full disk or a missing folder is an Error; the old file stays. See AtomicFile.
void write_file_atomic(std::filesystem::path const& path, std::string_view bytes,
                       std::filesystem::path const& scratch = {}, FileAccess access = FileAccess::by_umask);
/// Adds to the end of a file. A file that cannot be written whole is an Error.
void append_to_file(std::filesystem::path const& path, std::string_view bytes);
/// Flushes a file, or a folder's entries, to disk.
void sync_path(std::filesystem::path const& path);
/// Makes a folder with its parents; failure is an Error that names it.
void make_folder(std::filesystem::path const& path);
/// Makes one folder that only its owner may enter (0700). One that is there already stays as it is, unless it
/// is a link or belongs to another user: an Error.
void make_private_folder(std::filesystem::path const& path);

/// What a clone without Git LFS holds in place of a large file, and how a message calls it.
bool is_lfs_pointer(std::string_view bytes);
inline constexpr char const* kLfsPointer = "a Git LFS pointer stands in its place; run git lfs pull";

/// Lower-case hex SHA-256.
std::string sha256(std::string_view bytes);
std::string sha256_file(std::filesystem::path const& path);

/// A file under construction, in the folder `scratch` of the same file system (default: beside `path`), under
/// a random name that is created exclusively: links that somebody placed are not followed. commit() flushes
/// it and renames it to `path`; without commit the destructor removes it. Write with write(), or let a
/// library write to temporary() by name.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path, std::filesystem::path const& scratch = {},
                      FileAccess access = FileAccess::by_umask);
  ~AtomicFile();
  AtomicFile(AtomicFile const&) = delete;
  AtomicFile& operator=(AtomicFile const&) = delete;
  std::filesystem::path const& temporary() const { return temporary_; }
  void write(std::string_view bytes);
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

/// A read-only memory mapping of a whole file; ranks of one node share its pages.
class MappedFile {
 public:
  explicit MappedFile(std::filesystem::path const& path);
  ~MappedFile();
  MappedFile(MappedFile const&) = delete;
  MappedFile& operator=(MappedFile const&) = delete;
  std::span<std::byte const> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<char const*>(data_), size_}; }

 private:
  std::byte const* data_ = nullptr;
  size_t size_ = 0;
};

/// Brings mapped pages into this process at once, in the order of the file, rather than one by one at first
/// use. A hint: nothing happens where the system cannot.
void prefault(std::span<std::byte const> mapped);
/// Takes the pages of a MappedFile that hold these bytes out of this process's memory, until they are used
/// again; nothing happens to other memory.
void forget_pages(std::span<std::byte const> mapped);

}  // namespace fsllm
