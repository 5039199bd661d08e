// SPDX-License-Identifier: Apache-2.0
// Converted weights, kept for the other ranks of the node and for the next run.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/io/checksum.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors_writer.hpp"
#include "fsllm/model/causal_lm.hpp"
#include "weights.hpp"

namespace fsllm {
namespace detail {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kVersion = 2;
constexpr size_t kPage = 4096;
constexpr char const *kWeights = "model.safetensors", *kStamp = "stamp.json";

/// One process of a node at a time. Where the file system has no locks, several may convert at once, which
/// costs time only: each works in a folder of its own.
class Lock {
 public:
  explicit Lock(fs::path const& path)
      : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600)) {
    FSLLM_CHECK(descriptor_ >= 0,
                "cannot write {} ({}). Make the folder writable, or set hpc.stage_dir to another one.",
                path.string(), std::strerror(errno));
    int code = ::flock(descriptor_, LOCK_EX | LOCK_NB);
    if (code != 0 && errno == EWOULDBLOCK) {
      log_info("waiting for the process that makes these weights now (it holds {})", path.string());
      do code = ::flock(descriptor_, LOCK_EX);
      while (code != 0 && errno == EINTR);
    }
    held_ = code == 0;
  }
  ~Lock() { ::close(descriptor_); }
  Lock(Lock const&) = delete;
  Lock& operator=(Lock const&) = delete;
  bool held() const { return held_; }

 private:
  int descriptor_;
  bool held_ = false;
};

std::string checksum_of(fs::path const& file) {
  return fmt::format("{:016x}", checksum64_file(file));
}

/// What the copy is made of: another program version, type or source gives another text.
json identity(WeightSource const& source, std::string const& storage, LoadOptions const& options) {
  json files = json::array();
  for (auto const& file : source.files()) {
    auto const known = options.checksums.find(file.string());
    files.push_back({{"path", fs::weakly_canonical(file).string()},
                     {"checksum", known == options.checksums.end() ? checksum_of(file)
                                                                   : fmt::format("{:016x}", known->second)}});
  }
  return {{"version", kVersion}, {"storage_dtype", storage}, {"source", files}};
}

/// The files are those whose checksums somebody else has told.
void check_source(WeightSource const& source, LoadOptions const& options) {
  for (auto const& file : source.files())
    if (auto const known = options.checksums.find(file.string()); known != options.checksums.end())
      FSLLM_CHECK(
          checksum64_file(file) == known->second,
          "{} on {} is not what rank 0 has read (its checksum differs). Put the same model on all nodes.",
          file.string(), host_name());
}

/// Can anybody but this user (and root) have made it, or change it?
bool is_foreign(fs::path const& path, mode_t kind) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return false;
  bool const own = info.st_uid == ::geteuid() || info.st_uid == 0;
  return !own || (info.st_mode & S_IFMT) != kind || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0;
}

/// Why the copy in `folder` cannot be used; "" for a good one.
std::string defect(fs::path const& folder, json const& wanted) {
  if (!fs::exists(folder / kStamp)) return "not there";
  if (is_foreign(folder, S_IFDIR) || is_foreign(folder / kWeights, S_IFREG) ||
      is_foreign(folder / kStamp, S_IFREG))
    return "others may have written them";
  try {
    auto const stamp = read_json(folder / kStamp);
    if (!stamp.is_object() || stamp.value("identity", json()) != wanted) return "of another source";
    if (stamp.value("checksum", "") != checksum_of(folder / kWeights)) return "damaged";
  } catch (Error const& error) {
    return error.what();
  }
  return "";
}

void check_space(fs::path const& folder, int64_t bytes) {
  std::error_code error;
  auto const space = fs::space(folder, error);
  FSLLM_CHECK(error || space.available >= static_cast<uintmax_t>(bytes),
              "{} has {} MiB left (the weights take {} MiB). Free some space, or set hpc.stage_dir to "
              "another folder.",
              folder.string(), space.available >> 20, bytes >> 20);
}

