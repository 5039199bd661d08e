// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fsllm {

/// One point of a curve in TensorBoard.
struct CurvePoint {
  std::string tag;  ///< "train/loss_per_token"
  int64_t step = 0;
  double value = 0;      ///< stored as float32
  double wall_time = 0;  ///< seconds since 1970
};

/// The records of an event file (TFRecord frames around tensorflow.Event messages of protocol buffers; the
/// fields are those of event.proto and summary.proto in github.com/tensorflow/tensorboard): the one that
/// every file begins with, and one of a point.
std::string event_file_header(double wall_time);
/// The time in the header that an event file begins with; none where it begins otherwise.
std::optional<double> time_of_event_file(std::string_view file);
std::string event_record(CurvePoint const& point);

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4), which frames are checked by.
uint32_t crc32c(std::string const& bytes);

}  // namespace fsllm
