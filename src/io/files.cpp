// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/files.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "fsllm/core/error.hpp"
#include "fsllm/io/handed_files.hpp"
#include "mapping_guard.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

std::string why() {
  return std::strerror(errno);
}

/// Owns one file descriptor.
class Descriptor {
 public:
  /// Pipes are opened without a wait for their other end, and refused by checked_size.
  Descriptor(fs::path const& path, int flags)
      : value_(::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0666)) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(Descriptor const&) = delete;
  Descriptor& operator=(Descriptor const&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

void check_regular(struct stat const& info, fs::path const& path) {
  FSLLM_CHECK(S_ISREG(info.st_mode), "cannot read {} ({}). Give the path of a file.", path.string(),
              S_ISDIR(info.st_mode) ? "it is a folder" : "it is not a regular file");
}

/// Size of an opened regular file; folders and devices are refused.
size_t checked_size(Descriptor const& file, fs::path const& path) {
  FSLLM_CHECK(file.get() >= 0, "cannot read {} ({}). Check the path and its permissions.", path.string(),
              why());
  struct stat info {};
  FSLLM_CHECK(::fstat(file.get(), &info) == 0, "cannot read {} ({}). Check the file system.", path.string(),
              why());
  check_regular(info, path);
  return static_cast<size_t>(info.st_size);
}

/// Reads up to `size` bytes; fewer only at the end of the file.
size_t read_some(Descriptor const& file, fs::path const& path, char* into, size_t size) {
  size_t done = 0;
  while (done < size) {
    ssize_t const got = ::read(file.get(), into + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    FSLLM_CHECK(got >= 0, "cannot read {} ({}). Check the file system.", path.string(), why());
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void write_all(int descriptor, fs::path const& path, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t const done = ::write(descriptor, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    FSLLM_CHECK(done > 0, "cannot write {} ({}). Free some space or choose another folder.", path.string(),
                why());
    bytes.remove_prefix(static_cast<size_t>(done));
  }
}

fs::path folder_of(fs::path const& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

using Digest = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

Digest start_digest() {
  Digest digest(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  FSLLM_CHECK(digest && EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr) == 1,
              "cannot compute SHA-256 (OpenSSL refuses it). Check the OpenSSL configuration.");
  return digest;
}

std::string finish_digest(Digest const& digest) {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_DigestFinal_ex(digest.get(), hash, &length);
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", hash[i]);
  return hex;
}

}  // namespace

std::string read_file(fs::path const& path) {
  if (auto const* text = HandedFiles::find(path.string())) return *text;
  Descriptor const file(path, O_RDONLY);
  std::string bytes(checked_size(file, path), '\0');
  bytes.resize(read_some(file, path, bytes.data(), bytes.size()));
  return bytes;
}

void refuse_special_file(fs::path const& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) check_regular(info, path);
}

void write_file_atomic(fs::path const& path, std::string_view bytes, fs::path const& scratch,
                       FileAccess access) {
  AtomicFile file(path, scratch, access);
  file.write(bytes);
  file.commit();
}

void append_to_file(fs::path const& path, std::string_view bytes) {
  Descriptor const file(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW);
  FSLLM_CHECK(file.get() >= 0, "cannot write {} ({}). Check the folder's permissions.", path.string(), why());
  write_all(file.get(), path, bytes);
}

void sync_path(fs::path const& path) {
  Descriptor const file(path, O_RDONLY);
  FSLLM_CHECK(file.get() >= 0, "cannot flush {} to disk ({}). Check the path.", path.string(), why());
  // Some network file systems know no fsync of folders and say EINVAL.
  FSLLM_CHECK(::fsync(file.get()) == 0 || errno == EINVAL,
              "cannot flush {} to disk ({}). Check free space and the file system.", path.string(), why());
}

void make_folder(fs::path const& path) {
  std::error_code error;
  fs::create_directories(path, error);
  FSLLM_CHECK(!error, "cannot make folder {} ({}). Check the path, permissions and free space.",
              path.string(), error.message());
}

void make_private_folder(fs::path const& path) {
  bool const made = ::mkdir(path.c_str(), 0700) == 0;
  FSLLM_CHECK(made || errno == EEXIST,
              "cannot make folder {} ({}). Check the path, permissions and free space.", path.string(),
              why());
  struct stat info {};
  FSLLM_CHECK(::lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode),
              "{} is not a folder (the program's own files go there). Move it away.", path.string());
  FSLLM_CHECK(made || info.st_uid == ::geteuid() || ::geteuid() == 0,
              "{} belongs to another user (the program's own files go there). Choose another folder.",
              path.string());
}

bool is_lfs_pointer(std::string_view bytes) {
  return bytes.starts_with("version https://git-lfs.github.com/");
}

std::string sha256(std::string_view bytes) {
  Digest const digest = start_digest();
  EVP_DigestUpdate(digest.get(), bytes.data(), bytes.size());
  return finish_digest(digest);
}

std::string sha256_file(fs::path const& path) {
  Descriptor const file(path, O_RDONLY);
  checked_size(file, path);
  Digest const digest = start_digest();
  std::vector<char> block(size_t{1} << 18);
  while (size_t const got = read_some(file, path, block.data(), block.size()))
    EVP_DigestUpdate(digest.get(), block.data(), got);
  return finish_digest(digest);
}

AtomicFile::AtomicFile(fs::path path, fs::path const& scratch, FileAccess access) : path_(std::move(path)) {
  auto const folder = scratch.empty() ? folder_of(path_) : scratch;
  std::random_device random;
  do {
    temporary_ = folder / fmt::format(".{}.{:08x}", path_.filename().string().substr(0, 200), random());
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                         access == FileAccess::owner_only ? 0600 : 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  FSLLM_CHECK(descriptor_ >= 0, "cannot write {} ({}). Check that the folder exists and is writable.",
              path_.string(), why());
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::string_view bytes) {
  write_all(descriptor_, path_, bytes);
}

void AtomicFile::commit() {
  FSLLM_CHECK(::fsync(descriptor_) == 0, "cannot write {} ({}). Free some space or choose another folder.",
              path_.string(), why());
  FSLLM_CHECK(::rename(temporary_.c_str(), path_.c_str()) == 0,
              "cannot write {} ({}). Check the folder's permissions.", path_.string(), why());
  ::close(std::exchange(descriptor_, -1));
  sync_path(folder_of(path_));
}

MappedFile::MappedFile(fs::path const& path) {
  Descriptor const file(path, O_RDONLY);
  size_ = checked_size(file, path);
  if (size_ == 0) return;
  void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  FSLLM_CHECK(address != MAP_FAILED,
              "cannot map {} into memory ({}). Check the address space limit (ulimit -v).", path.string(),
              why());
  data_ = static_cast<std::byte const*>(address);
  guard_mapping(data_, size_, path);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  release_mapping(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

void forget_pages(std::span<std::byte const> mapped) {
  if (!is_guarded(mapped)) return;
  auto const page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  auto const before = reinterpret_cast<uintptr_t>(mapped.data()) % page;
  ::madvise(const_cast<std::byte*>(mapped.data()) - before, mapped.size() + before, MADV_DONTNEED);
}

void prefault(std::span<std::byte const> mapped) {
#ifdef MADV_POPULATE_READ
  auto const page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  auto const before = reinterpret_cast<uintptr_t>(mapped.data()) % page;
  ::madvise(const_cast<std::byte*>(mapped.data()) - before, mapped.size() + before, MADV_POPULATE_READ);
#else
  std::ignore = mapped;
#endif
}

}  // namespace fsllm