void write_copy(WeightSource const& source, Storage const& storage, json const& wanted,
                fs::path const& folder) {
  std::vector<SafetensorsWriter::Entry> entries;
  int64_t bytes = 0;
  for (auto const& name : source.names()) {
    auto shape = source.shape(name);
    if (storage.quantized.contains(name)) shape = {QuantizedWeight::num_bytes(shape, storage.quantization)};
    entries.push_back({name, stored_type(source, name, storage), shape});
    int64_t size = static_cast<int64_t>(c10::elementSize(entries.back().type));
    for (int64_t const extent : entries.back().shape) size *= extent;
    bytes += size;
  }
  check_space(folder.parent_path(), bytes);
  SafetensorsWriter writer(folder / kWeights, std::move(entries), {{"format", "pt"}}, kPage);
  for (auto const& entry : writer.order()) {
    auto const values = source.tensor(entry.name);
    auto const file = source.file_of(entry.name);
    check_finite_weight(entry.name, values, file);
    if (storage.quantized.contains(entry.name))
      writer.write(QuantizedWeight(values, storage.quantization).bytes());
    else
      writer.write(converted_weight(entry.name, values, entry.type, file));
    forget_pages({static_cast<std::byte const*>(values.const_data_ptr()), values.nbytes()});
  }
  writer.commit();
  fs::permissions(folder / kWeights, fs::perms::owner_read | fs::perms::owner_write);
  json const stamp{{"identity", wanted}, {"checksum", checksum_of(folder / kWeights)}};
  write_file_atomic(folder / kStamp, stamp.dump(2) + "\n");
  fs::permissions(folder / kStamp, fs::perms::owner_read | fs::perms::owner_write);
}

/// Puts `made` in the place of `folder`. Processes that have the old one mapped keep it.
void replace(fs::path const& made, fs::path const& folder, json const& wanted) {
  auto const old = fs::path(made) += ".old";
  std::error_code ignored, error;
  fs::rename(folder, old, ignored);
  fs::rename(made, folder, error);
  fs::remove_all(old, ignored);
  if (error) fs::remove_all(made, ignored);
  // Without locks another process may have come first; its copy is as good.
  FSLLM_CHECK(!error || defect(folder, wanted).empty(),
              "cannot write {} ({}). Check the folder's permissions.", folder.string(), error.message());
}

/// Folders of processes that were killed while they converted.
void remove_leftovers(fs::path const& folder) {
  std::error_code ignored;
  auto const prefix = folder.filename().string() + ".partial.";
  for (auto const& entry : fs::directory_iterator(folder.parent_path(), ignored))
    if (entry.path().filename().string().starts_with(prefix)) fs::remove_all(entry.path(), ignored);
}

/// A new folder that only this user can enter.
fs::path make_partial(fs::path const& folder) {
  auto name = folder.string() + ".partial.XXXXXX";
  FSLLM_CHECK(::mkdtemp(name.data()) != nullptr,
              "cannot make folder {} ({}). Check the path, permissions and free space.", name,
              std::strerror(errno));
  return name;
}

}  // namespace

fs::path cached_weights(fs::path const& model, WeightSource const& source, Storage const& storage,
                        LoadOptions const& options) {
  auto const type = storage.name();
  auto const wanted = identity(source, type, options);
  auto const place = fs::weakly_canonical(model);
  auto const folder = options.cache_dir / fmt::format("{}-{}-{}", place.stem().string(), type,
                                                      sha256(place.string()).substr(0, 8));
  if (defect(folder, wanted).empty()) return folder;
  make_folder(options.cache_dir);
  Lock const lock(fs::path(folder) += ".lock");
  auto const why = defect(folder, wanted);
  if (why.empty()) return folder;
  if (lock.held()) remove_leftovers(folder);
  if (why != "not there") log_warning("the weights in {} are made again ({})", folder.string(), why);
  log_info("{} the weights of {} to {} in {}", options.stage && source.mapped() ? "copying" : "converting",
           model.string(),
           type != "auto"    ? type
           : source.mapped() ? "files of this node"
                             : "fp32 (halves stay halves)",
           folder.string());
  auto const made = make_partial(folder);
  try {
    check_source(source, options);
    write_copy(source, storage, wanted, made);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(made, ignored);
    throw;
  }
  replace(made, folder, wanted);
  return folder;
}

}  // namespace detail

std::filesystem::path user_cache_dir() {
  namespace fs = std::filesystem;
  fs::path place;
  if (char const* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg == '/') place = xdg;
  if (char const* home = std::getenv("HOME"); place.empty() && home != nullptr && *home == '/')
    place = fs::path(home) / ".cache";
  std::error_code error;
  if (!place.empty() && (fs::create_directories(place / "fsllm", error), !error) &&
      ::access((place / "fsllm").c_str(), W_OK) == 0)
    return place / "fsllm";
  // Others can write to the temporary directory: the folder must be this user's own.
  auto const own = fs::temp_directory_path() / fmt::format("fsllm-{}", ::geteuid());
  ::mkdir(own.c_str(), 0700);
  struct stat info {};
  FSLLM_CHECK(::lstat(own.c_str(), &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == ::geteuid(),
              "{} is not a folder of yours (it would hold converted weights). Set XDG_CACHE_HOME to a folder "
              "that you can write to.",
              own.string());
  return own;
}

}  // namespace fsllm
