// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/unpack.hpp"

#include <zip.h>
#include <zlib.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

constexpr size_t kPiece = size_t{1} << 18;
constexpr std::string_view kGzipMagic = "\x1f\x8b";

/// A gzip stream (of one member or several) that comes in pieces.
class Gunzip {
 public:
  explicit Gunzip(ByteSink const& sink) : sink_(sink), out_(kPiece, '\0') {
    constexpr int kGzipOnly = 16;
    FSLLM_CHECK(inflateInit2(&stream_, MAX_WBITS + kGzipOnly) == Z_OK,
                "zlib cannot start (no memory). Use a machine with more.");
  }
  ~Gunzip() { inflateEnd(&stream_); }
  Gunzip(Gunzip const&) = delete;
  Gunzip& operator=(Gunzip const&) = delete;

  void feed(std::string_view bytes) {
    while (!bytes.empty() && problem_.empty()) {
      auto const part = bytes.substr(0, size_t{1} << 30);
      feed_part(part);
      bytes.remove_prefix(part.size());
    }
  }

  std::string finish() const {
    if (!problem_.empty()) return problem_;
    return at_member_end_ ? "" : "the gzip stream ends too early";
  }

 private:
  void feed_part(std::string_view bytes) {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    do {
      if (at_member_end_ && stream_.avail_in > 0) inflateReset(&stream_);
      stream_.next_out = reinterpret_cast<Bytef*>(out_.data());
      stream_.avail_out = static_cast<uInt>(out_.size());
      int const code = inflate(&stream_, Z_NO_FLUSH);
      sink_(std::string_view(out_).substr(0, out_.size() - stream_.avail_out));
      at_member_end_ = code == Z_STREAM_END;
      if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
        problem_ = std::string("the gzip stream is damaged: ") + (stream_.msg != nullptr ? stream_.msg : "?");
    } while (problem_.empty() && (stream_.avail_in > 0 || stream_.avail_out == 0));
  }

  ByteSink const& sink_;
  std::string out_, problem_;
  z_stream stream_{};
  bool at_member_end_ = false;
};

struct ZipClose {
  void operator()(zip_t* archive) const { zip_discard(archive); }
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};

}  // namespace

std::string unpack_file(std::filesystem::path const& path, ByteSink const& sink) {
  MappedFile const file(path);
  if (!file.text().starts_with(kGzipMagic)) {
    sink(file.text());
    return "";
  }
  Gunzip gunzip(sink);
  gunzip.feed(file.text());
  return gunzip.finish();
}

struct ZipArchive::Impl {
  std::filesystem::path path;
  std::unique_ptr<zip_t, ZipClose> archive;
};

ZipArchive::ZipArchive(std::filesystem::path const& path) : impl_(std::make_unique<Impl>()) {
  refuse_special_file(path);
  int code = 0;
  impl_->path = path;
  impl_->archive.reset(zip_open(path.c_str(), ZIP_RDONLY, &code));
  if (!impl_->archive) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    std::string const why = zip_error_strerror(&error);
    zip_error_fini(&error);
    fail(fmt::format("{}: not a whole zip archive ({}). Copy the file again.", path.string(), why));
  }
  auto const entries = zip_get_num_entries(impl_->archive.get(), 0);
  for (zip_int64_t i = 0; i < entries; ++i)
    if (auto const* name = zip_get_name(impl_->archive.get(), static_cast<zip_uint64_t>(i), 0))
      if (std::string_view(name).empty() || std::string_view(name).back() != '/') names_.emplace_back(name);
  std::sort(names_.begin(), names_.end());
}

ZipArchive::~ZipArchive() = default;

std::string ZipArchive::unpack(std::string const& name, ByteSink const& sink) const {
  std::unique_ptr<zip_file_t, ZipClose> const file(zip_fopen(impl_->archive.get(), name.c_str(), 0));
  if (!file) return std::string("the zip archive is damaged: ") + zip_strerror(impl_->archive.get());
  std::string piece(kPiece, '\0');
  std::unique_ptr<Gunzip> gunzip;
  bool first = true;
  zip_int64_t got = 0;
  while ((got = zip_fread(file.get(), piece.data(), piece.size())) > 0) {
    auto const bytes = std::string_view(piece).substr(0, static_cast<size_t>(got));
    if (first && bytes.starts_with(kGzipMagic)) gunzip = std::make_unique<Gunzip>(sink);
    first = false;
    gunzip ? gunzip->feed(bytes) : sink(bytes);
  }
  if (got < 0) return std::string("the zip archive is damaged: ") + zip_file_strerror(file.get());
  return gunzip ? gunzip->finish() : "";
}

}  // namespace fsllm
